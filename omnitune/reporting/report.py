"""The report of a run: its scoreboard as text, and one page with curves, scores and answers."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from omnitune.evaluation.runs import as_number, read_finished, splits_of, top_split
from omnitune.reporting import curves
from omnitune.reporting.diagrams import diagrams_of
from omnitune.reporting.examples import write_examples
from omnitune.reporting.gallery import choose_pictures, read_gallery
from omnitune.reporting.page import render_page
from omnitune.reporting.sections import SECTIONS, ReportData, build_opening
from omnitune.reporting.tables import (
    Score,
    ScoreRow,
    follow_up_scores,
    headline,
    other_rules,
    score_rows,
    write_interval,
    write_score,
)
from omnitune.reporting.verdict import judge
from omnitune.storage import write_lines

REPORT_FILE = "report.html"
TABLE_WIDTH = 100
_LABEL = 14  # columns of a score's name
_INTERVAL = 11  # columns of an interval

# Of a column of the table: heading, width, place of its scores, whether it holds their intervals.
_Column = tuple[str, int, int, bool]


def scores_table(results: dict[str, Any]) -> list[str]:
    """The final scoreboard as lines for the terminal, at most ``TABLE_WIDTH`` columns wide.

    Args:
        results: the object of ``results.json``; any of its keys may be missing.

    Returns:
        whether the run came out well, the headline numbers of the main split, then a row for each
        task's score and a column for each split (in several blocks, if the splits do not fit side
        by side); beside the main split's column its 95 % intervals; at the end the questions that
        follow others, and where another normaliser than the English one was needed.
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
    tasks = min(max(4, *(len(row.task) for row in rows)), 32)
    columns = _columns(list(splits), rows)
    while columns:
        room = TABLE_WIDTH - tasks - _LABEL - 2
        block: list[_Column] = []
        while columns and (not block or columns[0][1] + 2 <= room):
            block.append(columns.pop(0))
            room -= block[-1][1] + 2
        lines += ["", *_block(rows, block, tasks)]
    asked = [f"  {task} {score} ({alone})" for task, score, alone in follow_up_scores(results)]
    lines += ["", "asked after another question:", *asked] * bool(asked)
    rules = [f"  {line}" for line in other_rules(splits)]
    return lines + ["", "references by text normaliser:", *rules] * bool(rules)


def write_report(ckpt_dir: Path, data_dir: Path) -> Path:
    """Writes ``curves.png``, ``answers.png`` (if there are pictures) and ``report.html``.

    Args:
        ckpt_dir: a run's output folder, with ``metrics.jsonl`` and ``results.json``; the
            configuration of ``run.json`` and the answers of ``predictions.jsonl`` are shown if
            these files are there.
        data_dir: the data that the answers belong to.

    Returns:
        path of the page.

    Raises:
        UserError: a file that the report cannot do without is missing or damaged.
    """
    run = read_finished(ckpt_dir)
    examples, note = read_gallery(ckpt_dir / "predictions.jsonl", data_dir)
    write_examples(ckpt_dir, examples)
    diagrams = diagrams_of(run.entries, as_number(run.config.get("probe_questions")))
    curves.draw_diagrams(diagrams, ckpt_dir / "curves.png")
    grid = choose_pictures(examples)
    if grid:
        curves.draw_answers(grid, ckpt_dir / "answers.png")
    else:
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


def _columns(names: list[str], rows: list[ScoreRow]) -> list[_Column]:
    columns = [(name, min(max(len(name), 9), 32), n, False) for n, name in enumerate(names)]
    if any(row.scores[0] and row.scores[0].interval for row in rows):
        columns.insert(1, ("95 %", _INTERVAL, 0, True))
    return columns


def _block(rows: list[ScoreRow], columns: list[_Column], tasks: int) -> list[str]:
    heads = "".join(f"  {name[:width]:>{width}}" for name, width, _, _ in columns)
    lines = [f"{'task':<{tasks}}  {'score':<{_LABEL}}{heads}"]
    lines.append("-" * len(lines[0]))
    task = None
    for row in rows:
        name = row.task[:tasks] if row.task != task else ""
        values = "".join(f"  {_cell(row, n, is_interval):>{w}}" for _, w, n, is_interval in columns)
        lines.append(f"{name:<{tasks}}  {row.name:<{_LABEL}}{values}".rstrip())
        task = row.task
    return lines


def _cell(row: ScoreRow, n: int, is_interval: bool) -> str:
    score = row.scores[n]
    if is_interval:
        return write_interval(score.interval, row.unit) if score else ""
    return write_score(score.value if score else None, row.unit)
