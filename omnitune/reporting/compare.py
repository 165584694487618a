"""Runs side by side: what was set otherwise, and what came of it; in the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.evaluation.metrics import ranked_metrics
from omnitune.evaluation.runs import RunFolder, as_number, as_object, flatten, read_run
from omnitune.reporting import curves
from omnitune.reporting.diagrams import (
    PALETTE,
    RELIANCE,
    Curve,
    Diagram,
    before_training,
    curves_of,
    main_scores,
)
from omnitune.reporting.page import Block, Section, render_page
from omnitune.reporting.tables import (
    Score,
    ScoreRow,
    compare_scores,
    score_rows,
    write_interval,
    write_score,
)
from omnitune.sample import UserError

LABEL = 31  # columns of the terminal that name a row
WIDTH = 21  # of a run
SIDE_BY_SIDE = 3  # runs that fit into 100 columns
MARKS = "* best of the row; ! its 95 % interval does not overlap the best one's"
# How to read the page's sections.
RUNS_NOTE = "The table shows how far each run is."
SETTINGS_NOTE = (
    "All other settings are the same. An input file is shown by the first digits of its checksum."
)
CURVES_NOTE = (
    "Each line shows a run's scores on validation data after each epoch. A ring marks the score "
    "before the first step. The vertical strokes are 95 % intervals."
)
SCORES_NOTE = (
    "★ marks the best score of a row. ▾ marks a score whose 95 % interval (the small numbers) does "
    "not overlap the interval of the best score. The choice of questions alone hardly explains "
    "such a difference. Lower is better for loss and word error rate."
)
Fact = tuple[str, list[str]]  # name, and a value for each run


def read_runs(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """Reads runs, finished or not, by a short name.

    Raises:
        UserError: fewer than two runs, or a folder that holds none.
    """
    found = {path.resolve(): path for path in paths}
    if len(found) < 2:
        raise UserError(
            f"omnitune compare: needs two runs or more, found {len(found)}; give their output "
            "folders, such as checkpoints/first checkpoints/second"
        )
    runs = [read_run(path) for path in found.values()]
    return dict(zip(short_names(list(found)), runs, strict=True))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell the folders apart: as many last parts as that takes.

    A beginning that all of them share is left out, up to its last mark of punctuation.
    """
    longest = max(len(path.parts) for path in paths)
    apart = (n for n in range(1, longest) if len({p.parts[-n:] for p in paths}) == len(paths))
    depth = next(apart, longest)
    names = ["/".join(path.parts[-depth:]) for path in paths]
    shared = 0
    while len({name[: shared + 1] for name in names}) == 1 and shared < min(map(len, names)):
        shared += 1
    cut = max(names[0][:shared].rfind(mark) for mark in "_-./") + 1
    shorter = [name[cut:] for name in names]
    return shorter if all(len(name) > 1 for name in shorter) else names


def facts_of(runs: Mapping[str, RunFolder]) -> list[Fact]:
    """How far each run is and how long it took."""
    columns = list(runs.values())
    return [
        ("state", ["finished" if run.results else "unfinished" for run in columns]),
        ("step", [_last_step(run) for run in columns]),
        ("seconds", [_seconds(run) for run in columns]),
    ]


def differences(runs: Mapping[str, RunFolder]) -> list[Fact]:
    """Settings, content of input files and facts of the environment that are not the same."""
    columns = list(runs.values())
    found = _unlike([dict(flatten(run.config)) for run in columns], skip=("output_dir",))
    digests = [as_object(run.record.get("inputs")) for run in columns]
    common = set.intersection(*map(set, digests))
    files = [{path: str(values[path])[:8] for path in sorted(common)} for values in digests]
    found += [(f"{name}, content", values) for name, values in _unlike(files)]
    places = [dict(flatten(as_object(run.record.get("environment")))) for run in columns]
    return found + _unlike(places)


def scoreboards(runs: Mapping[str, RunFolder]) -> list[tuple[str, list[ScoreRow]]]:
    """Heading and rows, a column for each run: of each final split, and of the last validation."""
    by_run = {name: run.splits() for name, run in runs.items()}
    boards = [
        (split, score_rows({name: splits.get(split, {}) for name, splits in by_run.items()}))
        for split in dict.fromkeys(split for splits in by_run.values() for split in splits)
    ]
    watched = {name: _last_validation(run) for name, run in runs.items()}
    boards.append(("validation, as last scored while training", score_rows(watched)))
    return [(heading, rows) for heading, rows in boards if rows]


def compare_table(runs: Mapping[str, RunFolder]) -> list[str]:
    """The comparison as lines for the terminal, at most 100 columns wide."""
    names = list(runs)
    boards = [(heading, _main_rows(rows)) for heading, rows in scoreboards(runs)]
    blocks: list[tuple[str, list[Fact]]] = [
        ("", facts_of(runs)),
        ("settings that differ", differences(runs)),
        *((head, [(f"{r.task}, {r.name}", _cells(r)) for r in rows]) for head, rows in boards),
    ]
    lines = []
    for first in range(0, len(names), SIDE_BY_SIDE):
        shown = slice(first, first + SIDE_BY_SIDE)
        lines += ["" if first else None, _line("", names[shown])]
        for heading, facts in blocks:
            lines += ["", heading] if heading and facts else []
            lines += [_line(f"  {name}" if heading else name, v[shown]) for name, v in facts]
    return [line for line in lines if line is not None] + ["", MARKS]


def write_comparison(runs: Mapping[str, RunFolder], page: Path) -> Path:
    """Writes the comparison as a page that needs no network; returns its path.

    Raises:
        UserError: the file cannot be written.
    """
    html = render_page("comparison", " · ".join(runs), _sections(runs))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page}: cannot be written ({error.strerror}); give --html FILE") from None
    return page


