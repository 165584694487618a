"""Pieces of an answer add up to its text, and no stop is seen in them."""

from typing import Any

import pytest
from helpers import tiny_renderer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from omnitune.data.template import ChatRenderer
from omnitune.serving.spelling import Spelling, bytes_of
from omnitune.serving.wording import Wording

RENDERER = tiny_renderer()


def said(renderer: ChatRenderer, text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """Pieces of a text, token by token."""
    wording = Wording(renderer, stops)
    pieces = []
    for token in renderer.encode(text):
        pieces.append(wording.add(token))
        if wording.stopped:
            break
    return [*pieces, wording.finish()], wording.stopped


@settings(max_examples=150, deadline=None)
@given(st.text("ab cé日🙂\n", max_size=30), st.lists(st.text("ab c\n", min_size=1, max_size=3)))
def test_pieces_are_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    whole = RENDERER.decode(RENDERER.encode(text))
    places = [place for stop in stops if (place := whole.find(stop)) >= 0]
    pieces, stopped = said(RENDERER, text, tuple(stops))
    found = "".join(pieces)
    assert stopped == bool(places)
    if places:
        assert any(whole.startswith(found + stop) for stop in stops)
        assert not any(stop in found for stop in stops)
    else:
        assert found == whole


@pytest.mark.parametrize("text", ["日本🙂", "a 🙂 b"])
def test_no_half_characters(text: str) -> None:
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in said(RENDERER, text)[0])


def test_without_a_stream_the_text_comes_at_the_end() -> None:
    wording = Wording(RENDERER, streams=False)
    assert [wording.add(token) for token in RENDERER.encode("the sky is")] == [""] * len(
        RENDERER.encode("the sky is")
    )
    assert wording.finish() == "the sky is"


@settings(max_examples=150, deadline=None)
@given(st.text("ab cé日🙂\n", max_size=30), st.lists(st.text("ab c🙂\n", min_size=1, max_size=3)))
def test_tokens_spell_the_answer(text: str, stops: list[str]) -> None:
    """Their texts and their bytes are the answer, also while it goes on."""
    wording = Wording(RENDERER, tuple(stops), spells=True)
    spelling = wording.spelling
    assert spelling
    tokens, told = RENDERER.encode(" " + text), 0
    early = []
    for token in tokens:
        wording.add(token)
        until = spelling.within(wording.said)
        assert until >= told
        early += spelling.parts[told:until]
        assert (
            "".join(part.text for part in early) == wording.said[: sum(len(p.text) for p in early)]
        )
        told = until
        if wording.stopped:
            break
    wording.finish()
    assert spelling.parts[:told] == early
    assert "".join(part.text for part in spelling.parts) == wording.said
    assert b"".join(part.content for part in spelling.parts).decode() == wording.said
    assert len(spelling.parts) == len(wording.tokens)


def test_a_part_of_a_character_has_its_bytes() -> None:
    wording = Wording(RENDERER, spells=True)
    for token in RENDERER.encode("a 🙂"):
        wording.add(token)
    wording.finish()
    assert wording.spelling
    texts, contents = zip(*wording.spelling.parts, strict=True)
    assert texts[-4:] == ("", "", "", "🙂")
    assert [len(content) for content in contents[-4:]] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("vocabulary", "decoder"),
    [
        ({"▁the": 0, "▁s": 1, "ky": 2, "<0xC3>": 3, "<0xA9>": 4, "▁": 5}, "bytes"),
        ({"the": 0, "s": 1, "##ky": 2, "é": 3}, "pieces"),
    ],
)
def test_other_tokenizers_spell_too(vocabulary: dict[str, int], decoder: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "▁"))
    made: dict[str, Any] = {
        "bytes": decoders.Sequence(
            [decoders.ByteFallback(), decoders.Fuse(), decoders.Metaspace()]
        ),
        "pieces": decoders.WordPiece(),
    }
    tokenizer.decoder = made[decoder]
    tokens = [n for n in vocabulary.values() if n < 5]
    spelling = Spelling(tokenizer)
    for n, token in enumerate(tokens):
        spelling.add(token, tokenizer.decode(tokens[: n + 1]))
    whole = tokenizer.decode(tokens)
    spelling.end(whole, whole.strip())
    assert "".join(part.text for part in spelling.parts) == whole.strip()
    assert b"".join(part.content for part in spelling.parts).decode() == whole.strip()
    if decoder == "bytes":
        assert [part.content for part in spelling.parts[-2:]] == [b"\xc3", b"\xa9"]


def test_every_byte_has_a_letter() -> None:
    tokenizer = RENDERER.tokenizer
    pieces = [tokenizer.token_to_id(letter) for letter in pre_tokenizers.ByteLevel.alphabet()]
    found = {bytes_of(tokenizer, piece) for piece in pieces if piece is not None}
    assert found == {bytes([n]) for n in range(256)}
