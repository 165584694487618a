"""An adaptive mix: weight is shifted to the source that lags on held-out samples.

It only decides. What it decided lies in a run's state as a list of (first sample, factors), which
``data/schedule.py`` applies, so that the order of samples follows from the seed and that list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omnitune.evaluation.metrics import ranked_metrics

BOUNDS = (0.5, 2.0)  # of the factor on what was asked, before the shares are made to sum to one
SMOOTHING = 0.3  # weight of the newest scores


class AdaptiveMix:
    """Follows how far each source lags.

    Args:
        by: ``loss``: held-out loss as a share of its first value; ``score``: the headline scores'
            distance to perfect.
        tasks: those whose scores judge each source.
        state: of the run; ``adaptive_mix`` in it keeps the ``first`` loss and smoothed ``lag``
            by source.
    """

    def __init__(self, by: str, tasks: Mapping[str, Iterable[str]], state: dict[str, Any]) -> None:
        self.by, self.state = by, state
        self.tasks = {source: sorted(names) for source, names in tasks.items()}

    def factors(self, scores: Mapping[str, Any]) -> dict[str, float]:
        """Takes in one moment's held-out scores; returns the factor on each source's weight.

        A source without scores this time keeps its lag; one that never had any keeps its weight.
        """
        own = self.state.setdefault("adaptive_mix", {"first": {}, "lag": {}})
        lags, by_task = own["lag"], scores.get("tasks", {})
        for source, names in self.tasks.items():
            if found := [by_task[name] for name in names if name in by_task]:
                lag = self._lag(source, found, own["first"])
                before = lags.get(source, lag)
                lags[source] = before + SMOOTHING * (lag - before)
        mean = sum(lags.values()) / max(1, len(lags))
        if not mean:
            return dict.fromkeys(lags, 1.0)
        low, high = BOUNDS
        return {s: round(min(high, max(low, lag / mean)), 3) for s, lag in lags.items()}

    def _lag(
        self, source: str, found: Sequence[Mapping[str, float]], first: dict[str, float]
    ) -> float:
        if self.by == "score":
            return sum(distance(task) for task in found) / len(found)
        tokens = sum(task["tokens"] for task in found)
        loss = sum(task["loss"] * task["tokens"] for task in found) / max(1, tokens)
        return loss / start if (start := first.setdefault(source, loss)) else 1.0


def distance(task: Mapping[str, float]) -> float:
    """How far a task's score is from perfect: 0 to 1."""
    metric = next(metric for metric in ranked_metrics() if metric.name in task)
    value = task[metric.name]
    return min(1.0, value) if metric.lower_is_better else 1.0 - value
