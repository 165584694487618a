"""What counts as the same answer, in any script; and that nothing is normalised to nothing."""

import pytest

from omnitune.evaluation.metrics import exact_match, normalise_answer, word_errors
from omnitune.evaluation.normalise import is_english, normalise, normaliser_of, num_words

KI, KA, HINDI = "\u0915\u093f", "\u0915\u093e", "\u0939\u093f\u0928\u094d\u0926\u0940"


@pytest.mark.parametrize(
    "group",
    [
        ["A", "a.", "(A)", "'A'", "**A**"],
        ["C++", "c ++"],
        ["-5", "\u22125", "\u20135", "(-5)"],
        ["-$5", "\u2212$5"],
        ["1,000", "1000", "1000."],
        ["1,00,000", "100000"],
        [".5", "0.5"],
        ["1/2", "\u00bd", "1 / 2"],
        ["1\u00bd", "1 1/2"],
        ["5%", "5 %", "five %"],
        ["20 \u00b0C", "20\u00b0C."],
        ["10-15", "10 \u2013 15"],
        ["3 * 4", "3*4"],
        ["1, 2 and 3", "1 2 and 3"],
        ["1,2,3", "1, 2, 3"],
        ["left-hand", "left hand"],
        ["what's", "what\u2019s"],
        ["the (red) circle", 'A "red" circle'],
        ["\u2764\ufe0f", "\u2764"],
        ["caf\u00e9", "cafe\u0301", "CAF\u00c9"],
        ["STRASSE", "Stra\u00dfe"],
        ["\uff21\uff11", "A1"],
        ["\u4f60\u597d\uff0c\u4e16\u754c", "\u4f60\u597d\u4e16\u754c\u3002"],
        ["\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u0631\u0648\u0645"],
    ],
)
def test_one_answer_in_several_forms(group: list[str]) -> None:
    for one in group:
        assert all(exact_match(one, other) for other in group), one


@pytest.mark.parametrize(
    "group",
    [
        ["", "A", "the", "an", "?", "!", "...", "+", "-"],
        ["a, b", "b", "a"],
        ["c a t", "c t", "cat"],
        ["A+", "A", "A-1", "+"],
        ["3.5", "35", "3 5", "3,5", "-3.5", "3.5%", "$3.5", "\u20ac3.5"],
        ["1/2", "1 2", "12", "1"],
        ["5", "-5", "+5", ".5", "-.5"],
        ["10:30", "10 30", "1030"],
        ["a < b", "a > b", "a = b", "a b"],
        ["C", "C++", "C#"],
        ["\U0001f600", "\U0001f622", "\U0001f600\U0001f600", ""],
        ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"],
        ["x\u00b2", "x2", "x"],
        ["3*4", "3 4", "34", "3+4"],
        [KI, KA, "\u0915"],
        ["schon", "sch\u00f6n"],
        ["\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5"],
        ["\u732b", "\u72ac", "\u732b\u732b"],
    ],
)
def test_other_answers(group: list[str]) -> None:
    for n, one in enumerate(group):
        assert [other for other in group if exact_match(other, one)] == [group[n]]


@pytest.mark.parametrize(
    "text", ["?", "the", "A", "-", "\u2026", "\u0964", "um", "[noise]", "(hm)"]
)
@pytest.mark.parametrize("language", ["", "en", "hi"])
def test_nothing_becomes_nothing(text: str, language: str) -> None:
    assert normalise_answer(text, language)
    assert word_errors(text, text, language) == (0, 1)
    assert word_errors("", text, language) == (1, 1)
    assert word_errors(text, "river", language) == (1, 1)


def test_articles_and_number_words_are_of_english_only() -> None:
    assert exact_match("the two", "2")
    assert exact_match("A kutya", "kutya")  # not told: taken for English
    assert not exact_match("A kutya", "kutya", "hu")
    assert not exact_match("an", "", "de")
    assert not exact_match("ten", "10", "pl")
    assert exact_match("the caf\u00e9", "caf\u00e9", "en-GB")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("a plain text, 5 \u20ac", "", "english"),
        ("", "", "english"),
        ("caf\u00e9", "", "basic"),
        ("caf\u00e9", "en", "english"),
        ("plain", "de", "basic"),
        ("plain", "EN_us", "english"),
        (HINDI, "", "basic"),
        (HINDI, "hi", "basic"),
        ("hello \u4e16\u754c", "", "characters"),
        ("\u0e44\u0e17\u0e22", "th", "characters"),
    ],
)
def test_which_normaliser(text: str, language: str, expected: str) -> None:
    assert normaliser_of(text, language) == expected
    assert is_english(text, language) == (expected == "english")


@pytest.mark.parametrize(
    ("answer", "reference", "edits", "words"),
    [
        (KI, KA, 1, 1),
        (HINDI, HINDI, 0, 1),
        ("", HINDI, 1, 1),
        ("schon", "sch\u00f6n", 1, 1),
        ("\u4f60\u597d", "\u4f60\u597d\u4e16\u754c", 2, 4),
        ("\u4f60 \u597d\u3002", "\u4f60\u597d", 0, 2),
        ("iPhone\u624b\u673a", "iphone \u624b\u673a", 0, 3),
        ("\u30ab\u30fc\u30c6\u30f3", "\u30ab\u30fc\u30c6\u30f3", 0, 4),
        ("\u0e44\u0e17\u0e22", "\u0e44\u0e17\u0e22", 0, 3),
        ("\u0e17\u0e35\u0e48", "\u0e17\u0e35", 1, 1),  # a letter with its marks is one character
        ("\u1000\u103c", "\u1000\u103c", 0, 1),
        ("minus five degrees", "-5 degrees", 0, 2),
        ("5 degrees", "-5 degrees", 1, 2),
        ("um", "hmm", 1, 1),
        ("well yes", "well, um, yes", 0, 2),
        ("um", "well yes", 2, 2),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "", 1, 0),
    ],
)
def test_word_errors(answer: str, reference: str, edits: int, words: int) -> None:
    assert word_errors(answer, reference) == (edits, words)


def test_telling_the_language_decides() -> None:
    assert word_errors("it's", "it is") == (0, 2)
    assert word_errors("it's", "it is", "nl") == (1, 2)
    assert word_errors("cafe", "caf\u00e9", "en") == (0, 1)


def test_number_of_words() -> None:
    assert num_words("a red circle.") == 3
    assert num_words("\u4f60\u597d \u4e16\u754c") == 4


def test_normalising_twice_changes_nothing() -> None:
    for text in ("-$5, the 3.5% of 1/2", "\u22125\u20136 caf\u00e9s", "C++ & C#", "3 * 4 = 12"):
        for english in (True, False):
            once = normalise(text, english)
            assert normalise(once, english) == once
