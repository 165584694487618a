"""The rows of the scoreboard, and how a score is written; terminal and pages share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omnitune.evaluation.metrics import METRICS, Metric, ranked_metrics
from omnitune.evaluation.runs import as_interval, as_number, as_object, main_score
from omnitune.tasks import headlines

COUNTS = {"questions": "questions", "at_limit": "cut at limit"}


@dataclass(frozen=True)
class Score:
    """A score, its 95 % interval, and that of always giving the commonest training answer."""

    value: float
    interval: tuple[float, float] | None = None
    prior: float | None = None


@dataclass(frozen=True)
class ScoreRow:
    """One line of a scoreboard: a score in every column, None where there is none.

    Attributes:
        key: of the results. unit: ``percent``, ``loss`` or ``count``.
        is_kind: it is of a kind of question within the task.
    """

    task: str
    key: str
    name: str
    unit: str
    scores: tuple[Score | None, ...]
    is_kind: bool = False

    @property
    def less_is_better(self) -> bool:
        """Whether the least is the best."""
        return self.key in METRICS and METRICS[self.key].lower_is_better


def write_score(value: float | None, unit: str) -> str:
    """A score in words: percent with one decimal, a loss with three, a count in full."""
    if value is None:
        return "–"
    if unit == "percent":
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if unit == "count" else f"{value:.3f}"


def write_interval(interval: tuple[float, float] | None, unit: str) -> str:
    """An interval in words, low to high, percent without its sign; "" for none."""
    if interval is None:
        return ""
    return "–".join(write_score(end, unit).removesuffix(" %") for end in interval)


def headline(scores: dict[str, Any]) -> list[tuple[str, Score, str]]:
    """Label, score and unit of the main numbers of a split; without those that there are not."""
    intervals, tasks = as_object(scores.get("intervals")), as_object(scores.get("tasks"))
    found = [("loss", _score(scores.get("loss"), intervals.get("loss")), "loss")]
    for key, task in headlines().items():
        metric = METRICS[task.metric]
        prior = as_object(tasks.get(task.name)).get("prior")
        score = _score(scores.get(key), intervals.get(key), prior)
        found.append((f"{task.label} {metric.label}", score, metric.unit))
    return [(label, score, unit) for label, score, unit in found if score is not None]


def score_rows(columns: Mapping[str, dict[str, Any]]) -> list[ScoreRow]:
    """The scoreboard: each task's scores with their kinds, and those over all tasks.

    Args:
        columns: a scores object by the name of its column: a split, or a run.
    """
    splits = list(columns.values())
    tasks = [as_object(scores.get("tasks")) for scores in splits]
    rows = []
    for task in dict.fromkeys(name for column in tasks for name in column):
        scores = [as_object(column.get(task)) for column in tasks]
        for metric in ranked_metrics():
            found = _row(task, metric.name, metric.label, metric.unit, scores)
            rows += found
            if found and metric.generated:
                rows += _kind_rows(task, metric, scores)
        for key, name in COUNTS.items():
            found = _row(task, key, name, "count", scores)
            if key == "at_limit" and not any(s and s.value for row in found for s in row.scores):
                continue  # none is not worth a row
            rows += found
    for metric in ranked_metrics():
        if not metric.generated:
            rows += _row("all tasks", metric.name, metric.label, metric.unit, splits)
    return rows


def compare_scores(row: ScoreRow) -> tuple[frozenset[int], frozenset[int]]:
    """The columns with the best score, and those that lie apart from it.

    Apart are two scores whose 95 % intervals have nothing in common. A count has no best, nor has
    a row with one score or with equal ones.
    """
    there = {n: score for n, score in enumerate(row.scores) if score is not None}
    values = {score.value for score in there.values()}
    if len(values) < 2 or row.unit == "count":
        return frozenset(), frozenset()
    least = min(values) if row.less_is_better else max(values)
    best = frozenset(n for n, score in there.items() if score.value == least)
    top = next(there[n].interval for n in best)
    apart = frozenset(
        n
        for n, score in there.items()
        if n not in best and top and score.interval and not _meet(top, score.interval)
    )
    return best, apart


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _row(
    task: str, key: str, name: str, unit: str, columns: list[dict[str, Any]]
) -> list[ScoreRow]:
    """One row, or none if no column has the score."""
    guessed = key in METRICS and METRICS[key].whole_answers
    scores = tuple(
        _score(
            column.get(key),
            as_object(column.get("intervals")).get(key),
            column.get("prior") if guessed else None,
        )
        for column in columns
    )
    return [ScoreRow(task, key, name, unit, scores)] if any(scores) else []


def _kind_rows(task: str, metric: Metric, columns: list[dict[str, Any]]) -> list[ScoreRow]:
    kinds = dict.fromkeys(kind for c in columns for kind in as_object(c.get("kinds")))
    rows = []
    for kind in kinds:
        found = [
            [as_object(column.get(key)).get(kind) for column in columns]
            for key in ("kinds", "kind_intervals", "kind_priors")
        ]
        scores = tuple(_score(*values) for values in zip(*found, strict=True))
        if any(scores):
            row = ScoreRow(task, metric.name, kind, metric.unit, scores, is_kind=True)
            rows.append(row)
    return rows


def _score(value: Any, interval: Any = None, prior: Any = None) -> Score | None:
    number = as_number(value)
    if number is None:
        return None
    return Score(number, as_interval(interval), as_number(prior))


def follow_up_scores(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of questions that follow another: task, score, and in words that of the same ones alone."""
    found = []
    for task, values in as_object(results.get("follow_ups")).items():
        numbers = as_object(values)
        after, alone = main_score(numbers), as_number(numbers.get("alone"))
        asked, cut = as_number(numbers.get("questions")), as_number(numbers.get("at_limit"))
        if after is not None and alone is not None:
            metric, value = after
            below = f"{write_score(alone, metric.unit)} asked alone"
            below += f", {write_score(asked, 'count')} questions" if asked else ""
            below += f", {write_score(cut, 'count')} answers cut" if cut else ""
            found.append((task, write_score(value, metric.unit), below))
    return found


def other_rules(columns: Mapping[str, dict[str, Any]]) -> list[str]:
    """Which references were not compared by the rules of English, in words."""
    found = []
    for split, scores in columns.items():
        for task, values in as_object(scores.get("tasks")).items():
            used = as_object(as_object(values).get("normalisers"))
            counts = {name: as_number(count) or 0 for name, count in used.items()}
            told = [f"{name} {write_score(n, 'count')}" for name, n in sorted(counts.items())]
            found += [f"{split} {task}: " + ", ".join(told)] if told else []
    return found
