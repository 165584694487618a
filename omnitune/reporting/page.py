"""A page: one HTML file that needs no network, in sections that each say how to be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from omnitune.reporting.style import CSS
from omnitune.reporting.tables import (
    Score,
    ScoreRow,
    compare_scores,
    write_interval,
    write_score,
)


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        note: how to read it, in a sentence or two.
        body: HTML, escaped already.
    """

    heading: str
    note: str
    body: str

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return self.heading.lower().replace(" ", "-")


def render_page(kind: str, title: str, opening: str, sections: Sequence[Section]) -> str:
    """Renders a page.

    Args:
        kind: what page it is, such as ``report``.
        opening: HTML between the title and the list of sections.
    """
    links = "".join(f'<a href="#{s.anchor}">{escape(s.heading)}</a>' for s in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} – omnitune {kind}</title>
<style>{CSS}</style>
</head>
<body>
<header><p class="muted">omnitune {kind}</p><h1>{escape(title)}</h1></header>
<main>
{opening}
<nav aria-label="sections">{links}</nav>
{"".join(_section(section) for section in sections)}</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    note = f"{note_line(section.note)}\n" if section.note else ""
    heading = escape(section.heading)
    return (
        f'<section id="{section.anchor}">\n<h2>{heading}</h2>\n{note}{section.body}\n</section>\n'
    )


def note_line(text: str) -> str:
    """How to read something, as a quiet paragraph."""
    return f'<p class="muted">{prose(text)}</p>'


def prose(text: str) -> str:
    """Escaped words in which a number keeps its percent sign at the end of a line."""
    return re.sub(r"[\d.,]+ %", r'<span class="whole">\g<0></span>', escape(text))


def tiles(cells: Sequence[tuple[str, ...]]) -> str:
    """Large numbers: label, value and lines to say below it, which may be empty."""
    shown = []
    for label, value, *below in cells:
        lines = "<br>".join(escape(line) for line in below if line)
        small = f'<dd class="small">{lines}</dd>' if lines else ""
        shown.append(
            f'<div class="tile"><dt>{escape(label)}</dt><dd>{escape(value)}</dd>{small}</div>'
        )
    return f'<dl class="tiles">{"".join(shown)}</dl>'


def figures(drawings: Sequence[tuple[str, str]], legend: Sequence[tuple[str, str]] = ()) -> str:
    """Diagrams side by side: title and SVG (the drawing code's own); class and words of a line."""
    shown = [
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in drawings
    ]
    keys = [f'<li class="{css}">{escape(words)}</li>' for css, words in legend]
    lines = f'<ul class="legend">{"".join(keys)}</ul>\n' if keys else ""
    return f'{lines}<div class="curves">{"".join(shown)}</div>'


def score_table(columns: Sequence[str], rows: Sequence[ScoreRow], mark: bool = False) -> str:
    """A scoreboard, the rows of a task one after the other.

    Args:
        mark: marks the best of each row, and what lies apart from it by the intervals.
    """
    heads = "".join(f'<th scope="col" class="score">{breakable(name)}</th>' for name in columns)
    lines = [f'<thead><tr><th scope="col">task and score</th>{heads}</tr></thead>']
    task = None
    for row in rows:
        if row.task != task:
            lines.append("" if task is None else "</tbody>")
            name = f'<th scope="rowgroup" colspan="{len(columns) + 1}">{breakable(row.task)}</th>'
            lines.append(f'<tbody><tr class="task">{name}</tr>')
            task = row.task
        lines.append(_score_line(row, mark))
    table = "\n".join(lines)
    return scrolled("scoreboard", f'<table style="--splits:{len(columns)}">{table}</tbody></table>')


def _score_line(row: ScoreRow, mark: bool) -> str:
    best, apart = compare_scores(row) if mark else (frozenset(), frozenset())
    cells = []
    for n, score in enumerate(row.scores):
        css = "best" if n in best else "apart" if n in apart else ""
        css = f' class="{css}"' if css else ""
        cells.append(f"<td{css}>{_score_cell(score, row.unit)}</td>")
    css = ' class="kind"' if row.is_kind else ""
    return f'<tr{css}><th scope="row">{breakable(row.name)}</th>{"".join(cells)}</tr>'


def _score_cell(score: Score | None, unit: str) -> str:
    if score is None:
        return "–"
    parts = [f"<b>{_unbroken(write_score(score.value, unit))}</b>"]
    if score.interval:
        parts.append(f"<small>{_unbroken(write_interval(score.interval, unit))}</small>")
    if score.prior is not None:
        prior = write_score(score.prior, unit).removesuffix(" %")
        parts.append(f"<small>prior&nbsp;{escape(prior)}</small>")
    track = share_bar(score.value, score.interval, score.prior) if unit == "percent" else ""
    return f'<div class="cell">{" ".join(parts)}</div>{track}'


def share_bar(
    value: float, interval: tuple[float, float] | None = None, prior: float | None = None
) -> str:
    """A thin bar from 0 to 100 %, with a whisker for an interval and a tick for a prior."""
    marks = [f'<i style="width:{_percent(value)}"></i>']
    if interval:
        low, high = (100 * min(1.0, max(0.0, end)) for end in interval)
        marks.append(f'<u style="left:{low:.1f}%;width:{high - low:.1f}%"></u>')
    if prior is not None:
        marks.append(f'<s style="left:{_percent(prior)}"></s>')
    return f'<span class="track" aria-hidden="true">{"".join(marks)}</span>'


def plain_table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML already; its first column names the rows."""
    top = "".join(f'<th scope="col">{breakable(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return scrolled(name, table)


def scrolled(name: str, table: str) -> str:
    """A table that scrolls on its own where the screen is narrow."""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{table}</div>'
    )


def pairs(values: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    lines = [
        f"<div><dt>{breakable(name)}</dt><dd>{escape(value).replace('/', '/<wbr>')}</dd></div>"
        for name, value in values
    ]
    return f'<dl class="pairs">{"".join(lines)}</dl>'


def breakable(name: str) -> str:
    """Escaped, and allowed to break after an underscore, a dot or a slash."""
    name = escape(name)
    for mark in "_./":
        name = name.replace(mark, f"{mark}<wbr>")
    return name


def _percent(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.1f}%"


def _unbroken(text: str) -> str:
    return escape(text).replace(" ", "&nbsp;")
