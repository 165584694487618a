"""Which diagrams a run has, and the points of their lines, from the lines of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    found = [
        Diagram(title, key, unit, curves_of(entries, key), from_zero)
        for title, key, unit, from_zero in main_scores()
    ]
    found += [
        Diagram("Training loss by source", "sources", "loss", _by_source(entries)),
        Diagram("Validation loss by task", "tasks", "loss", _by_task(entries)),
        Diagram("Modality reliance", "reliance", "points", _reliance(entries)),
        Diagram("Text guard: text loss on validation", "guard", "loss", _guard(entries)),
        Diagram("Mix: share of each source", "weights", "percent", _weights(entries), True),
        Diagram("Learning rate", "rate", "rate", _rate(entries), True),
    ]
    marks, legend = phase_starts(entries), _legend(entries, probe_questions)
    return [replace(diagram, marks=marks, legend=legend) for diagram in found if diagram.curves]


def _legend(entries: Sequence[Entry], probe_questions: float | None) -> tuple[tuple[str, str], ...]:
    words = dict(LEGEND)
    if any(before_training(entry) for entry in entries):
        words["epoch"] = START
    if probe_questions:
        words["probe"] = f"quick checks on {probe_questions:,.0f} questions of each task"
    return tuple(words.items())


def before_training(entry: Entry) -> bool:
    """Whether it holds the scores before the first step."""
    return as_number(entry.get("step")) == 0


def curves_of(entries: Sequence[Entry], key: str) -> list[Curve]:
    """The lines of a score; without those of no point.

    The lines of held-out scores begin with the score before the first step, where it is known.
    """
    start = [e for e in entries if before_training(e)]
    later = [e for e in entries if not before_training(e)]
    probes = [e for e in later if not e.get("epoch_ended")]
    epochs = [e for e in later if e.get("epoch_ended")]

    def held(entry: Entry) -> Any:
        return as_object(entry.get("validation")).get(key)

    def interval(entry: Entry) -> Any:
        return as_object(as_object(entry.get("validation")).get("intervals")).get(key)

    lines = []
    if curve("probe", probes, held).steps:
        lines.append(curve("probe", start + probes, held))
    if curve("epoch", epochs, held).steps or not lines:
        lines.append(curve("epoch", start + epochs, held, interval=interval))
    trained = curve("train", _long_enough(entries), lambda e: as_object(e.get("train")).get(key))
    return _there(*lines, trained)


def curve(
    role: str,
    entries: Sequence[Entry],
    value: Callable[[Entry], Any],
    label: str = "",
    interval: Callable[[Entry], Any] = lambda entry: None,
) -> Curve:
    """The points that a function finds in the entries."""
    found = Curve(role, [], [], label)
    for entry in entries:
        step, number = as_number(entry.get("step")), as_number(value(entry))
        if step is not None and number is not None:
            found.steps.append(step)
            found.values.append(number)
            found.intervals.append(as_interval(interval(entry)))
    return found


def _long_enough(entries: Sequence[Entry]) -> list[Entry]:
    """The moments whose training means are over at least half as many steps as a neighbour's.

    At the end of an epoch a step or two may have passed since the moment before, and the mean of so
    few is a spike that means nothing. Nor has anything been trained on before the first step.
    """
    entries = [entry for entry in entries if not before_training(entry)]
    steps = [as_number(entry.get("step")) or 0.0 for entry in entries]
    spans = [after - before for before, after in pairwise([0.0, *steps])]
    longest = [max(spans[max(0, n - 1) : n + 2]) for n in range(len(spans))]
    return [e for e, span, most in zip(entries, spans, longest, strict=True) if span >= most / 2]


def phase_starts(entries: Sequence[Entry]) -> tuple[float, ...]:
    """The last step logged before each change of the phase."""
    pairs = pairwise(entry for entry in entries if not before_training(entry))
    starts = [as_number(a.get("step")) for a, b in pairs if a.get("phase") != b.get("phase")]
    return tuple(step for step in starts if step is not None)


def _by_source(entries: Sequence[Entry]) -> list[Curve]:
    def losses(entry: Entry) -> dict[str, Any]:
        return _losses(as_object(entry.get("train")).get("sources"))

    return _family(_long_enough(entries), losses)


def _by_task(entries: Sequence[Entry]) -> list[Curve]:
    epochs = [e for e in entries if e.get("epoch_ended") or before_training(e)]
    return _family(epochs, lambda e: _losses(as_object(e.get("validation")).get("tasks")))


def _losses(groups: Any) -> dict[str, Any]:
    return {name: as_object(scores).get("loss") for name, scores in as_object(groups).items()}


def _reliance(entries: Sequence[Entry]) -> list[Curve]:
    def scores(entry: Entry) -> dict[str, Any]:
        held = as_object(entry.get("validation"))
        return {k.removesuffix(RELIANCE): v for k, v in held.items() if k.endswith(RELIANCE)}

    return _family(entries, scores)


def _guard(entries: Sequence[Entry]) -> list[Curve]:
    """The text loss now and at the start, which are the same before the first step."""

    def losses(entry: Entry) -> dict[str, Any]:
        guard = as_object(as_object(entry.get("validation")).get("text_guard"))
        return {"now": guard.get("loss"), "starting thinker": guard.get("start")}

    later = [entry for entry in entries if not before_training(entry)]
    starts = [start for entry in later if (start := losses(entry)["starting thinker"]) is not None]
    guard = {"loss": starts[0], "start": starts[0]} if starts else {}
    return _family([{"step": 0, "validation": {"text_guard": guard}}, *later], losses)


def _weights(entries: Sequence[Entry]) -> list[Curve]:
    return _family(entries, lambda e: as_object(e.get("weights")))


def _rate(entries: Sequence[Entry]) -> list[Curve]:
    made = [e for e in entries if not before_training(e)]
    return _there(curve("train", made, lambda e: as_object(e.get("train")).get("learning_rate")))


def _family(entries: Sequence[Entry], members: Callable[[Entry], dict[str, Any]]) -> list[Curve]:
    """A line for each name that the numbers of any entry have."""
    found = [(entry, members(entry)) for entry in entries]
    names = dict.fromkeys(name for _, numbers in found for name in numbers)
    lines = []
    for n, name in enumerate(names):
        points = [
            {"step": entry.get("step"), "value": numbers.get(name)} for entry, numbers in found
        ]
        role = PALETTE[n % len(PALETTE)]
        lines.append(curve(role, points, lambda point: point["value"], name))
    return _there(*lines)


def _there(*curves: Curve) -> list[Curve]:
    return [curve for curve in curves if curve.steps]
