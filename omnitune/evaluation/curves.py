"""The report's pictures: the curves of a run, and held-out pictures with their answers."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnitune.evaluation.page import Exhibit, thumbnail
from omnitune.sample import UserError

if TYPE_CHECKING:  # matplotlib takes a second to import: only where something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By the name of the page's style variable, which takes the colour's place there.
COLOURS = {
    "ink": "#1c2128",
    "muted": "#57606a",
    "line": "#d8dce2",
    "train": "#1f66c1",
    "held": "#b9500b",
    "right": "#1a7f37",
    "wrong": "#c0272d",
}
_STYLE: Any = {  # matplotlib names every key in its type
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "text.color": COLOURS["ink"],
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "omnitune",  # the same run draws the same file
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Panel:
    """One diagram: a key of the scores over the steps."""

    title: str
    key: str
    from_zero: bool = False


PANELS = (
    Panel("Loss", "loss"),
    Panel("Text: token accuracy", "text_acc"),
    Panel("Image QA: exact match", "image_qa_acc", from_zero=True),
    Panel("Transcription: word error rate", "audio_wer", from_zero=True),
)
LEGEND = (
    ("train", "training"),
    ("epoch", "validation, end of epoch"),
    ("probe", "validation in between, few questions"),
)


@dataclass(frozen=True)
class Curve:
    """The points of one line; ``role`` is a first word of ``LEGEND``."""

    role: str
    steps: list[float]
    values: list[float]


def curves_of(entries: Sequence[dict[str, Any]], key: str) -> list[Curve]:
    """The lines of a score, from the entries of ``metrics.jsonl``; without those of no point."""
    epochs = [e for e in entries if e.get("epoch_ended")]
    others = [e for e in entries if not e.get("epoch_ended")]
    curves = [
        _curve("probe", others, "validation", key),
        _curve("epoch", epochs, "validation", key),
        _curve("train", entries, "train", key),
    ]
    return [curve for curve in curves if curve.steps]


def draw_curves(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws all the curves of a run into one PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = [(panel, curves) for panel in PANELS if (curves := curves_of(entries, panel.key))]
    rows = max(1, -(-len(drawn) // 2))
    with rc_context(_STYLE):
        figure = Figure(figsize=(10, 0.6 + 3.1 * rows), layout="constrained", facecolor="white")
        for n, (panel, curves) in enumerate(drawn):
            axes = figure.add_subplot(rows, 2, n + 1)
            axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
            _plot(axes, panel, curves)
        _add_legend(figure, {curve.role for _, curves in drawn for curve in curves})
        figure.savefig(path, dpi=130)


def curve_drawings(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Title and inline SVG of each diagram; colours are the page's style variables."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawings = []
    for panel in PANELS:
        curves = curves_of(entries, panel.key)
        if not curves:
            continue
        with rc_context(_STYLE):
            figure = Figure(figsize=(4.4, 2.6), layout="constrained")
            _plot(figure.add_subplot(), panel, curves)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
        drawings.append((panel.title, _inline(buffer.getvalue(), panel, curves)))
    return drawings


def draw_answers(exhibits: Sequence[Exhibit], path: Path) -> None:
    """Draws a grid of pictures with question, reference and answer into a PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(4, len(exhibits))
    words = [_words(exhibit) for exhibit in exhibits]
    rows = -(-len(exhibits) // columns)
    # In inches: a square picture, and below it as many lines as the longest text has.
    side, gap, line = 2.5, 0.16, 0.185
    row = side + line * (1 + max(map(len, words)))
    width, height = gap + columns * (side + gap), gap + rows * (row + gap)
    with rc_context(_STYLE), warnings.catch_warnings():
        # A letter that the font lacks becomes a box; that is no news to the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), facecolor="white")
        for n, exhibit in enumerate(exhibits):
            left = gap + n % columns * (side + gap)
            top = height - gap - n // columns * (row + gap)
            box = (left / width, (top - side) / height, side / width, side / height)
            _show_picture(figure.add_axes(box), exhibit)
            for k, (text, colour, weight) in enumerate(words[n]):
                # parse_math is off: a dollar sign in an answer is a dollar sign.
                figure.text(
                    left / width, (top - side - 0.07 - k * line) / height, text, va="top",
                    color=COLOURS[colour], fontweight=weight, fontsize=9, parse_math=False,
                )  # fmt: skip
        figure.savefig(path, dpi=130)


def _curve(role: str, entries: Sequence[dict[str, Any]], part: str, key: str) -> Curve:
    points = [(e.get("step"), (e.get(part) or {}).get(key)) for e in entries]
    kept = [
        (float(x), float(y))
        for x, y in points
        if isinstance(x, int | float) and isinstance(y, int | float) and math.isfinite(y)
    ]
    return Curve(role, [x for x, _ in kept], [y for _, y in kept])


def _plot(axes: Axes, panel: Panel, curves: list[Curve]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for curve in curves:
        axes.plot(curve.steps, curve.values, **_line(curve.role, len(curve.steps)))
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    values = [value for curve in curves for value in curve.values]
    if panel.key == "loss":
        _scale_loss(axes, values)
        return
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
    if panel.from_zero:
        axes.set_ylim(0, min(1.0, max(0.05, 1.08 * max(values))) * 1.01)
    if max(values) > 1:
        axes.set_xlabel("step (values above 100 % are not shown)")


def _scale_loss(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis where the loss falls far, so that its end can still be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) <= 0 or max(values) < 8 * min(values):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", length=0)


def _line(role: str, points: int) -> dict[str, Any]:
    if role == "train":
        style: dict[str, Any] = {"color": COLOURS["train"], "linewidth": 1.4}
    elif role == "epoch":
        style = {"color": COLOURS["held"], "linewidth": 1.8, "marker": "o", "markersize": 5}
    else:
        style = {"color": COLOURS["held"], "linewidth": 0.8, "alpha": 0.6}
    return style if points > 1 else {**style, "marker": "o", "markersize": 4}


def _add_legend(figure: Figure, roles: set[str]) -> None:
    from matplotlib.lines import Line2D

    shown = [(role, words) for role, words in LEGEND if role in roles]
    handles = [Line2D([], [], label=words, **_line(role, 2)) for role, words in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def _inline(svg: str, panel: Panel, curves: list[Curve]) -> str:
    """Makes matplotlib's SVG file a part of an HTML page: no prologue, own names, own colours.

    Its label says where each line ends, for readers who hear the page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{panel.key}-", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    words = dict(LEGEND)
    ends = "; ".join(f"{words[c.role]} ends at {c.values[-1]:.3g}" for c in curves)
    label = f"{panel.title} over steps: {ends}"
    return re.sub(r'width="[^"]*" height="[^"]*"', f'role="img" aria-label="{label}"', svg, count=1)


def _show_picture(axes: Axes, exhibit: Exhibit) -> None:
    axes.axis("off")
    medium = next(m for m in exhibit.media if m.modality == "image")
    try:
        picture = thumbnail(medium.path)
    except UserError:
        axes.text(0.5, 0.5, "(cannot be read)", ha="center", color=COLOURS["muted"])
        return
    axes.imshow(picture, interpolation="nearest", aspect="equal")


def _words(exhibit: Exhibit) -> list[tuple[str, str, str]]:
    """Lines of text with colour and weight."""
    prediction = exhibit.prediction
    mark, colour = ("✓", "right") if exhibit.right else ("✗", "wrong")
    answer = f"{mark} answer: {prediction.answer or '(nothing)'}"
    return [
        *((line, "ink", "bold") for line in _wrap(exhibit.question)),
        *((line, "muted", "normal") for line in _wrap(f"reference: {prediction.reference}")),
        *((line, colour, "normal") for line in _wrap(answer)),
    ]


def _wrap(text: str, width: int = 32, lines: int = 2) -> list[str]:
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" …")