def _sections(runs: Mapping[str, RunFolder]) -> list[Section]:
    """The page's sections, each with how to read it."""
    names, unlike = list(runs), differences(runs)
    folders = [("folder", [str(run.path) for run in runs.values()])]
    legend = [(PALETTE[n % len(PALETTE)], name) for n, name in enumerate(names)]
    drawings = {"drawings": curves.inline_drawings(overlays(runs)), "legend": legend}
    boards = [
        ("score_table", {"columns": names, "rows": rows, "mark": True, "heading": heading})
        for heading, rows in scoreboards(runs)
    ]
    return [
        Section("Runs", RUNS_NOTE, [_fact_table(names, folders + facts_of(runs))]),
        Section("Settings that differ", SETTINGS_NOTE, [_fact_table(names, unlike)])
        if unlike
        else Section("Settings that differ", "All settings are the same."),
        Section("Curves", CURVES_NOTE, [("figures", drawings)]),
        Section("Scores", SCORES_NOTE if boards else "There are no scores yet.", boards),
    ]


def _fact_table(names: Sequence[str], facts: Sequence[Fact]) -> Block:
    rows = [[name, *values] for name, values in facts]
    return ("table", {"name": "facts of the runs", "heads": ["", *names], "rows": rows})


def overlays(runs: Mapping[str, RunFolder]) -> list[Diagram]:
    """The main scores over the steps, a line for each run."""
    keys = [(title, key, unit, zero, True) for title, key, unit, zero in main_scores()]
    keys.insert(1, ("Training loss", "loss", "loss", False, False))
    known = {
        k for run in runs.values() for e in run.entries for k in as_object(e.get("validation"))
    }
    keys += [
        (f"Reliance: {key.removesuffix(RELIANCE)}", key, "points", False, True)
        for key in sorted(known)
        if key.endswith(RELIANCE)
    ]
    diagrams = []
    for title, key, unit, from_zero, held in keys:
        found = [_overlay(run, key, held, n) for n, run in enumerate(runs.values())]
        lines = [curve for curve in found if curve]
        if lines:
            name = key if held else f"training-{key}"
            diagrams.append(Diagram(title, name, unit, lines, from_zero))
    return diagrams


def _overlay(run: RunFolder, key: str, held: bool, number: int) -> Curve | None:
    """One run's line: at the ends of epochs; before the first one what was scored in between."""
    by_role = {curve.role: curve for curve in curves_of(run.entries, key)}
    curve = by_role.get("epoch", by_role.get("probe")) if held else by_role.get("train")
    if curve is None:
        return None
    role = PALETTE[number % len(PALETTE)]
    return Curve(role, curve.steps, curve.values, intervals=curve.intervals)


def _unlike(columns: Sequence[Mapping[str, str]], skip: tuple[str, ...] = ()) -> list[Fact]:
    """The names whose values differ; a dash where a column lacks one."""
    names = dict.fromkeys(name for column in columns for name in column if name not in skip)
    facts = [(name, [column.get(name, "–") for column in columns]) for name in names]
    return [(name, values) for name, values in facts if len(set(values)) > 1]


def _last_validation(run: RunFolder) -> dict[str, Any]:
    """The scores of the last epoch; of a run that has ended none, the last there are."""
    later = [entry for entry in run.entries if not before_training(entry)]
    ended = [entry for entry in later if entry.get("epoch_ended")] or run.entries
    return as_object(ended[-1].get("validation")) if ended else {}


def _last_step(run: RunFolder) -> str:
    if not run.entries:
        return "–"
    step, epoch = (as_number(run.entries[-1].get(key)) for key in ("step", "epoch"))
    of = as_number(run.config.get("num_epochs"))
    words = f" (epoch {write_score(epoch, 'count')}" + (f" of {of:.0f})" if of else ")")
    return write_score(step, "count") + (words if epoch is not None else "")


def _seconds(run: RunFolder) -> str:
    """Of the whole run; of one that has not said so, those of its steps and scores."""
    whole = as_number(run.results.get("seconds"))
    if whole is None:
        steps = [as_object(entry.get("train")).get("seconds") for entry in run.entries]
        scores = [entry.get("scoring_seconds") for entry in run.entries]
        whole = sum(as_number(part) or 0.0 for part in steps + scores) or None
    return write_score(whole, "count")


def _main_rows(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """The loss, then of each task the one score that stands for it."""
    found: dict[str, ScoreRow] = {}
    own = [row for row in rows if not row.is_kind and row.task != "all tasks"]
    for metric in ranked_metrics():
        for row in own:
            if row.key == metric.name and row.key != "loss":
                found.setdefault(row.task, row)
    losses = [row for row in rows if row.task == "all tasks" and row.key == "loss"]
    return losses + list(found.values())


def _cells(row: ScoreRow) -> list[str]:
    best, apart = compare_scores(row)
    marks = ["*" if n in best else "!" if n in apart else " " for n in range(len(row.scores))]
    return [_cell(s, row.unit, mark) for s, mark in zip(row.scores, marks, strict=True)]


def _cell(score: Score | None, unit: str, mark: str) -> str:
    if score is None:
        return "–  "
    return (
        f"{write_score(score.value, unit)} {write_interval(score.interval, unit)}".rstrip()
        + f" {mark}"
    )


def _line(name: str, values: Sequence[str]) -> str:
    cells = "".join(f"  {_clipped(value, WIDTH):>{WIDTH}}" for value in values)
    return f"{_clipped(name, LABEL):<{LABEL}}{cells}".rstrip()


def _clipped(text: str, width: int) -> str:
    """At most so many columns; of what is longer the end tells more, as of paths."""
    return text if len(text) <= width else f"…{text[1 - width :]}"
