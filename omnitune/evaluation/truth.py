"""What an answer is held against, and the measures that take all of it at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from string import ascii_uppercase

from rapidfuzz.distance import LCSseq, Levenshtein

from omnitune.data.choices import chosen, lettered
from omnitune.evaluation.normalise import is_english, normalise

AGREEING = 3  # people who have to give an answer for it to be all right (VQA)
ANLS_THRESHOLD = 0.5
_LETTERS = lettered([""] * len(ascii_uppercase))  # options whose texts are not known


@dataclass(frozen=True)
class Truth:
    """What is known of the right answer to a question.

    Attributes:
        reference: the answer that is trained.
        language: its code; "" where it is not told.
        references: every right answer, repeated as often as it was given; empty: the reference
            is the only one.
        choices: key and text of each option.
    """

    reference: str
    language: str = ""
    references: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every right answer."""
        return self.references or (self.reference,)


def consensus(answer: str, truth: Truth) -> tuple[float, float]:
    """The accuracy of VQA (Antol et al. 2015, section 3; mean over subsets as in its evaluation).

    Of n references each one is left out in turn; an answer that k of the others equal gets
    min(k / 3, 1), and the mean of these is its score. Of fewer than four references all others
    have to equal it; one reference is compared as it is.

    Returns:
        the score, from 0 to 1, and 1.
    """
    english = is_english(truth.reference, truth.language)
    given = Counter(normalise(text, english) for text in truth.all)
    same, people = given[normalise(answer, english)], given.total()
    if people == 1:
        return float(same), 1
    enough = min(AGREEING, people - 1)
    without, within = min(same / enough, 1), min(max(same - 1, 0) / enough, 1)
    return ((people - same) * without + same * within) / people, 1


def anls(answer: str, truth: Truth) -> tuple[float, float]:
    """Average normalised Levenshtein similarity (Biten et al. 2019, "Scene text VQA", eq. 1).

    Returns:
        1 minus the edits per character of the longer text, of the nearest reference; 0 from
        ``ANLS_THRESHOLD`` edits per character on; and 1. Case and blanks do not count.
    """
    said = _folded(answer)
    nearest = min(Levenshtein.normalized_distance(said, _folded(text)) for text in truth.all)
    return (1 - nearest if nearest < ANLS_THRESHOLD else 0.0), 1


def right_choice(answer: str, truth: Truth) -> tuple[float, float]:
    """Whether an answer means the right option, by its key or its text.

    Without options a reference of one letter is a key. Any other is compared as a text.
    """
    choices = truth.choices or (_LETTERS if len(truth.reference.strip()) == 1 else ())
    keys = {text: chosen(text, choices) for text in truth.all}
    meant = chosen(answer, choices)
    if meant and meant in keys.values():
        return 1.0, 1
    english = is_english(truth.reference, truth.language)
    forms = {normalise(text, english) for text, key in keys.items() if not key}
    return float(normalise(answer, english) in forms), 1


def rouge_l(answer: str, truth: Truth) -> tuple[float, float]:
    """ROUGE-L (Lin 2004): the F-measure of the longest common subsequence of words.

    Returns:
        that of the nearest reference, from 0 to 1, precision and recall counting alike; and 1.
        Case and punctuation do not count; without spaces between words, characters are words.
    """
    said = normalise(answer, english=False).split()
    return max(_f_measure(said, normalise(text, english=False).split()) for text in truth.all), 1


def _f_measure(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
