"""Draws diagrams, into a PNG or into a page, and held-out pictures with their answers."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnitune.media.registry import MEDIA
from omnitune.reporting.diagrams import PALETTE, Curve, Diagram
from omnitune.reporting.gallery import Example
from omnitune.reporting.previews import PICTURE_SIDE
from omnitune.sample import UserError

if TYPE_CHECKING:  # matplotlib takes a second to import: only where something is drawn
    from matplotlib.axes import Axes

# By the name of the page's style variable, which takes the colour's place there.
COLOURS = {
    "ink": "#1c2128",
    "muted": "#57606a",
    "line": "#d8dce2",
    "card": "#ffffff",
    "train": "#1f66c1",
    "held": "#b9500b",
    "right": "#1a7f37",
    "wrong": "#c0272d",
    "c1": "#0b6e99",
    "c2": "#c2410c",
    "c3": "#15803d",
    "c4": "#8b3fd9",
    "c5": "#b91c5c",
    "c6": "#7a6a00",
}
_STYLE: Any = {  # matplotlib names every key in its type
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": COLOURS["line"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "text.color": COLOURS["ink"],
    "text.parse_math": False,  # a dollar sign in an answer is a dollar sign
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "omnitune",  # the same run draws the same file
}
# How the line of a role is drawn: those of the palette are told apart without colour too.
_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": COLOURS["train"], "linewidth": 1.4},
    "epoch": {"color": COLOURS["held"], "linewidth": 1.8, "marker": "o", "markersize": 5},
    "probe": {"color": COLOURS["held"], "linewidth": 0.7, "alpha": 0.45},
}
_DASHES = ("-", "--", ":", "-.", (0, (6, 1)), (0, (3, 1, 1, 1)))
for _role, _dashes in zip(PALETTE, _DASHES, strict=True):
    _LINES[_role] = {"color": COLOURS[_role], "linewidth": 1.5, "linestyle": _dashes}
LEGEND_ROW = 14  # points
MANY = 1e4  # times the lowest value of a logarithmic axis
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def draw_diagrams(diagrams: Sequence[Diagram], path: Path) -> None:
    """Draws all the diagrams of a run into one PNG."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = max(1, -(-len(diagrams) // 2))
    with _drawing():
        figure = Figure(figsize=(10, 0.6 + 3.1 * rows), layout="constrained", facecolor="white")
        for n, diagram in enumerate(diagrams):
            axes = figure.add_subplot(rows, 2, n + 1)
            pad = 6 + LEGEND_ROW * _plot(axes, diagram)
            axes.set_title(diagram.title, loc="left", fontsize=11, fontweight="bold", pad=pad)
        roles = {curve.role for diagram in diagrams for curve in diagram.curves}
        words = {role: text for diagram in diagrams for role, text in diagram.legend}
        shown = [role for role in words if role in roles]
        handles = [Line2D([], [], label=words[role], **_LINES[role]) for role in shown]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=130)


def inline_drawings(diagrams: Sequence[Diagram]) -> list[tuple[str, str]]:
    """Title and inline SVG of each diagram; colours are the page's style variables."""
    from matplotlib.figure import Figure

    drawings = []
    for diagram in diagrams:
        with _drawing():
            figure = Figure(figsize=(4.4, 2.6), layout="constrained")
            _plot(figure.add_subplot(), diagram)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
        drawings.append((diagram.title, _inline(buffer.getvalue(), diagram)))
    return drawings


