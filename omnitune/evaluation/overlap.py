"""Scores of a whole corpus that are no sum over a sum: chrF and BLEU, through sacrebleu.

Each answer gives counts; the score is a formula of their sums. So a bootstrap interval sums the
counts of the records that are drawn, as sacrebleu's own does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from omnitune.evaluation.normalise import normaliser_of
from omnitune.evaluation.truth import Truth


@dataclass(frozen=True)
class Pool:
    """How a score of a whole corpus is made.

    Attributes:
        count: of an answer its counts, always equally many.
        formula: of the sums of these the score, from 0 to 1.
        signature: of the rules that were used, what tells them from all others.
        rules: of an answer, the name of its rules, such as a tokenizer.
    """

    count: Callable[[str, Truth], Sequence[float]]
    formula: Callable[[Sequence[float]], float]
    signature: Callable[[Collection[str]], str]
    rules: Callable[[Truth], str] = lambda truth: ""

    def alone(self, answer: str, truth: Truth) -> tuple[float, float]:
        """The score of one answer, and 1."""
        return self.formula(self.count(answer, truth)), 1


def tokenizer_of(truth: Truth) -> str:
    """sacrebleu's tokenizer for a reference's language, of those that need no other software."""
    if normaliser_of(truth.reference, truth.language) != "characters":
        return "13a"
    return "zh" if truth.language.split("-")[0] in ("zh", "zho", "cmn", "yue") else "char"


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    # The same as without, unless no answer has four words: then the shorter n-grams count.
    return BLEU(tokenize=tokenizer, effective_order=True, force=True)


def _counts(metric: Any, answer: str, truth: Truth) -> list[float]:
    """The counts of one answer; sacrebleu's public calls return the finished score only."""
    streams = [[text] for text in dict.fromkeys(truth.all)]
    counts: list[float] = metric._extract_corpus_statistics([answer], streams)[0]
    return counts


def _score(metric: Any, sums: Sequence[float]) -> float:
    # sacrebleu divides ten-thousandths away: 100.00000000000004 is all right.
    return min(1.0, float(metric._compute_score_from_stats(list(sums)).score) / 100)


def _signature(metrics: Sequence[Any]) -> str:
    for metric in metrics:
        metric.num_refs = -1  # as many as each record has
    return "; ".join(str(metric.get_signature()) for metric in metrics)


CHRF = Pool(
    count=lambda answer, truth: _counts(_chrf(), answer, truth),
    formula=lambda sums: _score(_chrf(), sums),
    signature=lambda rules: _signature([_chrf()]),
)
BLEU = Pool(
    count=lambda answer, truth: _counts(_bleu(tokenizer_of(truth)), answer, truth),
    formula=lambda sums: _score(_bleu("13a"), sums),
    signature=lambda rules: _signature([_bleu(name) for name in sorted(rules)]),
    rules=tokenizer_of,
)
