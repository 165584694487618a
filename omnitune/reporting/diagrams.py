"""Which diagrams a run has, and the points of their lines, from the lines of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from omnitune.evaluation.metrics import METRICS
from omnitune.evaluation.runs import as_interval, as_number, as_object
from omnitune.tasks import headlines

Entry = dict[str, Any]

LEGEND = (
    ("train", "training"),
    ("epoch", "validation after each epoch"),
    ("probe", "quick checks on few questions"),
)
START = "validation before the first step and after each epoch"
PHASE = ("phase", "a new phase begins")
PALETTE = ("c1", "c2", "c3", "c4", "c5", "c6")  # roles of lines that their label tells apart


@dataclass(frozen=True)
class Curve:
    """The points of one line.

    Attributes:
        role: a first word of ``LEGEND``, or one of ``PALETTE``, which says how it is drawn.
        label: what it is called in the diagram's own legend; "" if the page's legend tells.
        intervals: of each value, low and high; empty, or None for a value without.
    """

    role: str
    steps: list[float]
    values: list[float]
    label: str = ""
    intervals: list[tuple[float, float] | None] = field(default_factory=list)


@dataclass(frozen=True)
class Diagram:
    """Lines over the steps of a run.

    Attributes:
        key: a name of its own on the page.
        unit: ``loss``, ``percent``, ``points`` (of percent) or ``rate``.
        from_zero: the axis begins at 0.
        marks: steps at which something changes, such as the phase.
        legend: roles of lines, and what the page's legend calls them.
    """

    title: str
    key: str
    unit: str
    curves: list[Curve]
    from_zero: bool = False
    marks: tuple[float, ...] = ()
    legend: tuple[tuple[str, str], ...] = LEGEND


RELIANCE = "_reliance"


def main_scores() -> list[tuple[str, str, str, bool]]:
    """Title, key in the scores, unit and ``from_zero`` of the loss and of each task's headline."""
    found = [("Loss", "loss", "loss", False)]
    for key, task in headlines().items():
        metric, label = METRICS[task.metric], task.label
        title = f"{label[:1].upper()}{label[1:]}: {metric.title}"
        found.append((title, key, metric.unit, metric.generated))
    return found


def diagrams_of(entries: Sequence[Entry], probe_questions: float | None = None) -> list[Diagram]:
    """All diagrams of a run that have points: main scores, then what explains them.

    Args:
        entries: the lines of ``metrics.jsonl``.
        probe_questions: of each task, in the checks between epochs; None if not known.
    """
    later = [entry for entry in entries if not before_training(entry)]
    trained = _long_enough(later)
    held = [entry for entry in entries if entry.get("epoch_ended") or before_training(entry)]
    by_source = _family(trained, ("train", "sources"), ("loss",))
    by_task = _family(held, ("validation", "tasks"), ("loss",))
    rate = [curve("train", later, "train", "learning_rate")]
    found = [
        Diagram(title, key, unit, curves_of(entries, key), from_zero)
        for title, key, unit, from_zero in main_scores()
    ]
    found += [
        Diagram("Training loss by source", "sources", "loss", by_source),
        Diagram("Validation loss by task", "tasks", "loss", by_task),
        Diagram("Modality reliance", "reliance", "points", _reliance(entries)),
        Diagram("Text guard: text loss on validation", "guard", "loss", _guard(later)),
        Diagram("Mix: share of each source", "weights", "percent", _family(entries, ("weights",))),
        Diagram("Learning rate", "rate", "rate", [c for c in rate if c.steps], from_zero=True),
    ]
    marks, legend = phase_starts(later), dict(LEGEND)
    if len(later) < len(entries):
        legend["epoch"] = START
    if probe_questions:
        legend["probe"] = f"quick checks on {probe_questions:,.0f} questions of each task"
    pairs = tuple(legend.items())
    return [replace(diagram, marks=marks, legend=pairs) for diagram in found if diagram.curves]


def before_training(entry: Entry) -> bool:
    """Whether it holds the scores before the first step."""
    return as_number(entry, "step") == 0


def curves_of(entries: Sequence[Entry], key: str) -> list[Curve]:
    """The lines of a score; without those of no point.

    The lines of held-out scores begin with the score before the first step, where it is known.
    """
    start = [e for e in entries if before_training(e)]
    later = [e for e in entries if not before_training(e)]
    probes = [e for e in later if not e.get("epoch_ended")]
    epochs = [e for e in later if e.get("epoch_ended")]
    path = ("validation", key)
    lines = []
    if curve("probe", probes, *path).steps:
        lines.append(curve("probe", start + probes, *path))
    if curve("epoch", epochs, *path).steps or not lines:
        lines.append(curve("epoch", start + epochs, *path))
    lines.append(curve("train", _long_enough(later), "train", key))
    return [line for line in lines if line.steps]


def curve(role: str, entries: Sequence[Entry], *path: str, label: str = "") -> Curve:
    """The points that the entries hold at a path of keys, with their intervals."""
    found = Curve(role, [], [], label)
    for entry in entries:
        step, value = as_number(entry, "step"), as_number(entry, *path)
        if step is not None and value is not None:
            found.steps.append(step)
            found.values.append(value)
            interval = as_interval(entry, *path[:-1], "intervals", path[-1])
            found.intervals.append(interval if role == "epoch" else None)
    return found


def _long_enough(entries: Sequence[Entry]) -> list[Entry]:
    """The moments whose training means are over at least half as many steps as a neighbour's.

    At the end of an epoch a step or two may have passed since the moment before, and the mean of so
    few is a spike that means nothing.
    """
    steps = [as_number(entry, "step") or 0.0 for entry in entries]
    spans = [after - before for before, after in pairwise([0.0, *steps])]
    longest = [max(spans[max(0, n - 1) : n + 2]) for n in range(len(spans))]
    return [e for e, span, most in zip(entries, spans, longest, strict=True) if span >= most / 2]


def phase_starts(entries: Sequence[Entry]) -> tuple[float, ...]:
    """The last step logged before each change of the phase."""
    starts = [a.get("step") for a, b in pairwise(entries) if a.get("phase") != b.get("phase")]
    return tuple(step for step in map(as_number, starts) if step is not None)


def _reliance(entries: Sequence[Entry]) -> list[Curve]:
    rows = []
    for entry in entries:
        held = as_object(entry, "validation")
        found = {k.removesuffix(RELIANCE): v for k, v in held.items() if k.endswith(RELIANCE)}
        rows.append({"step": entry.get("step"), "reliance": found})
    return _family(rows, ("reliance",))


def _guard(entries: Sequence[Entry]) -> list[Curve]:
    """The text loss now and at the start, which are the same before the first step."""
    found = [(e.get("step"), as_object(e, "validation", "text_guard")) for e in entries]
    starts = [guard["start"] for _, guard in found if guard.get("start") is not None]
    if starts:
        found.insert(0, (0, {"loss": starts[0], "start": starts[0]}))
    rows = [
        {"step": step, "guard": {"now": guard.get("loss"), "starting thinker": guard.get("start")}}
        for step, guard in found
    ]
    return _family(rows, ("guard",))


def _family(
    entries: Sequence[Entry], path: tuple[str, ...], rest: tuple[str, ...] = ()
) -> list[Curve]:
    """A line for each name that any entry has at a path of keys; its number is ``rest`` below."""
    names = dict.fromkeys(name for entry in entries for name in as_object(entry, *path))
    lines = [
        curve(PALETTE[n % len(PALETTE)], entries, *path, name, *rest, label=name)
        for n, name in enumerate(names)
    ]
    return [line for line in lines if line.steps]
