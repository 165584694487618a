"""Conversations: right sums, faithful repetition, answers that the words settle."""

import re

import pytest

from omnitune.tiny.corpus.basics import Dice
from omnitune.tiny.corpus.conversations import (
    HELD_OUT_SHARES,
    SMALL_TALK,
    TRAINING_SHARES,
    sample_conversation,
    shared_kinds,
)


def turns_of(kind: str, count: int = 150) -> list[tuple[str, str]]:
    rng = Dice(1)
    turns = []
    for _ in range(count):
        messages = [m["content"] for m in sample_conversation(rng, "train", kind)]
        turns += list(zip(messages[::2], messages[1::2], strict=True))
    return turns


def test_sums_are_right() -> None:
    seen = set()
    for question, answer in turns_of("arithmetic"):
        first, *rest = (int(number) for number in re.findall(r"\d+", question))
        word = next(w for w in ("plus", "minus", "larger", "smaller", "after") if w in question)
        seen.add(word)
        second = rest[0] if rest else 1
        right = {
            "plus": first + second,
            "minus": first - second,
            "larger": max(first, second),
            "smaller": min(first, second),
            "after": first + 1,
        }[word]
        assert answer == str(right), question
        assert 0 <= right <= 21
    assert len(seen) == 5


def test_repeating_is_word_for_word() -> None:
    for question, answer in turns_of("repeat"):
        assert question.split(": ")[1] == answer + "."


def test_reading_answers_are_in_the_text_read() -> None:
    text = ""
    for question, answer in turns_of("reading"):
        if ": " in question:
            text = question.split(": ")[1].split(".")[0]
        assert f" {answer} " in f" {text} "


def test_described_scenes_start_with_the_description() -> None:
    rng = Dice(2)
    openings = set()
    for _ in range(150):
        messages = sample_conversation(rng, "train", "described_scene")
        opening = re.match(r"here (is|are) (a scene|some digits|a word): ", messages[0]["content"])
        assert opening
        openings.add(opening[2])
        assert 4 <= len(messages) <= 8
    assert openings == {"a scene", "some digits", "a word"}


def test_small_talk_does_not_repeat_itself() -> None:
    rng = Dice(3)
    for _ in range(50):
        messages = sample_conversation(rng, "test", "small_talk")
        asked = [message["content"] for message in messages[::2]]
        assert len(set(asked)) == len(asked)


def test_small_talk_answers_are_short_and_fixed() -> None:
    questions = [question for question, _ in SMALL_TALK]
    assert len(set(questions)) == len(questions) >= 40
    assert all(len(answer.split()) <= 12 for _, answer in SMALL_TALK)


@pytest.mark.parametrize(
    ("split", "shares"), [("train", TRAINING_SHARES), ("test", HELD_OUT_SHARES)]
)
def test_kinds_come_in_their_shares(split: str, shares: dict[str, float]) -> None:
    assert sum(shares.values()) == pytest.approx(1)
    kinds = shared_kinds(1000, split)
    assert len(kinds) == 1000
    for kind, share in shares.items():
        assert abs(kinds.count(kind) / 1000 - share) < 0.01
    assert set(shared_kinds(10, split)) == set(shares)
