"""Small pieces shared by every part of the corpus: questions, partitions and number words."""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

TRAIN_PERCENT = 80
VALIDATION_PERCENT = 8

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
NUMBER_WORDS = tuple(_NUMBER_WORDS.split())
TENS_WORDS = {30: "thirty", 40: "forty", 50: "fifty", 60: "sixty"}


@dataclass(frozen=True)
class Question:
    """A question with its only right answer.

    Attributes:
        question: What is asked, lower case with its final punctuation.
        answer: The answer, lower case without final punctuation (captions included).
        kind: The skill it asks for, such as ``"count"``; results are reported per kind.
    """

    question: str
    answer: str
    kind: str

    def as_record(self) -> dict[str, str]:
        """Returns the three fields as a JSON-ready dictionary."""
        return {"question": self.question, "answer": self.answer, "kind": self.kind}


class Dice(random.Random):
    """A source of randomness whose yes-or-no tosses come out even."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._due: dict[str, list[bool]] = {}

    def toss(self, name: str) -> bool:
        """Returns true or false; of every two tosses of a name, one is true.

        With plain chance a test of some fifty questions easily holds two thirds of
        one answer, and guessing that answer would then look like a skill.
        """
        due = self._due.setdefault(name, [])
        if not due:
            due += (True, False) if self.random() < 0.5 else (False, True)
        return due.pop()


def stable_number(text: str) -> int:
    """Returns a number in [0, 2**64) that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def partition(text: str) -> str:
    """Returns the split ("train", "validation" or "test") that owns a text.

    The text alone decides, so no text can ever be in two splits, whatever is
    generated, in whatever order and from whatever seed.
    """
    percent = stable_number("partition " + text) % 100
    if percent < TRAIN_PERCENT:
        return "train"
    return "validation" if percent < TRAIN_PERCENT + VALIDATION_PERCENT else "test"


def number_word(number: int) -> str:
    """Returns a number in words; raises `KeyError` for one that has no single word here."""
    return NUMBER_WORDS[number] if 0 <= number <= 20 else TENS_WORDS[number]


def spoken_words(text: str) -> str:
    """Returns a text as it is said: lower case words alone, numbers in words."""
    words = re.findall(r"[a-z']+|[0-9]+", text.lower())
    return " ".join(number_word(int(word)) if word.isdigit() else word for word in words)


def with_article(noun: str) -> str:
    """Returns the noun phrase after "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def pick(rng: random.Random, weighted: Sequence[tuple[T, float]]) -> T:
    """Returns one of the values, drawn with the given weights."""
    return rng.choices([value for value, _ in weighted], [weight for _, weight in weighted])[0]
