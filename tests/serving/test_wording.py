"""Pieces of an answer add up to its text, and no stop is seen in them."""

import pytest
from helpers import tiny_renderer
from hypothesis import given, settings
from hypothesis import strategies as st

from omnitune.data.template import ChatRenderer
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
