"""Stage A: the thinker and its tokenizer, from nothing, by causal language modelling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen3Config

from omnitune.config import RunConfig, check_heads
from omnitune.data.chat import SPECIAL_TOKENS, ChatRenderer
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.mixture import Mixture
from omnitune.data.records import read_available, split_of
from omnitune.evaluation.scoreboard import token_scoreboard
from omnitune.models.components import save_thinker
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.pretraining.stage import Stage, fresh_directory, run_stage
from omnitune.sample import Media, Message, Sample, Text, UserError

# What subwords never reach across: one digit; letters; other marks; blanks.
PIECES = r" ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class ThinkerConfig(RunConfig):
    """Stage A: a small Qwen3 (grouped-query attention, QK norm, SwiGLU)."""

    stage: Literal["thinker"] = "thinker"
    num_epochs: int = Field(2, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(3e-3, gt=0, le=1)
    warmup_steps: int = Field(100, ge=0)
    vocab_size: int = Field(1600, ge=300, le=65_536, description="subwords of the tokenizer")
    hidden_size: int = Field(128, ge=16, description="width")
    num_layers: int = Field(4, ge=1, description="decoder layers")
    num_heads: int = Field(2, ge=1, description="query heads")
    num_kv_heads: int = Field(1, ge=1, description="key-value heads")
    intermediate_size: int = Field(384, ge=16, description="width of the feed-forward part")
    max_positions: int = Field(2048, ge=64, description="longest context in tokens")
    max_tokens: int = Field(1024, ge=16, description="longest sample")

    @model_validator(mode="after")
    def _fits(self) -> ThinkerConfig:
        check_heads(self.hidden_size, self.num_heads)
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
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        ).to_dict()


def pretrain(config: ThinkerConfig, resume: bool = False, overwrite: bool = False) -> Path:
    """Trains tokenizer and thinker on the training split; returns the checkpoint's path."""
    out = fresh_directory(config, "thinker_best.pt", resume, overwrite)
    if out.complete:
        return out.path
    torch.manual_seed(config.seed)
    sources = read_available(config.data_dir)
    train = {name: [put_into_words(s) for s in split_of(x, "train")] for name, x in sources.items()}
    train = {name: samples for name, samples in train.items() if samples}
    held_out = [put_into_words(s) for x in sources.values() for s in split_of(x, "validation")]
    if not train or not held_out:
        raise UserError(f"{config.data_dir}: needs records in the splits train and validation")
    tokenizer = train_tokenizer((s for x in train.values() for s in x), config.vocab_size)
    renderer = ChatRenderer(tokenizer)
    model = OmniModel(OmniConfig(thinker=config.architecture(tokenizer.get_vocab_size())))
    reader = SampleReader(renderer, {}, max_tokens=config.max_tokens)
    sizes = {name: len(samples) for name, samples in train.items()}
    mixture = Mixture(sizes, {n: float(s) for n, s in sizes.items()}, config.seed)
    stream = BatchStream(reader, train, mixture, config.batch_size, supervise_all=True)
    items = [reader.item(sample) for sample in held_out]
    run_stage(
        Stage(
            config=config,
            model=model,
            batch_at=stream,
            batches_per_epoch=len(stream),
            groups=stream.groups,
            score=lambda: token_scoreboard(model, items),
            better=lambda new, old: new["loss"] < old["loss"],
            save_best=lambda scores: save_thinker(out.path, model, tokenizer, scores=scores),
            line=lambda s: f"loss={s['loss']:.3f} answer tokens right: {s['token_acc']:.1%}",
        ),
        resume,
    )
    return out.path


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


def put_into_words(sample: Sample) -> Sample:
    """The sample with its media replaced by the words that stand in for them.

    The thinker so learns in text, where a step is cheap, the reasoning that the joint
    fine-tuning has then only to tie to pictures and sound. A medium without such words is
    left out.
    """

    def words(message: Message) -> Message:
        parts = tuple(
            Text(sample.stand_ins.get(p.modality, "") + ". ") if isinstance(p, Media) else p
            for p in message.parts
        )
        return replace(message, parts=parts)

    return replace(sample, messages=tuple(words(m) for m in sample.messages))


def _texts(samples: Iterable[Sample]) -> Iterator[str]:
    return (
        part.text for s in samples for m in s.messages for part in m.parts if isinstance(part, Text)
    )
