"""What a score was made with: prompts, rules of comparison, decoding, versions.

A score can be compared with another only where these are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from omnitune.evaluation.environment import PACKAGES, versions
from omnitune.evaluation.metrics import Metric, metrics_of
from omnitune.evaluation.normalise import normaliser_of
from omnitune.evaluation.truth import Truth
from omnitune.models.omni import OmniModel

DECODING = "greedy"  # all that ``generation.generate`` does for scores


class Prompts:
    """The texts that questions were asked with: how many different ones, and which if one."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._seen: set[int] = set()  # of hashes: there may be millions

    def add(self, texts: Iterable[str]) -> None:
        """Takes note of some."""
        for text in texts:
            self._first = text if self._first is None else self._first
            self._seen.add(hash(text))

    def values(self) -> dict[str, Any]:
        """``prompts``, their number, and ``prompt`` where it is one."""
        only = {"prompt": self._first} if len(self._seen) == 1 else {}
        return {"prompts": len(self._seen), **only}


def scored_with(task: str, truths: Sequence[Truth], prompts: Prompts) -> dict[str, Any]:
    """What the scores of a task's answers depend on beside the model and the data.

    Args:
        truths: of the answers that were scored.
        prompts: that they were asked with.

    Returns:
        ``prompts`` and ``prompt``; ``decoding``; by metric under ``metrics`` its ``normalisers``
        with the number of references under each, its ``rules`` or sacrebleu's ``signature``; the
        ``versions`` of the libraries that compare.
    """
    metrics = metrics_of(task)
    libraries = sorted({name for metric in metrics for name in metric.libraries})
    return {
        **prompts.values(),
        "decoding": DECODING,
        "metrics": {metric.name: _rules(metric, truths) for metric in metrics},
        **({"versions": versions(libraries)} if libraries else {}),
    }


def whole_run(model: OmniModel) -> dict[str, Any]:
    """What all scores of a model depend on: ``decoding``, ``precision`` and ``versions``."""
    precision = str(next(model.parameters()).dtype).removeprefix("torch.")
    return {"decoding": DECODING, "precision": precision, "versions": versions(PACKAGES)}


def _rules(metric: Metric, truths: Sequence[Truth]) -> dict[str, Any]:
    if metric.pool:
        return {"signature": metric.pool.signature({metric.pool.rules(t) for t in truths})}
    if metric.rules:
        return {"rules": metric.rules}
    return {"normalisers": dict(Counter(normaliser_of(t.reference, t.language) for t in truths))}
