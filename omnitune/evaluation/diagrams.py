"""Which diagrams a run has, and the points of their lines, from the lines of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from omnitune.evaluation.runs import as_interval, as_number, as_object

Entry = dict[str, Any]

LEGEND = (
    ("train", "training"),
    ("epoch", "validation, end of epoch"),
    ("probe", "validation in between, few questions"),
)
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
    """

    title: str
    key: str
    unit: str
    curves: list[Curve]
    from_zero: bool = False
    marks: tuple[float, ...] = ()


MAIN = (
    ("Loss", "loss", "loss", False),
    ("Text: token accuracy", "text_acc", "percent", False),
    ("Image QA: exact match", "image_qa_acc", "percent", True),
    ("Transcription: word error rate", "audio_wer", "percent", True),
)
RELIANCE = "_reliance"


def diagrams_of(entries: Sequence[Entry]) -> list[Diagram]:
    """All diagrams of a run that have points: main scores, then what explains them."""
    found = [
        Diagram(title, key, unit, curves_of(entries, key), from_zero)
        for title, key, unit, from_zero in MAIN
    ]
    found += [
        Diagram("Training loss by source", "sources", "loss", _by_source(entries)),
        Diagram("Validation loss by task", "tasks", "loss", _by_task(entries)),
        Diagram("Modality reliance", "reliance", "points", _reliance(entries)),
        Diagram("Text guard: held-out text loss", "guard", "loss", _guard(entries)),
        Diagram("Mix: share of each source", "weights", "percent", _weights(entries), True),
        Diagram("Learning rate", "rate", "rate", _rate(entries), True),
    ]
    marks = phase_starts(entries)
    return [replace(diagram, marks=marks) for diagram in found if diagram.curves]


def curves_of(entries: Sequence[Entry], key: str) -> list[Curve]:
    """The lines of a score; without those of no point."""
    epochs = [e for e in entries if e.get("epoch_ended")]
    others = [e for e in entries if not e.get("epoch_ended")]

    def held(entry: Entry) -> Any:
        return as_object(entry.get("validation")).get(key)

    def interval(entry: Entry) -> Any:
        return as_object(as_object(entry.get("validation")).get("intervals")).get(key)

    return _there(
        curve("probe", others, held),
        curve("epoch", epochs, held, interval=interval),
        curve("train", _long_enough(entries), lambda e: as_object(e.get("train")).get(key)),
    )


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
    few is a spike that means nothing.
    """
    steps = [as_number(entry.get("step")) or 0.0 for entry in entries]
    spans = [after - before for before, after in pairwise([0.0, *steps])]
    longest = [max(spans[max(0, n - 1) : n + 2]) for n in range(len(spans))]
    return [e for e, span, most in zip(entries, spans, longest, strict=True) if span >= most / 2]


def phase_starts(entries: Sequence[Entry]) -> tuple[float, ...]:
    """The last step logged before each change of the phase."""
    pairs = pairwise(entries)
    starts = [as_number(a.get("step")) for a, b in pairs if a.get("phase") != b.get("phase")]
    return tuple(step for step in starts if step is not None)


def _by_source(entries: Sequence[Entry]) -> list[Curve]:
    def losses(entry: Entry) -> dict[str, Any]:
        return _losses(as_object(entry.get("train")).get("sources"))

    return _family(_long_enough(entries), losses)


def _by_task(entries: Sequence[Entry]) -> list[Curve]:
    epochs = [e for e in entries if e.get("epoch_ended")]
    return _family(epochs, lambda e: _losses(as_object(e.get("validation")).get("tasks")))


def _losses(groups: Any) -> dict[str, Any]:
    return {name: as_object(scores).get("loss") for name, scores in as_object(groups).items()}


def _reliance(entries: Sequence[Entry]) -> list[Curve]:
    def scores(entry: Entry) -> dict[str, Any]:
        held = as_object(entry.get("validation"))
        return {k.removesuffix(RELIANCE): v for k, v in held.items() if k.endswith(RELIANCE)}

    return _family(entries, scores)


def _guard(entries: Sequence[Entry]) -> list[Curve]:
    def losses(entry: Entry) -> dict[str, Any]:
        guard = as_object(as_object(entry.get("validation")).get("text_guard"))
        return {"now": guard.get("loss"), "starting thinker": guard.get("start")}

    return _family(entries, losses)


def _weights(entries: Sequence[Entry]) -> list[Curve]:
    return _family(entries, lambda e: as_object(e.get("weights")))


def _rate(entries: Sequence[Entry]) -> list[Curve]:
    return _there(curve("train", entries, lambda e: as_object(e.get("train")).get("learning_rate")))


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
