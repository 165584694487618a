"""The measures: exact match and word error rate, with the normalisation that each is under."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer

from omnitune.evaluation.normalise import is_english, normalise, normaliser_of, whisper_english


def normalise_answer(text: str, language: str = "") -> str:
    """Lower case, without punctuation; in English without articles, number words as digits.

    The rules of VQA's and SQuAD's scorers, so that "The red circle." equals "red circle" and
    "two" equals "2"; but signs, decimal points, fractions and symbols count, and an answer that
    is nothing else ("A", "?") is kept.

    Args:
        language: code of the text's language; "" where it is not told (``normaliser_of``).
    """
    return normalise(text, is_english(text, language))


def exact_match(answer: str, reference: str, language: str = "") -> bool:
    """Whether an answer equals its reference, both normalised as the reference's language asks."""
    english = is_english(reference, language)
    return normalise(answer, english) == normalise(reference, english)


def normalise_transcript(text: str, language: str = "") -> str:
    """Whisper's English normaliser; of other languages that of :func:`normalise_answer`.

    What Whisper's drops altogether ("um", "[noise]") keeps its words.
    """
    found = whisper_english(text) if is_english(text, language) else ""
    return found or normalise(text, english=False)


def word_errors(answer: str, reference: str, language: str = "") -> tuple[int, int]:
    """Word edits that turn the answer into the reference, and the reference's words.

    The reference decides how both are normalised, so that its words are the same under any
    answer. Of Chinese, Japanese, Thai, Lao, Khmer and Burmese the characters are the words.
    """
    # Silence has no language: what is said into it is counted in its own.
    english = normaliser_of(reference.strip() or answer, language) == "english"
    truth = whisper_english(reference) if english else ""
    if reference.strip() and not truth:
        truth, hypothesis = (normalise(text, english=False) for text in (reference, answer))
    else:
        hypothesis = normalise_transcript(answer, "en" if english else "other")
    if not truth:
        # jiwer refuses an empty reference; each word said instead of nothing is one insertion.
        return len(hypothesis.split()), 0
    result = jiwer.process_words(truth, hypothesis)
    edits = result.substitutions + result.deletions + result.insertions
    return edits, len(truth.split())


def word_error_rate(answers: Sequence[str], references: Sequence[str], language: str = "") -> float:
    """Edits summed over the corpus, divided by its reference words (never a mean of rates)."""
    pairs = [word_errors(a, r, language) for a, r in zip(answers, references, strict=True)]
    words = sum(n for _, n in pairs)
    edits = sum(n for n, _ in pairs)
    return edits / words if words else float(edits > 0)
