"""The rows of the scoreboard, and how a score is written; terminal and pages share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnitune.evaluation.metrics import METRICS, Metric, ranked_metrics
from omnitune.evaluation.runs import as_interval, as_number, as_object, look_up, main_score
from omnitune.tasks import headlines

TABLE_WIDTH = 100
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


def side_by_side(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lays out columns to the right of their labels, below each other where there is no room.

    Args:
        columns: of cells, one for each label.

    Returns:
        blocks of lines that are at most ``TABLE_WIDTH`` wide.
    """
    left = max(map(len, labels))
    blocks: list[list[str]] = []
    room = 0
    for column in columns:
        width = max(map(len, column))
        if width + 2 > room:
            blocks.append([f"{label:<{left}}" for label in labels])
            room = TABLE_WIDTH - left
        pairs = zip(blocks[-1], column, strict=True)
        blocks[-1] = [f"{line}  {cell:>{width}}" for line, cell in pairs]
        room -= width + 2
    return [[line.rstrip() for line in block] for block in blocks]


def headline(scores: dict[str, Any]) -> list[tuple[str, Score, str]]:
    """Label, score and unit of the main numbers of a split; without those that there are not."""
    found = [("loss", _score(scores, "loss"), "loss")]
    for key, task in headlines().items():
        metric = METRICS[task.metric]
        score = _score(scores, key, prior=look_up(scores, "tasks", task.name, "prior"))
        label = _label(metric, as_object(scores, "tasks", task.name))
        found.append((f"{task.label} {label}", score, metric.unit))
    return [(label, score, unit) for label, score, unit in found if score is not None]


def score_rows(columns: Mapping[str, dict[str, Any]]) -> list[ScoreRow]:
    """The scoreboard: each task's scores with their kinds, and those over all tasks.

    Args:
        columns: a scores object by the name of its column: a split, or a run.
    """
    splits = list(columns.values())
    rows = []
    for task in dict.fromkeys(name for scores in splits for name in as_object(scores, "tasks")):
        scores = [as_object(split, "tasks", task) for split in splits]
        leading = True  # the first of the task's metrics; only that one is told by kind
        for metric in ranked_metrics():
            found = _row(task, metric, scores)
            rows += found
            if found and metric.generated and leading:
                rows += _kind_rows(task, metric, scores)
                leading = False
        for key, name in COUNTS.items():
            counts = tuple(_score(column, key) for column in scores)
            # That no answer was cut is not worth a row.
            if any(c is not None and (c.value or key != "at_limit") for c in counts):
                rows.append(ScoreRow(task, key, name, "count", counts))
    for metric in ranked_metrics():
        if not metric.generated:
            rows += _row("all tasks", metric, splits)
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
    metric = METRICS.get(row.key)
    best_value = min(values) if metric and metric.lower_is_better else max(values)
    best = frozenset(n for n, score in there.items() if score.value == best_value)
    top = next(there[n].interval for n in best)
    apart = frozenset(
        n
        for n, score in there.items()
        if n not in best
        and top
        and score.interval
        and (score.interval[1] < top[0] or top[1] < score.interval[0])
    )
    return best, apart


def _row(task: str, metric: Metric, columns: list[dict[str, Any]]) -> list[ScoreRow]:
    """One row, or none if no column has the score."""
    scores = tuple(
        _score(column, metric.name, prior=column.get("prior") if metric.whole_answers else None)
        for column in columns
    )
    pairs = zip(columns, scores, strict=True)
    labels = {_label(metric, column) for column, score in pairs if score}
    label = labels.pop() if len(labels) == 1 else metric.label
    row = ScoreRow(task, metric.name, label, metric.unit, scores)
    return [row] if any(scores) else []


def _label(metric: Metric, scores: Mapping[str, Any]) -> str:
    """What a metric is called, which may depend on the references of a task's scores."""
    return metric.shown_as(as_object(scores, "normalisers")).label


def _kind_rows(task: str, metric: Metric, columns: list[dict[str, Any]]) -> Iterator[ScoreRow]:
    for kind in dict.fromkeys(kind for column in columns for kind in as_object(column, "kinds")):
        scores = tuple(
            _score(
                {kind: look_up(column, "kinds", kind), "intervals": column.get("kind_intervals")},
                kind,
                prior=look_up(column, "kind_priors", kind),
            )
            for column in columns
        )
        if any(scores):
            yield ScoreRow(task, metric.name, kind, metric.unit, scores, is_kind=True)


def _score(scores: Mapping[str, Any], key: str, prior: Any = None) -> Score | None:
    value = as_number(scores, key)
    if value is None:
        return None
    return Score(value, as_interval(scores, "intervals", key), as_number(prior))


def follow_up_scores(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of questions that follow another: task, score, and in words that of the same ones alone."""
    found = []
    for task in as_object(results, "follow_ups"):
        numbers = as_object(results, "follow_ups", task)
        after, alone = main_score(numbers), as_number(numbers, "alone")
        asked, cut = as_number(numbers, "questions"), as_number(numbers, "at_limit")
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
        for task in as_object(scores, "tasks"):
            used = as_object(scores, "tasks", task, "normalisers")
            told = [
                f"{name} {write_score(as_number(used, name), 'count')}" for name in sorted(used)
            ]
            found += [f"{split} {task}: " + ", ".join(told)] if told else []
    return found


def ways_of_scoring(columns: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    """Of each score of generated answers: task, score, rules, prompts and versions, in words."""
    rows = []
    for scores in columns.values():
        for task in as_object(scores, "tasks"):
            with_ = as_object(scores, "tasks", task, "scored_with")
            prompts, prompt = as_number(with_, "prompts"), with_.get("prompt")
            asked = f"“{prompt}”" if prompt else write_score(prompts, "count")
            packages = as_object(with_, "versions")
            versions = ", ".join(f"{name} {packages[name]}" for name in sorted(packages))
            for name in as_object(with_, "metrics"):
                rules = as_object(with_, "metrics", name)
                words = rules.get("signature") or rules.get("rules")
                words = words or ", ".join(sorted(as_object(rules, "normalisers")))
                label = METRICS[name].label if name in METRICS else name
                rows.append([task, label, str(words), asked, versions or "–"])
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]
