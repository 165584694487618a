"""Which option an answer means: by its key, by its text, within a sentence; or none."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnitune.data.choices import MOST_CHOICES, chosen, lettered

COLORS = lettered(["blue", "red", "dark red"])


@pytest.mark.parametrize(
    "answer",
    [
        *("B", "b", "(b)", "(B)", "[B]", "B.", "B)", "b:", " B \n", "**B**", '"B"'),
        *("red", "Red.", "the red", "b) red", "B. Red", "(B) red.", "B: red", "B - red"),
        *("The answer is B", "The answer is (b).", "the correct answer is: B", "Answer: B"),
        *("Option B", "It is B.", "It's red.", "The answer is red", "the best option is b) red"),
        *("So the answer is B.", "I think the answer is B", "The answer is option B."),
        "B) because it is bright",
    ],
)
def test_right_answers(answer: str) -> None:
    assert chosen(answer, COLORS) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        *("", ".", "green", "D", "A or B", "not red", "red and blue", "blue red", "bred"),
        *("b) blue", "B is wrong", "The answer is", "Be careful", "a red circle", "A dark one"),
    ],
)
def test_answers_that_mean_none(answer: str) -> None:
    assert chosen(answer, COLORS) == ""


def test_the_longer_of_two_texts_is_itself() -> None:
    assert chosen("dark red", COLORS) == "C"
    assert chosen("The answer is dark red.", COLORS) == "C"


def test_an_article_is_no_key() -> None:
    things = lettered(["a dog", "a cat"])
    assert [chosen(text, things) for text in ("a cat", "A cat.", "cat", "a", "A")] == [
        *("B", "B", "B", "A", "A")
    ]


def test_keys_may_be_numbers_and_words() -> None:
    assert chosen("2", [("1", "red"), ("2", "blue")]) == "2"
    assert chosen("(ii)", [("i", "red"), ("ii", "blue")]) == "ii"


def test_texts_as_written_go_before_keys() -> None:
    swapped = [("A", "B"), ("B", "A")]
    assert [chosen(text, swapped) for text in "AB"] == ["B", "A"]
    counts = [("1", "2"), ("2", "3"), ("3", "1")]
    assert [chosen(text, counts) for text in "123"] == ["3", "1", "2"]


def test_a_text_of_two_options_means_neither() -> None:
    twice = lettered(["none", "none", "red"])
    assert chosen("none", twice) == ""
    assert chosen("B", twice) == "B"


words = st.text("abcdefgh ", min_size=3, max_size=12).filter(
    lambda t: t.strip() == t and len(t) > 2
)


@settings(deadline=None, max_examples=40)
@given(st.lists(words, min_size=2, max_size=MOST_CHOICES, unique=True), st.data())
def test_every_option_is_found_by_key_and_by_text(texts: list[str], data: st.DataObject) -> None:
    options = lettered(texts)
    key, text = data.draw(st.sampled_from(options))
    for answer in (key, f"({key.lower()})", text, f"{key}) {text}", f"The answer is {key}."):
        assert chosen(answer, options) == key


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=40))
def test_any_text_is_an_option_or_none(answer: str) -> None:
    assert chosen(answer, COLORS) in ("", *string.ascii_uppercase[:3])
