"""Stage A: the thinker and its tokenizer, from nothing, by causal language modelling."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel, Qwen3Config

from omnitune.config.base import Count, Rate, Share
from omnitune.config.sft import DataMix
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.mixture import Mixture
from omnitune.data.packing import Item
from omnitune.data.reading import read_available, split_of
from omnitune.data.rounding import round_up
from omnitune.data.schedule import SamplingSchedule, Segment
from omnitune.data.template import CONTROL_TOKENS, ChatRenderer, placeholder
from omnitune.evaluation.scoring import token_scoreboard
from omnitune.media.registry import MEDIA
from omnitune.models.loading import save_thinker
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import ContentPart, Described, Media, Message, Sample, Text, UserError
from omnitune.tiny.pseudo_features import PseudoFeatures, spread
from omnitune.tiny.stage import Stage, StageConfig, check_heads
from omnitune.training.run import Plan

MEDIA_NAMES = ("image", "audio")  # that the tiny parts see and hear
SPECIAL_TOKENS = (*CONTROL_TOKENS, *map(placeholder, MEDIA_NAMES))
SPEECH = "audio"
PSEUDO_FEATURE_PROB = 0.7  # of a picture's caption in slots, as features are, not as plain text
SLOTS = 9  # over which a caption is spread
SPOKEN_QUESTION_PROB = 0.3  # of a single question about a picture as speech
PROMPT_WEIGHT = 0.1  # of a token outside the assistant's answers
MULTI_TURN_PROB = 0.5  # of a record's questions in one conversation, in place of each alone
MAX_QUESTIONS = 7  # of a record in one sample
DESCRIBED_FIRST = 0.4  # of the run, from its start, that draws from `described` only
# What follows a noun that stands for several: "rings", "crosses"; not what ends "glass" or "this".
PLURAL = r"(?:(?<=ss|x|z|ch|sh)es|(?<![siu])s)(?!\p{L})"
# What subwords never reach across: one digit; letters up to a plural's ending, so that who
# learns to look for a ring can look for rings; other letters; other marks; blanks.
PIECES = rf" ?\p{{N}}| ?\p{{L}}{{3,}}?(?={PLURAL})| ?\p{{L}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"


class ThinkerConfig(StageConfig):
    """Stage A: a small Qwen3 (grouped-query attention, QK norm, SwiGLU)."""

    checkpoint: ClassVar[str] = "thinker_best.pt"

    stage: Literal["pretrain_lm"] = "pretrain_lm"
    data_mix: DataMix = DataMix(
        text_only=0.3,
        image_text=0.13,
        captions=0.17,
        audio_text=0.07,
        transcripts=0.08,
        image_audio_text=0.01,
        described=0.24,
    )
    """sampling weight of each source; sources without a file are left out"""
    batch_size: Count = 16
    learning_rate: Rate = 7e-3
    muon_learning_rate: Rate = 1e-2
    min_lr_ratio: Share = 0.02
    warmup_steps: int = Field(100, ge=0)
    vocab_size: int = Field(1600, ge=300, le=65_536)
    """vocabulary size of the tokenizer"""
    num_kv_heads: Count = 4
    """number of key-value heads"""
    max_positions: int = Field(2048, ge=64)
    """largest context length in tokens"""
    max_tokens: int = Field(1024, ge=16)
    """largest length of a sample in tokens"""

    @model_validator(mode="after")
    def _key_value_heads_fit(self) -> ThinkerConfig:
        check_heads(self.num_heads, self.num_kv_heads, "num_heads", "num_kv_heads")
        return self

    def architecture(self, vocab_size: int) -> dict[str, Any]:
        """Settings of the language model."""
        return Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.hidden_size // self.num_heads,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=True,
            # The library's 0.02 suits widths in the thousands; narrow layers start too quiet.
            initializer_range=0.5 / self.hidden_size**0.5,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ).to_dict()


def build_stage(config: ThinkerConfig, path: Path) -> Stage:
    """The thinker with its tokenizer, and its data; the best is kept at a path.

    Raises:
        UserError: there is too little data, or ``data_mix`` gives no weight to any of it.
    """
    sources = read_available(config.data_dir)
    train = {name: split_of(x, "train") for name, x in sources.items()}
    train = {name: samples for name, samples in train.items() if samples}
    held_out = [s for x in sources.values() for s in split_of(x, "validation")]
    if not train or not held_out:
        raise UserError(f"{config.data_dir}: needs records in the splits train and validation")
    words = (put_into_words(s) for samples in train.values() for s in samples)
    tokenizer = train_tokenizer(words, config.vocab_size)
    model = OmniModel(OmniConfig(thinker=config.architecture(tokenizer.get_vocab_size())))
    mimetic_init_(model.thinker)
    reader = WordsReader(ChatRenderer(tokenizer), config.max_tokens, config.seed)
    weights = {name: w for name, w in config.data_mix.weights().items() if name in train}
    if not weights:
        raise UserError(
            f"{config.data_dir}: has only {', '.join(train)}, which data_mix gives no weight"
        )
    sizes = {name: len(samples) for name, samples in train.items()}
    mixture = Mixture(sizes, weights, config.seed)
    stream = BatchStream(
        reader,
        train,
        mixture,
        config.batch_size,
        prompt_weight=PROMPT_WEIGHT,
        multi_turn_prob=MULTI_TURN_PROB,
        max_questions_per_sample=MAX_QUESTIONS,
    )
    if "described" in stream.groups:
        stream.follow(described_first(config, stream, train))
    items = [reader.item(one) for sample in held_out for one in sample.split_turns()]
    return Stage(
        model=model,
        batch_at=stream,
        batches_per_epoch=len(stream),
        groups=stream.groups,
        score=lambda: token_scoreboard(model, items),
        metric="loss",
        save_best=lambda scores: save_thinker(path, model, tokenizer, scores=scores),
        tokenizer=tokenizer,
        rounded=round_up,
        compile=model.compile_decoder,
    )


@torch.no_grad()
def mimetic_init_(thinker: PreTrainedModel) -> None:
    """Lets every other head of keys begin by being found by what is alike, and copied.

    It is made as the (first) query that asks for it, and the output as the value was taken in. To
    find what a question names is most of what is asked of a picture, and random weights come upon
    it late (Trockman and Kolter 2023, "Mimetic initialization of self-attention layers";
    docs/log.md).
    """
    for layer in cast(Any, thinker.get_decoder()).layers:
        attention = layer.self_attn
        size, shared = attention.head_dim, attention.num_key_value_groups
        heads = attention.k_proj.out_features // size
        for head in range(0, heads, 2):
            there = slice(head * size, (head + 1) * size)
            asks = slice(head * shared * size, (head * shared + 1) * size)
            attention.k_proj.weight[there] = attention.q_proj.weight[asks]
            attention.o_proj.weight[:, asks] = attention.v_proj.weight[there].T


def described_first(
    config: ThinkerConfig, stream: BatchStream, train: Mapping[str, Sequence[Sample]]
) -> SamplingSchedule:
    """The order of samples in which the mix comes after what is told."""
    steps = round(DESCRIBED_FIRST * Plan.of(config, len(stream)).total_steps)
    weights = {name: config.data_mix.weights()[name] for name in stream.groups}
    sizes = {name: len(train[name]) for name in weights}
    segments = [
        Segment(0, {"described": 1.0}, {"described": sizes["described"]}),
        Segment(steps * stream.batch_size * config.gradient_accumulation, weights, sizes),
    ]
    return SamplingSchedule(sizes, segments, config.seed)


def train_tokenizer(samples: Iterable[Sample], vocab_size: int) -> Tokenizer:
    """Byte-level BPE in which a word is the same token wherever it stands; digits are split."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(samples), trainer)
    return tokenizer


