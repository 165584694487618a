"""The report of a run: its scoreboard as text, and one page with curves, scores and answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.data.reading import DataPlace
from omnitune.evaluation.runs import as_number, read_finished, splits_of, top_split
from omnitune.reporting import curves
from omnitune.reporting.diagrams import diagrams_of
from omnitune.reporting.examples import write_examples
from omnitune.reporting.gallery import choose_pictures, read_gallery
from omnitune.reporting.page import render_page
from omnitune.reporting.sections import SECTIONS, ReportData, build_opening
from omnitune.reporting.tables import (
    TABLE_WIDTH,
    Score,
    ScoreRow,
    follow_up_scores,
    headline,
    other_rules,
    score_rows,
    side_by_side,
    write_interval,
    write_score,
)
from omnitune.reporting.verdict import judge
from omnitune.storage import write_lines

REPORT_FILE = "report.html"


def scores_table(results: dict[str, Any]) -> list[str]:
    """The final scoreboard as lines for the terminal, at most ``TABLE_WIDTH`` columns wide.

    Args:
        results: the object of ``results.json``; any of its keys may be missing.

    Returns:
        whether the run came out well, the headline numbers of the main split, then a row for each
        task's score and a column for each split, beside the main split's its 95 % intervals; at
        the end the questions that follow others, and references that are not all English.
    """
    splits = splits_of(results)
    main = top_split(results)
    head = headline(splits.get(main, {}))
    wide = max((len(label) for label, _, _ in head), default=0)
    rows = _with_priors([row for row in score_rows(splits) if not row.is_kind])
    if not head and not rows:
        return ["there are no scores"]
    lines = [*textwrap.wrap(judge(results).sentence, TABLE_WIDTH), ""]
    lines += [f"{main} split:"] if head else []
    for label, score, unit in head:
        interval = write_interval(score.interval, unit)
        line = f"  {label:<{wide}}  {write_score(score.value, unit):>8}"
        lines.append(f"{line}  ({interval})" if interval else line)
    if not rows:
        return lines
    for block in side_by_side(_labels(rows), _columns(list(splits), rows)):
        lines += ["", block[0], "-" * len(block[0]), *block[1:]]
    asked = [f"  {task} {score} ({alone})" for task, score, alone in follow_up_scores(results)]
    lines += ["", "asked after another question:", *asked] * bool(asked)
    rules = [f"  {line}" for line in other_rules(splits)]
    return lines + ["", "references by text normaliser:", *rules] * bool(rules)


def write_report(ckpt_dir: Path, place: Path | DataPlace) -> Path:
    """Writes ``curves.png``, ``answers.png`` (if there are pictures) and ``report.html``.

    Args:
        ckpt_dir: a run's output folder, with ``metrics.jsonl`` and ``results.json``; the
            configuration of ``run.json`` and the answers of ``predictions.jsonl`` are shown if
            these files are there.
        place: of the data that the answers belong to.

    Returns:
        path of the page.

    Raises:
        UserError: a file that the report cannot do without is missing or damaged.
    """
    run = read_finished(ckpt_dir)
    answers = ckpt_dir / "predictions.jsonl"
    examples, note = read_gallery(answers, place)
    # Of answers whose data cannot be found from here, an earlier report may have shown more.
    knows_all = DataPlace.of(place).there or not answers.is_file()
    if knows_all:
        write_examples(ckpt_dir, examples)
    diagrams = diagrams_of(run.entries, as_number(run.config, "probe_questions"))
    curves.draw_diagrams(diagrams, ckpt_dir / "curves.png")
    grid = choose_pictures(examples)
    if grid:
        curves.draw_answers(grid, ckpt_dir / "answers.png")
    elif knows_all:
        # One of an earlier report would show another model's answers.
        (ckpt_dir / "answers.png").unlink(missing_ok=True)
    data = ReportData(run, diagrams, examples, note, grid)
    shown = [section for build in SECTIONS if (section := build(data))]
    page = ckpt_dir / REPORT_FILE
    title = ckpt_dir.resolve().name
    write_lines(page, [render_page("report", title, shown, build_opening(data))])
    return page


def _with_priors(rows: list[ScoreRow]) -> list[ScoreRow]:
    """Below each row that has them, the priors as a row of their own."""
    found = []
    for row in rows:
        found.append(row)
        priors = [None if s is None or s.prior is None else Score(s.prior) for s in row.scores]
        if any(priors):
            found.append(ScoreRow(row.task, "prior", "answer prior", row.unit, tuple(priors)))
    return found


def _labels(rows: Sequence[ScoreRow]) -> list[str]:
    """The heading, then of each row its task, where that is another than above, and its name."""
    wide = min(max(4, *(len(row.task) for row in rows)), 32)
    labels = [f"{'task':<{wide}}  {'score':<14}"]
    above = None
    for row in rows:
        labels.append(f"{row.task[:wide] * (row.task != above):<{wide}}  {row.name:<14}")
        above = row.task
    return labels


def _columns(splits: Sequence[str], rows: Sequence[ScoreRow]) -> list[list[str]]:
    """A column for each split, and one for the intervals of the first."""
    columns = [[f"{split[:32]:>9}"] for split in splits]
    for row in rows:
        for column, score in zip(columns, row.scores, strict=True):
            column.append(write_score(score.value if score else None, row.unit))
    intervals = [s and write_interval(s.interval, row.unit) for row in rows for s in row.scores[:1]]
    if any(intervals):
        columns.insert(1, ["95 %", *(interval or "" for interval in intervals)])
    return columns
