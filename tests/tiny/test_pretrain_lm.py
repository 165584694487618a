"""Stage A: media become words, subwords decode to what was written."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import conversation, tiny_tokenizer
from tokenizers import Regex, pre_tokenizers

from omnitune.config.settings import load_config
from omnitune.config.sft import DataMix
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.mixture import Mixture
from omnitune.data.template import ChatRenderer
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Described, Media, Message, Text, UserError
from omnitune.tiny.pretrain_lm import (
    PIECES,
    SPECIAL_TOKENS,
    ThinkerConfig,
    described_first,
    mimetic_init_,
    put_into_words,
    shown,
    to_spoken_question,
)
from omnitune.tiny.pseudo_features import PseudoFeatures

MIX = {"text_only": 0.5, "described": 0.5}


def test_media_are_replaced_by_their_words_where_they_stood() -> None:
    media = (Media("image", Path("a.png")), Media("audio", Path("a.wav")))
    captions = {"image": "a red circle", "audio": "is it red"}
    sample = conversation("both", "answer.", "yes", media=media, captions=captions)
    worded = put_into_words(sample)
    assert worded.messages[0].text == "a red circle. is it red. answer."
    assert worded.messages[1] == sample.messages[1]
    assert worded.media == ()


@pytest.mark.parametrize(
    "text", ["12", "it is 10:30.", "x2y", "a  b", "line\nline", "<|end|>", "café 🙂"]
)
def test_subwords_decode_to_what_was_written(text: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.encode_special_tokens = True
    assert tokenizer.decode(tokenizer.encode(text).ids).strip() == text


@pytest.mark.parametrize(
    ("written", "pieces"),
    [
        (" rings and crosses", [" ring", "s", " and", " cross", "es"]),
        (" boxes, circles", [" box", "es", ",", " circle", "s"]),
        (" this glass is his", [" this", " glass", " is", " his"]),
        (" room 12", [" room", " 1", "2"]),
    ],
)
def test_pieces_end_before_a_plural(written: str, pieces: list[str]) -> None:
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    assert [piece for piece, _ in split.pre_tokenize_str(written)] == pieces


def test_special_tokens_are_single_and_first() -> None:
    tokenizer = tiny_tokenizer()
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="hidden_size 128 is not a multiple of num_heads 3"):
        load_config(ThinkerConfig, None, ["--num-heads", "3", "--num-kv-heads", "3"])


def test_half_of_the_heads_begin_by_looking_for_what_is_like_them() -> None:
    """Also where queries share a key: there the first of them does."""
    config = ThinkerConfig(hidden_size=32, num_layers=2, num_heads=8, num_kv_heads=4)
    thinker = OmniModel(OmniConfig(config.architecture(300))).thinker
    mimetic_init_(thinker)
    for layer in thinker.get_decoder().layers:
        attention = layer.self_attn
        asks_HDE = attention.q_proj.weight.detach().view(8, 4, 32)
        keys_HDE, values_HDE = (
            projection.weight.detach().view(4, 4, 32).repeat_interleave(2, dim=0)
            for projection in (attention.k_proj, attention.v_proj)
        )
        outputs_HDE = attention.o_proj.weight.detach().T.view(8, 4, 32)
        for found, begun in ((keys_HDE, asks_HDE), (outputs_HDE, values_HDE)):
            alike = [torch.equal(a, b) for a, b in zip(found, begun, strict=True)]
            assert alike == [True, False, False, False] * 2


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_question_keeps_its_picture(share: float, told: bool) -> None:
    """In slots or in a row, the words stand before each question; in slots if only told."""
    media = (Media("image", Path("a.png")),)
    turns = ("which color?", "red", "which shape?", "circle")
    words = "a red circle, a blue ring"
    captions = {} if told else {"image": words}
    sample = conversation("album", *turns, media=media, captions=captions, independent_turns=True)
    if told:
        first, *rest = sample.messages
        opening = Message("user", (Described.of("image", words), *first.parts[1:]))
        sample = replace(sample, messages=(opening, *rest))
    for single in sample.split_turns():
        first = shown(single, 0, share).messages[0].parts[0]
        if share or told:
            assert isinstance(first, PseudoFeatures)
            assert [s for s in first.slots if s] == ["red circle", "blue ring"]
        else:
            assert (
                shown(single, 0, share).messages[0].text.startswith("a red circle, a blue ring. ")
            )


def test_transcripts_stand_as_clips_do() -> None:
    """Word by word without a full stop, then silence; the same each time it is asked for."""
    media = (Media("audio", Path("a.wav")),)
    sample = conversation("clip", "what is said?", "hi", media=media, captions={"audio": "the sky"})
    parts = shown(sample, 0, spoken_question_prob=0).messages[0].parts
    assert parts[0] == Text("the sky")
    silence = parts[1]
    assert isinstance(silence, PseudoFeatures)
    assert silence.modality == "audio"
    assert set(silence.slots) == {""}
    assert parts[2] == Text("what is said?")
    assert shown(sample, 0, spoken_question_prob=0).messages[0].parts == parts


def test_the_first_sentence_of_a_question_is_spoken() -> None:
    media = (Media("image", Path("a.png")),)
    captions = {"image": "a red circle"}
    asked = {
        "is it red?": [Text("is it red")],
        "it is red. is this true?": [Text("it is red"), Text("is this true?")],
    }
    for question, expected in asked.items():
        sample = conversation("q", question, "yes", media=media, captions=captions)
        for share in (0.0, 1.0):
            worded = shown(sample, 0, 0, spoken_question_prob=share).messages
            picture, *rest = worded[0].parts
            assert picture == Described.of("image", "a red circle")
            if share:
                assert [p for p in rest if isinstance(p, Text)] == expected
                assert [p.modality for p in rest if isinstance(p, PseudoFeatures)] == ["audio"]
            else:
                assert rest == [Text(question)]
            assert worded[1] == sample.messages[1]


def test_what_has_no_picture_or_several_turns_is_not_spoken() -> None:
    image, clip = Media("image", Path("a.png")), Media("audio", Path("a.wav"))
    samples = [
        conversation("text", "is it red?", "yes"),
        conversation("clip", "is it red?", "yes", media=(clip,)),
        conversation("both", "is it red?", "yes", media=(image, clip)),
        conversation("long", "is it red?", "yes", "sure?", "yes", media=(image,)),
    ]
    for sample in samples:
        assert to_spoken_question(sample, random.Random(0)) == sample


def test_what_is_told_comes_first() -> None:
    train = {name: [conversation(f"{name}{n}", "?", "x") for n in range(5)] for name in MIX}
    sizes = {name: len(samples) for name, samples in train.items()}
    reader = SampleReader(ChatRenderer(tiny_tokenizer()), {})
    stream = BatchStream(reader, train, Mixture(sizes, MIX, seed=0), batch_size=2)
    config = ThinkerConfig(batch_size=2, num_epochs=2, data_mix=DataMix(**MIX))
    course = described_first(config, stream, train)
    names = [course.sample_at(k)[0] for k in range(20)]
    assert set(names[:8]) == {"described"}
    assert sorted(names[8:]) == ["described"] * 6 + ["text_only"] * 6
