"""Runs side by side: what was set otherwise, and what came of it; in the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from omnitune.evaluation.metrics import ranked_metrics
from omnitune.evaluation.runs import RunFolder, as_number, as_object, flatten, read_run
from omnitune.reporting import curves
from omnitune.reporting.diagrams import (
    PALETTE,
    RELIANCE,
    Diagram,
    before_training,
    curves_of,
    main_scores,
)
from omnitune.reporting.page import Block, Section, render_page
from omnitune.reporting.tables import (
    ScoreRow,
    compare_scores,
    score_rows,
    side_by_side,
    write_interval,
    write_score,
)
from omnitune.sample import UserError

LABEL = 31  # columns of the terminal that name a row
WIDTH = 21  # of a run
MARKS = "* best of the row; ! its 95 % interval does not overlap the best one's"
# How to read the page's sections.
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
    shared = list(takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))
    cut = max(names[0][: len(shared)].rfind(mark) for mark in "_-./") + 1
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
    digests = [as_object(run.record, "inputs") for run in columns]
    common = sorted(set.intersection(*map(set, digests)))
    found += _unlike([{f"{path}, content": str(d[path])[:8] for path in common} for d in digests])
    return found + _unlike([dict(flatten(as_object(run.record, "environment"))) for run in columns])


def scoreboards(runs: Mapping[str, RunFolder]) -> list[tuple[str, list[ScoreRow]]]:
    """Heading and rows, a column for each run: of each final split, and of the last validation."""
    by_run = {name: run.splits() for name, run in runs.items()}
    boards = [
        (split, score_rows({name: splits.get(split, {}) for name, splits in by_run.items()}))
        for split in dict.fromkeys(split for splits in by_run.values() for split in splits)
    ]
    watched = {name: _last_validation(run) for name, run in runs.items()}
    boards.append(("validation as last scored", score_rows(watched)))
    return [(heading, rows) for heading, rows in boards if rows]


def compare_table(runs: Mapping[str, RunFolder]) -> list[str]:
    """The comparison as lines for the terminal, at most 100 columns wide."""
    blank = [""] * len(runs)
    rows: list[Fact] = [("", list(runs)), *facts_of(runs)]
    facts = {"settings that differ": differences(runs)}
    for heading, scores in scoreboards(runs):
        facts[heading] = [(f"{r.task}, {r.name}", _cells(r)) for r in _main_rows(scores)]
    for heading, found in facts.items():
        rows += [("", blank), (heading, blank)] if found else []
        rows += [(f"  {name}", values) for name, values in found]
    labels = [_clipped(name, LABEL) for name, _ in rows]
    cells = zip(*(values for _, values in rows), strict=True)
    columns = [[_clipped(value, WIDTH) for value in column] for column in cells]
    blocks = side_by_side(labels, columns)
    return [line for block in blocks for line in [*block, ""]] + [MARKS]


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

    def tables(facts: Sequence[Fact]) -> list[Block]:
        rows = [[name, *values] for name, values in facts]
        table = {"name": "facts of the runs", "heads": ["", *names], "rows": rows}
        return [("table", table)] if rows else []

    folders = [("folder", [str(run.path) for run in runs.values()])]
    legend = [(PALETTE[n % len(PALETTE)], name) for n, name in enumerate(names)]
    drawings = {"drawings": curves.inline_drawings(overlays(runs)), "legend": legend}
    boards = [
        ("score_table", {"columns": names, "rows": rows, "mark": True, "heading": heading})
        for heading, rows in scoreboards(runs)
    ]
    return [
        Section(
            "Runs", "The table shows how far each run is.", tables([*folders, *facts_of(runs)])
        ),
        Section(
            "Settings that differ",
            SETTINGS_NOTE if unlike else "All settings are the same.",
            tables(unlike),
        ),
        Section("Curves", CURVES_NOTE, [("figures", drawings)]),
        Section("Scores", SCORES_NOTE if boards else "There are no scores yet.", boards),
    ]


def overlays(runs: Mapping[str, RunFolder]) -> list[Diagram]:
    """The main scores over the steps, a line for each run."""
    held: tuple[str, ...] = (
        "epoch",
        "probe",
    )  # before the first epoch has ended, what was scored in between
    shown = [(title, key, unit, zero, held) for title, key, unit, zero in main_scores()]
    shown.insert(1, ("Training loss", "loss", "loss", False, ("train",)))
    entries = [entry for run in runs.values() for entry in run.entries]
    keys = {key for entry in entries for key in as_object(entry, "validation")}
    for key in sorted(key for key in keys if key.endswith(RELIANCE)):
        shown.append((f"Reliance: {key.removesuffix(RELIANCE)}", key, "points", False, held))
    diagrams = []
    for title, key, unit, from_zero, roles in shown:
        lines = []
        for n, run in enumerate(runs.values()):
            found = {line.role: line for line in curves_of(run.entries, key)}
            first = next((found[role] for role in roles if role in found), None)
            lines += [replace(first, role=PALETTE[n % len(PALETTE)])] if first else []
        if lines:
            name = key if roles == held else f"training-{key}"
            diagrams.append(Diagram(title, name, unit, lines, from_zero))
    return diagrams


def _unlike(columns: Sequence[Mapping[str, str]], skip: tuple[str, ...] = ()) -> list[Fact]:
    """The names whose values differ; a dash where a column lacks one."""
    names = dict.fromkeys(name for column in columns for name in column if name not in skip)
    facts = [(name, [column.get(name, "–") for column in columns]) for name in names]
    return [(name, values) for name, values in facts if len(set(values)) > 1]


def _last_validation(run: RunFolder) -> dict[str, Any]:
    """The scores of the last epoch; of a run that has ended none, the last there are."""
    later = [entry for entry in run.entries if not before_training(entry)]
    ended = [entry for entry in later if entry.get("epoch_ended")] or run.entries
    return as_object(ended[-1], "validation") if ended else {}


def _last_step(run: RunFolder) -> str:
    if not run.entries:
        return "–"
    step, epoch = (as_number(run.entries[-1], key) for key in ("step", "epoch"))
    of = as_number(run.config, "num_epochs")
    words = f" (epoch {write_score(epoch, 'count')}" + (f" of {of:.0f})" if of else ")")
    return write_score(step, "count") + (words if epoch is not None else "")


def _seconds(run: RunFolder) -> str:
    """Of the whole run; of one that has not said so, those of its steps and scores."""
    paths = (("train", "seconds"), ("scoring_seconds",))
    parts = sum(as_number(entry, *path) or 0.0 for entry in run.entries for path in paths)
    return write_score(as_number(run.results, "seconds") or parts or None, "count")


def _main_rows(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """The loss, then of each task the one score that stands for it."""
    found = {row.task: row for row in rows if (row.task, row.key) == ("all tasks", "loss")}
    own = [row for row in rows if not row.is_kind and row.task != "all tasks"]
    for metric in ranked_metrics():
        for row in own:
            if row.key == metric.name and row.key != "loss":
                found.setdefault(row.task, row)
    return list(found.values())


def _cells(row: ScoreRow) -> list[str]:
    best, apart = compare_scores(row)
    cells = []
    for n, score in enumerate(row.scores):
        mark = "*" if n in best else "!" if n in apart else " "
        interval = write_interval(score.interval, row.unit) if score else ""
        words = [
            write_score(score.value if score else None, row.unit),
            *([interval] if interval else []),
        ]
        cells.append(" ".join([*words, mark]))
    return cells


def _clipped(text: str, width: int) -> str:
    """At most so many columns; of what is longer the end tells more, as of paths."""
    return text if len(text) <= width else f"…{text[1 - width :]}"
