"""Exact match and word error rate, and what each overlooks."""

import pytest

from omnitune.evaluation.metrics import (
    exact_match,
    normalise_answer,
    normalise_transcript,
    word_error_rate,
    word_errors,
)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("The red circle.", "red circle"),
        ("two", "2"),
        ("Twenty", "20."),
        ("a cat and the dog", "cat and dog"),
        ("YES!", "yes"),
        ("  left ,  right ", "left, right"),
        ("top-left", "top left"),
        ("zero", "0"),
        ("an apple", "Apple"),
        ("12", "twelve"),
    ],
)
def test_same_answer(answer: str, reference: str) -> None:
    assert exact_match(answer, reference)
    assert exact_match(reference, answer)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("red", "blue"),
        ("red circle", "circle red"),
        ("12", "1 2"),
        ("the red circle", "red"),
        ("", "red"),
        ("banana", "bn"),  # no article is cut out of a word
        ("another", "other"),
        ("twenty one", "21"),
        ("no", "not"),
        ("two", "3"),
    ],
)
def test_other_answer(answer: str, reference: str) -> None:
    assert not exact_match(answer, reference)
    assert not exact_match(reference, answer)


def test_normalised_answer() -> None:
    assert normalise_answer("  The TWO big-red, circles!") == "2 big red circles"
    assert normalise_answer("") == ""


def test_errors_are_summed_over_the_corpus_not_averaged() -> None:
    references = ["yes", "the sky is the air above us now and then"]
    answers = ["no", "the sky is the air above us now and"]
    rates = [word_error_rate([a], [r]) for a, r in zip(answers, references, strict=True)]
    assert rates == [1, pytest.approx(1 / 10)]
    assert word_error_rate(answers, references) == pytest.approx(2 / 11)
    assert word_error_rate(answers[::-1], references[::-1]) == pytest.approx(2 / 11)


@pytest.mark.parametrize(
    ("answer", "reference", "edits", "words"),
    [
        ("the quiet river", "the quiet river", 0, 3),
        ("the quick river", "the quiet river", 1, 3),
        ("the river", "the quiet river", 1, 3),
        ("the very quiet river", "the quiet river", 1, 3),
        ("", "the quiet river", 3, 3),
        ("river the quiet", "the quiet river", 2, 3),
        ("quite another sentence here", "the quiet", 4, 2),
    ],
)
def test_edits(answer: str, reference: str, edits: int, words: int) -> None:
    assert word_errors(answer, reference) == (edits, words)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Hello, World!", "hello world"),
        ("I have twenty one apples.", "I have 21 apples"),
        ("it's cold", "it is cold"),
        ("we won't go", "we will not go"),
        ("the colour", "the color"),
        ("Mr. Smith", "mister smith"),
        ("well, um, yes", "well yes"),
    ],
)
def test_what_a_listener_cannot_tell_is_no_error(answer: str, reference: str) -> None:
    assert word_error_rate([answer], [reference]) == 0


def test_empty_reference() -> None:
    assert word_errors("", "") == (0, 0)
    assert word_errors("two words", "") == (2, 0)
    assert word_error_rate([""], [""]) == 0
    assert word_error_rate(["noise"], [""]) == 1
    assert word_error_rate([], []) == 0
    # Words said into silence count beside the others' words.
    assert word_error_rate(["red green", "two words"], ["red blue", ""]) == pytest.approx(3 / 2)


def test_lists_of_unlike_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        word_error_rate(["a"], ["a", "b"])


def test_normalised_transcript_is_stable() -> None:
    for text in ("The Price is $5.20!", "don't", "café, naïve", "Thirty-two"):
        once = normalise_transcript(text)
        assert normalise_transcript(once) == once