class WordsReader(SampleReader):
    """Reads samples in the form that a thinker without encoders learns from (:func:`shown`)."""

    def __init__(self, renderer: ChatRenderer, max_tokens: int, seed: int) -> None:
        super().__init__(renderer, {}, max_tokens=max_tokens)
        self.seed = seed

    def item(self, sample: Sample, group: int = 0) -> Item:
        """Renders one sample in words."""
        return super().item(shown(sample, self.seed), group)


def shown(
    sample: Sample,
    seed: int,
    pseudo_feature_prob: float = PSEUDO_FEATURE_PROB,
    spoken_question_prob: float = SPOKEN_QUESTION_PROB,
) -> Sample:
    """The sample in words; pictures that are only told in slots, of others ``pseudo_feature_prob``.

    To look something up among slots is another skill than to read it in a row, and so is to
    understand words that silence follows. Here a step that teaches it costs the least, and the
    joint fine-tuning has then only to make features say what these words say. The form of a
    record, and of each of its questions, is fixed.
    """
    draw = random.Random(f"{seed}/glimpse/{sample.id.partition('#')[0]}")
    told = any(isinstance(part, Described) for part in sample.context_parts)
    slots = SLOTS if told or draw.random() < pseudo_feature_prob else 0

    def present(modality: str, words: str) -> Sequence[ContentPart] | None:
        if not MEDIA[modality].is_spatial:
            return as_speech(words, modality, draw)
        glimpse = spread(words, slots, draw) if slots else None
        return [PseudoFeatures(modality, glimpse)] if glimpse else None

    draw_question = random.Random(f"{seed}/heard/{sample.id}")
    if draw_question.random() < spoken_question_prob:
        sample = to_spoken_question(sample, draw_question)
    return put_into_words(sample, present)


