"""The measures: exact match and word error rate, with the normalisation that each is under."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import jiwer

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = re.compile(r"[^\w\s]")
_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty"""
_NUMBERS = {word: str(n) for n, word in enumerate(_WORDS.split())}


def normalise_answer(text: str) -> str:
    """Lower case, punctuation and articles dropped, number words to twenty as digits.

    The rules of VQA's and SQuAD's scorers, so that "The red circle." equals "red circle" and
    "two" equals "2".
    """
    text = _PUNCTUATION.sub(" ", text.lower())
    words = _ARTICLES.sub(" ", text).split()
    return " ".join(_NUMBERS.get(word, word) for word in words)


def exact_match(answer: str, reference: str) -> bool:
    """Whether an answer equals its reference after :func:`normalise_answer`."""
    return normalise_answer(answer) == normalise_answer(reference)


def normalise_transcript(text: str) -> str:
    """Whisper's English normaliser (Radford et al. 2022, appendix C)."""
    return _normaliser()(text).strip()


def word_errors(answer: str, reference: str) -> tuple[int, int]:
    """Word edits that turn the answer into the reference, and the reference's words."""
    hypothesis, truth = normalise_transcript(answer), normalise_transcript(reference)
    if not truth:
        # jiwer refuses an empty reference; each word said instead of nothing is one insertion.
        return len(hypothesis.split()), 0
    result = jiwer.process_words(truth, hypothesis)
    edits = result.substitutions + result.deletions + result.insertions
    return edits, len(truth.split())


def word_error_rate(answers: Sequence[str], references: Sequence[str]) -> float:
    """Edits summed over the corpus, divided by its reference words (never a mean of rates)."""
    pairs = [word_errors(a, r) for a, r in zip(answers, references, strict=True)]
    words = sum(n for _, n in pairs)
    edits = sum(n for n, _ in pairs)
    return edits / words if words else float(edits > 0)


@cache
def _normaliser() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()
