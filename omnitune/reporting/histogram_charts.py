"""The histograms of data: as small bars in the terminal, as drawings on a page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from omnitune.data.audit.histograms import name_of
from omnitune.reporting.page import Block, Section, render_page
from omnitune.reporting.sample_lines import PEAKS, visible
from omnitune.storage import write_lines

SHOWN_ANSWERS = 5  # in the terminal
WIDTH, HEIGHT, FOOT = 320, 120, 16  # of a drawing; the foot holds its numbers
ANSWERS = "answers"


def histogram_lines(histograms: Mapping[str, Mapping[str, Any]], note: str = "") -> list[str]:
    """All histograms as lines, with the most common answers."""
    lines = ["how long samples are, how much is in their media, and what is answered:"]
    lines += [f"  ({note})"] if note else []
    for source, charts in histograms.items():
        lines += ["", f"{source}:"]
        names = [name_of(unit) for unit in charts if unit != ANSWERS]
        left = max(map(len, names), default=0)
        for unit, chart in charts.items():
            if unit != ANSWERS:
                lines.append(f"  {name_of(unit):<{left}}  {_bars(chart)}  {summary(chart)}")
        answers = charts[ANSWERS]
        if answers["count"]:
            lines.append(f"  {about_answers(answers)}:")
        for text, count in answers["common"][:SHOWN_ANSWERS]:
            share = count / answers["count"]
            lines.append(f"    {count:>7,} {share:>6.1%}  {visible(text)}")
    return lines


def summary(chart: Mapping[str, Any]) -> str:
    """A histogram's numbers in words."""
    low, middle, high, most = (_number(chart[key]) for key in ("least", "median", "high", "most"))
    return f"{low} to {most}, half up to {middle}, 95 % up to {high}"


def about_answers(answers: Mapping[str, Any]) -> str:
    """How many answers there are, and how many are different."""
    return f"{answers['count']:,} answers, {answers['different']:,} different; the most common"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def _bars(chart: Mapping[str, Any]) -> str:
    """The counts as small bars; a count above 0 always shows."""
    most = max(chart["counts"])
    return "".join(
        PEAKS[min(len(PEAKS) - 1, count * len(PEAKS) // most)] if count else " "
        for count in chart["counts"]
    )


def write_histogram_page(found: Mapping[str, Any], note: str, path: Path) -> Path:
    """Writes the page of an account's histograms; returns its path."""
    sections = [
        Section(source, _records(found, source), list(_blocks(charts)))
        for source, charts in found["histograms"].items()
    ]
    opening: list[Block] = [("note", {"text": f"Counted are {note}."})] if note else []
    name = Path(str(found["data_dir"])).name or str(found["data_dir"])
    write_lines(path, [render_page("data", name, sections, opening)])
    return path


def _records(found: Mapping[str, Any], source: str) -> str:
    splits = found["sources"].get(source, {})
    return ", ".join(f"{split}: {entry['records']:,} records" for split, entry in splits.items())


def _blocks(charts: Mapping[str, Any]) -> list[Block]:
    drawings = [
        (name_of(unit), drawing(chart, name_of(unit)), summary(chart))
        for unit, chart in charts.items()
        if unit != ANSWERS
    ]
    answers = charts[ANSWERS]
    rows = [[text, f"{n:,}", n / answers["count"]] for text, n in answers["common"]]
    blocks: list[Block] = [("charts", {"drawings": drawings})]
    if rows:
        heads = ["answer", "times", "share"]
        blocks.append(("note", {"text": f"{about_answers(answers)}:"}))
        blocks.append(("table", {"name": "common answers", "heads": heads, "rows": rows}))
    return blocks


def drawing(chart: Mapping[str, Any], name: str) -> str:
    """A histogram as inline SVG; each bar says its numbers when it is pointed at."""
    counts, edges = chart["counts"], chart["edges"]
    step, most = WIDTH / len(counts), max(counts)
    bars = []
    for n, count in enumerate(counts):
        height = max(1.0, count / most * (HEIGHT - 4)) if count else 0.0
        words = f"{_number(edges[n])} to {_number(edges[n + 1])}: {count:,}"
        bars.append(
            f'<rect class="bar" x="{n * step + 1:.1f}" y="{HEIGHT - height:.1f}" '
            f'width="{max(1, step - 2):.1f}" height="{height:.1f}" rx="1">'
            f"<title>{words}</title></rect>"
        )
    ends = (("start", 1, edges[0]), ("end", WIDTH - 1, edges[-1]))
    ticks = [
        f'<text class="tick" x="{x}" y="{HEIGHT + 12}" text-anchor="{anchor}">'
        f"{_number(value)}</text>"
        for anchor, x, value in ends
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{escape(name)}">'
        f'{"".join(bars)}<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f"{''.join(ticks)}</svg>"
    )