def to_spoken_question(sample: Sample, draw: random.Random) -> Sample:
    """A question about a picture as if it were spoken; any other sample as it is.

    Of several sentences the first is spoken, the others are written below it.
    """
    asked, *answers = sample.messages
    match asked.parts:
        case (Media(name) | Described(_, name) as subject, Text(question)) if (
            MEDIA[name].is_spatial and len(answers) == 1
        ):
            said, _, rest = question.partition(". ")
            parts = [subject, *as_speech(said.rstrip(".?"), SPEECH, draw)] + [Text(rest)] * bool(
                rest
            )
            return replace(sample, messages=(replace(asked, parts=tuple(parts)), *answers))
    return sample


def as_speech(words: str, modality: str, draw: random.Random) -> list[ContentPart]:
    """Words as a clip has them: one after the other, without marks, and then silence."""
    count = len(words.split())
    silence = draw.randint(1 + count // 3, 1 + 4 * count // 3)
    return [Text(words), PseudoFeatures(modality, ("",) * silence)]


def put_into_words(
    sample: Sample,
    present: Callable[[str, str], Sequence[ContentPart] | None] = lambda modality, words: None,
) -> Sample:
    """The sample with its media replaced by the words that stand in for them.

    The thinker so learns in text, where a step is cheap, the reasoning that the joint
    fine-tuning has then only to tie to pictures and sound. A medium without such words is
    left out.

    Args:
        present: of a modality and its words, what stands for them; None for a sentence.
    """

    def in_words(part: ContentPart) -> Sequence[ContentPart]:
        if isinstance(part, Media):
            part = Described.of(part.modality, part.caption)
        if not isinstance(part, Described) or not part.words:
            return [part]
        return present(part.modality, part.words) or [part]

    def words(message: Message) -> Message:
        return replace(message, parts=tuple(new for p in message.parts for new in in_words(p)))

    return replace(sample, messages=tuple(words(m) for m in sample.messages))


def _texts(samples: Iterable[Sample]) -> Iterator[str]:
    return (
        part.text for s in samples for m in s.messages for part in m.parts if isinstance(part, Text)
    )