def draw_answers(examples: Sequence[Example], path: Path) -> None:
    """Draws a grid of pictures with question, reference and answer into a PNG."""
    from matplotlib.figure import Figure

    columns = min(4, len(examples))
    rows = -(-len(examples) // columns)
    with _drawing():
        figure = Figure(figsize=(2.66 * columns, 3.9 * rows), facecolor="white")
        # In parts of a picture's height: the room below it has six lines and a margin.
        figure.subplots_adjust(0.06 / columns, 0.36 / rows, 1 - 0.06 / columns, 0.99, 0.06, 0.54)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, example in zip(grid, [*examples, *[None] * (rows * columns)], strict=False):
            axes.axis("off")
            if example is not None:
                _draw_answer(axes, example)
        figure.savefig(path, dpi=130)


def _draw_answer(axes: Axes, example: Example) -> None:
    [medium] = example.media
    try:
        picture = MEDIA[medium.modality].picture(medium.path, PICTURE_SIDE)
    except UserError:
        picture = None
    if picture is None:
        axes.text(0.5, 0.5, "(cannot be shown)", ha="center", color=COLOURS["muted"])
    else:
        axes.imshow(picture, interpolation="nearest")
    prediction = example.prediction
    mark, colour = ("✓", "right") if example.right else ("✗", "wrong")
    answer = f"{mark} answer: {prediction.answer or '(nothing)'}"
    written = 0
    for text, shade, weight in (
        (example.question, "ink", "bold"),
        (f"reference: {prediction.reference}", "muted", "normal"),
        (answer, colour, "normal"),
    ):
        lines = textwrap.wrap(text, 32, max_lines=2, placeholder=" …")
        axes.annotate(
            "\n".join(lines), (0, 0), (0, -6 - 13 * written), "axes fraction", "offset points",
            va="top", color=COLOURS[shade], fontweight=weight, fontsize=9,
        )  # fmt: skip
        written += len(lines)


@contextmanager
def _drawing() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        # A letter that the font lacks becomes a box; that is no news to the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _plot(axes: Axes, diagram: Diagram) -> int:
    """Draws curves, axes and a legend above them; returns the legend's rows."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for step in diagram.marks:
        axes.axvline(step, color=COLOURS["muted"], linewidth=0.8, linestyle=":")
    for curve in diagram.curves:
        _draw_curve(axes, curve)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(left=0)
    axes.tick_params(length=0)
    _scale(axes, diagram)
    for curve in diagram.curves:
        if curve.steps[0] == 0 and curve.role != "train":
            _mark_start(axes, curve)
    labels = [curve.label for curve in diagram.curves if curve.label]
    if not labels:
        return 0
    columns = 2 if max(map(len, labels)) > 11 else 3
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.12, 1.0), ncols=columns, fontsize=8,
        handlelength=2.2, borderaxespad=0.2, labelspacing=0.5, columnspacing=1.6,
    )  # fmt: skip
    return -(-len(labels) // columns)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    style = dict(_LINES[curve.role])
    if len(curve.steps) == 1 or (curve.role in PALETTE and len(curve.steps) <= 30):
        style |= {"marker": "o", "markersize": 3.5}
    axes.plot(curve.steps, curve.values, label=curve.label or "_", **style)
    for step, interval in zip(curve.steps, curve.intervals, strict=False):
        if interval:
            axes.plot([step, step], interval, color=style["color"], linewidth=1.2, alpha=0.8)


def _mark_start(axes: Axes, curve: Curve) -> None:
    """A ring at the score before the first step, and its height along the run."""
    start, (low, high) = curve.values[0], axes.get_ylim()
    colour = _LINES[curve.role]["color"]
    if low <= start <= high:
        ring: dict[str, Any] = {"markerfacecolor": COLOURS["card"], "markersize": 5.5}
        axes.plot(0, start, "o", color=colour, zorder=3, clip_on=False, **ring)
    if curve.role == "epoch" and start <= high:
        axes.axhline(start, color=colour, linewidth=0.8, linestyle=(0, (1, 4)))
    elif curve.role == "epoch":
        words = f"before the first step: {100 * start:,.0f} %"
        axes.text(0.99, 0.97, words, transform=axes.transAxes, ha="right", va="top", fontsize=8)


def _scale(axes: Axes, diagram: Diagram) -> None:
    """The vertical axis: how far it goes and how its numbers are written."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    highest = max(value for curve in diagram.curves for value in curve.values)
    if diagram.unit == "loss":
        _scale_loss(axes, min(value for curve in diagram.curves for value in curve.values), highest)
    elif diagram.unit == "rate":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.1e}" if y else "0"))
        axes.set_ylim(bottom=0)
    else:
        sign = " %" if diagram.unit == "percent" else ""
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}{sign}"))
        if diagram.unit == "points":
            axes.axhline(0, color=COLOURS["muted"], linewidth=0.8)
            axes.set_ylabel("points of percent", fontsize=8)
        elif diagram.from_zero:
            axes.set_ylim(0, min(1.0, max(0.05, 1.08 * highest)) * 1.01)
        if diagram.unit == "percent" and highest > 1:
            axes.set_xlabel("step (values above 100 % are not shown)")


def _scale_loss(axes: Axes, lowest: float, highest: float) -> None:
    """A logarithmic axis where the loss falls far, so that its end can still be read."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if lowest <= 0 or highest < 8 * lowest:
        return
    axes.set_yscale("log")
    subs = (1.0, 3.0) if highest > 100 * lowest else (1.0, 2.0, 3.0, 5.0)
    low, high = axes.get_ylim()
    # Over so many decades numbers between them would crowd, or matplotlib writes none at all.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > MANY * low else subs))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", length=0)


def _inline(svg: str, diagram: Diagram) -> str:
    """Makes matplotlib's SVG file a part of an HTML page: no prologue, own names, own colours.

    Its label says where each line starts and ends, for readers who hear the page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{diagram.key}-", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    words = dict(diagram.legend)
    ends = "; ".join(
        f"{c.label or words.get(c.role, c.role)} starts at {c.values[0]:.3g}, "
        f"ends at {c.values[-1]:.3g}"
        for c in diagram.curves
    )
    label = escape(f"{diagram.title} over steps: {ends}").replace("\\", "\\\\")
    return re.sub(r'width="[^"]*" height="[^"]*"', f'role="img" aria-label="{label}"', svg, count=1)
