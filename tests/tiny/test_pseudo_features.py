"""Glimpses: what slots say of a caption, and where."""

import random

import pytest

from omnitune.tiny.corpus.scenes import Scene, Thing, caption
from omnitune.tiny.pseudo_features import seen_words, spread


@pytest.mark.parametrize(
    ("caption", "seen"),
    [
        ("the digits 8 1 4", "8 1 4"),
        ("the digit 7", "7"),
        ("the word bat spelled b a t", "bat b a t"),
        (
            "at the top left a small red ring, in the center a heart",
            "top left small red ring, center heart",
        ),
        ("a dog on the grass.", "dog grass."),
        ("the", ""),
    ],
)
def test_words_that_nothing_shows_are_left_out(caption: str, seen: str) -> None:
    assert seen_words(caption) == seen


def test_phrases_are_spread_over_slots_in_order() -> None:
    for seed in range(5):
        slots = spread("a red star, at the left a ring", 4, random.Random(seed))
        assert slots is not None
        assert len(slots) == 4
        assert [s for s in slots if s] == ["red star", "left ring"]
    words = spread("the blue ring", 6, random.Random(0))
    assert words is not None
    assert [w for w in words if w] == ["blue", "ring"]
    assert spread("one, two, three", 2, random.Random(0)) is None


@pytest.mark.parametrize("place", range(9))
def test_what_says_its_place_stands_there(place: int) -> None:
    row, column = divmod(place, 3)
    thing = Thing("ring", "red", "small", row, column)
    other = Thing("star", "blue", "large", 2 - row, 2 - column)
    for things in [(thing,), (thing, other)][: 2 if place != 4 else 1]:  # a cell holds one
        slots = spread(caption(Scene(things)), 9, random.Random(0))
        assert slots is not None
        assert slots[place] == f"{thing.cell} small red ring"
        assert [n for n, words in enumerate(slots) if words] == sorted(
            3 * one.row + one.col for one in things
        )


def test_places_are_of_grids_of_any_size_and_letters_have_none() -> None:
    slots = spread("a cat at the bottom right", 16, random.Random(0))
    assert slots == ("",) * 15 + ("cat bottom right",)
    slots = spread("the word left spelled l e f t", 9, random.Random(0))
    assert slots is not None
    assert [words for words in slots if words] == ["left", "l", "e", "f", "t"]


def test_what_is_spelled_stands_in_columns_whose_order_is_its_own() -> None:
    tops, again = set(), 0
    for seed in range(60):
        slots = spread("the digits 4 4 1", 9, random.Random(seed))
        assert slots is not None
        assert {word for slot in slots for word in slot.split()} == {"4", "1"}
        found = [sorted(set(slot.split()) & {"4", "1"}) for slot in slots]
        rows = [found[n : n + 3] for n in (0, 3, 6)]
        (top,) = [n for n, row in enumerate(rows) if row == [["4"], ["4"], ["1"]]][:1]
        others = {n for n, row in enumerate(rows) if any(row)} - {top}
        assert len(others) <= 1  # what stands on the row's border
        assert all(abs(n - top) == 1 for n in others)
        assert all(
            not cell or cell == rows[top][k] for n in others for k, cell in enumerate(rows[n])
        )
        tops.add(top)
        again += len(others)
    assert tops == {0, 1, 2}
    assert 10 < again < 50


def test_more_characters_than_columns_stand_in_a_row() -> None:
    words = "the word bread spelled b r e a d"
    for seed in range(10):
        slots = spread(words, 9, random.Random(seed))
        assert slots is not None
        assert [slot for slot in slots if slot] == ["bread", *"bread"]


def test_a_short_word_is_said_anywhere_and_its_letters_in_columns() -> None:
    for seed in range(20):
        slots = spread("the word bat spelled b a t", 9, random.Random(seed))
        assert slots is not None
        assert sum("bat" in slot.split() for slot in slots) in (1, 2)
        rows = [[set(slot.split()) - {"bat"} for slot in slots[n : n + 3]] for n in (0, 3, 6)]
        assert [{"b"}, {"a"}, {"t"}] in rows
