"""What the output can show: pictures by a protocol or in half-blocks, colours, its size."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image

from omnitune.serving.options import Pictures
from omnitune.serving.terminal import graphics

# By the beginning of TERM, and by other variables with their values ("": any).
BY_TERM: tuple[tuple[str, Pictures], ...] = (
    ("xterm-kitty", "kitty"),
    ("xterm-ghostty", "kitty"),
    ("ghostty", "kitty"),
    ("foot", "sixel"),
    ("mlterm", "sixel"),
    ("contour", "sixel"),
)
BY_VARIABLE: tuple[tuple[str, str, Pictures], ...] = (
    ("TERM_PROGRAM", "ghostty", "kitty"),
    ("TERM_PROGRAM", "iTerm.app", "iterm"),
    ("TERM_PROGRAM", "WezTerm", "iterm"),
    ("TERM_PROGRAM", "mintty", "iterm"),
    ("LC_TERMINAL", "iTerm2", "iterm"),  # it goes along through ssh
    ("KITTY_WINDOW_ID", "", "kitty"),
)
MOST_COLUMNS, MOST_ROWS = 64, 16  # of a picture
CELL = (8, 16)  # pixels of a sign where the terminal does not say


class Size(NamedTuple):
    """Of a terminal: signs, and the pixels of one."""

    columns: int = 80
    rows: int = 24
    cell: tuple[int, int] = CELL


def is_dumb(environ: Mapping[str, str]) -> bool:
    """Whether the terminal understands no control sequence."""
    return environ.get("TERM", "").lower() in ("", "dumb", "unknown")


def wants_colour(environ: Mapping[str, str]) -> bool:
    """Whether colours can be shown and nobody has asked for none (https://no-color.org)."""
    return not is_dumb(environ) and not environ.get("NO_COLOR")


def picture_way(
    setting: Pictures, environ: Mapping[str, str], is_terminal: bool, encoding: str = "utf-8"
) -> Pictures:
    """How pictures are shown; never ``auto``.

    Args:
        setting: anything but ``auto`` is taken as it is.
        environ: tells which terminal it is.
        is_terminal: whether the output is one.
        encoding: of the output.
    """
    if setting != "auto":
        return setting
    if not is_terminal or is_dumb(environ):
        return "none"
    term = environ.get("TERM", "").lower()
    # A multiplexer would have to be told to let pictures through.
    within = "TMUX" in environ or term.startswith(("screen", "tmux"))
    for start, way in BY_TERM:
        if term.startswith(start) and not within:
            return way
    for name, value, way in BY_VARIABLE:
        found = environ.get(name)
        if found and value in ("", found) and not within:
            return way
    coloured = has_true_colour(environ) or "256" in term or term.startswith(("xterm", "tmux"))
    unicode = encoding.lower().replace("-", "").startswith("utf")
    return "blocks" if wants_colour(environ) and coloured and unicode else "none"


def has_true_colour(environ: Mapping[str, str]) -> bool:
    """Whether the terminal shows colours of 24 bits."""
    term = environ.get("TERM", "")
    return environ.get("COLORTERM", "") in ("truecolor", "24bit") or term.endswith("-direct")


def terminal_size() -> Size:
    """Of the terminal that the output is; usual values where that does not say."""
    try:
        import fcntl
        import termios

        found = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        rows, columns, width, height = struct.unpack("HHHH", found)
    except (ImportError, OSError, ValueError, AttributeError):
        return Size()
    cell = (width // columns, height // rows) if columns and rows else CELL
    return Size(columns or 80, rows or 24, cell if all(cell) else CELL)


def drawn(image: Image.Image, way: Pictures, size: Size, environ: Mapping[str, str]) -> str:
    """A picture as what is written to a terminal; "" if it shows none. Its aspect is kept.

    Args:
        way: as :func:`picture_way` says.
    """
    columns = max(4, min(MOST_COLUMNS, size.columns - 1))
    rows = max(2, min(MOST_ROWS, size.rows // 2))
    if way == "blocks":
        return graphics.blocks(_fitted(image, columns, 2 * rows), has_true_colour(environ))
    encoders = {"kitty": graphics.kitty, "iterm": graphics.iterm, "sixel": graphics.sixel}
    if way not in encoders:
        return ""
    wide, high = columns * size.cell[0], rows * size.cell[1]
    small = min(wide // max(1, image.width), high // max(1, image.height))
    if small > 1:  # else a picture of a few pixels would be a speck
        enlarged = (image.width * small, image.height * small)
        image = image.resize(enlarged, Image.Resampling.NEAREST)
    return encoders[way](_fitted(image, wide, high))


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """At most so large, never enlarged."""
    image = image.convert("RGB")
    image.thumbnail((width, height), Image.Resampling.LANCZOS)
    return image


def environment() -> Mapping[str, str]:
    """That of this process."""
    return os.environ
