"""Glimpses: what slots say of a caption, and where."""

import random

import pytest

from omnitune.pretraining.glimpses import seen_words, spread


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
        slots = spread("at the top a red star, at the left a ring", 4, random.Random(seed))
        assert slots is not None
        assert len(slots) == 4
        assert [s for s in slots if s] == ["top red star", "left ring"]
    words = spread("the blue ring", 6, random.Random(0))
    assert words is not None
    assert [w for w in words if w] == ["blue", "ring"]
    assert spread("one, two, three", 2, random.Random(0)) is None


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
