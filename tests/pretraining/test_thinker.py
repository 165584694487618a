"""Stage A: media become words, subwords decode to what was written."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import conversation, tiny_tokenizer

from omnitune.config import DataMix, load_config
from omnitune.data.chat import SPECIAL_TOKENS, ChatRenderer
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.mixture import Mixture
from omnitune.pretraining.thinker import ThinkerConfig, put_into_words, shown, spread, told_first
from omnitune.sample import Glimpse, Media, Message, Told, UserError

MIX = {"text_only": 0.5, "told": 0.5}


def test_media_are_replaced_by_their_words_where_they_stood() -> None:
    media = (Media("image", Path("a.png")), Media("audio", Path("a.wav")))
    stand_ins = {"image": "a red circle", "audio": "is it red"}
    sample = conversation("both", "answer.", "yes", media=media, stand_ins=stand_ins)
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


def test_special_tokens_are_single_and_first() -> None:
    tokenizer = tiny_tokenizer()
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="hidden_size 128 is not a multiple of num_heads 3"):
        load_config(ThinkerConfig, None, ["--num-heads", "3", "--num-kv-heads", "3"])


def test_phrases_are_spread_over_slots_in_order() -> None:
    for seed in range(5):
        slots = spread("at the top a red star, at the left a ring", 4, random.Random(seed))
        assert slots is not None
        assert len(slots) == 4
        assert [s for s in slots if s] == ["at the top a red star", "at the left a ring"]
    words = spread("the digits 4 4", 6, random.Random(0))
    assert words is not None
    assert [w for w in words if w] == ["the", "digits", "4", "4"]
    assert spread("one, two, three", 2, random.Random(0)) is None


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_question_keeps_its_picture(share: float, told: bool) -> None:
    """In slots or in a row, the words stand before each question; in slots if only told."""
    media = (Media("image", Path("a.png")),)
    turns = ("which color?", "red", "which shape?", "circle")
    words = "a red circle, a blue ring"
    stand_ins = {} if told else {"image": words}
    sample = conversation("album", *turns, media=media, stand_ins=stand_ins, independent_turns=True)
    if told:
        first, *rest = sample.messages
        opening = Message("user", (Told.of("image", words), *first.parts[1:]))
        sample = replace(sample, messages=(opening, *rest))
    config = ThinkerConfig(glimpse_share=share)
    for single in sample.alone():
        first = shown(single, config).messages[0].parts[0]
        if share or told:
            assert isinstance(first, Glimpse)
            assert [s for s in first.slots if s] == ["a red circle", "a blue ring"]
        else:
            assert shown(single, config).messages[0].text.startswith("a red circle, a blue ring. ")


def test_what_is_told_comes_first() -> None:
    train = {name: [conversation(f"{name}{n}", "?", "x") for n in range(5)] for name in MIX}
    sizes = {name: len(samples) for name, samples in train.items()}
    reader = SampleReader(ChatRenderer(tiny_tokenizer()), {})
    stream = BatchStream(reader, train, Mixture(sizes, MIX, seed=0), batch_size=2)
    config = ThinkerConfig(batch_size=2, num_epochs=2, told_first=0.5, data_mix=DataMix(**MIX))
    course = told_first(config, stream, train)
    names = [course.sample_at(k)[0] for k in range(20)]
    assert set(names[:10]) == {"told"}
    assert sorted(names[10:]) == ["text_only"] * 5 + ["told"] * 5
