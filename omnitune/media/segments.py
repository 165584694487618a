"""Stretches of a sound, named by the end of its path: ``talk.flac::t=1.5,4.75``.

Both times are in seconds. The second may be left out: ``talk.flac::t=90,`` goes to the end.
"""

from __future__ import annotations

import math
from pathlib import Path

from omnitune.containers.address import parse
from omnitune.sample import UserError

MARK = "::t="


def split_time(path: Path) -> tuple[Path, float, float | None]:
    """The file's own path, and where in it a stretch begins and ends, in seconds.

    Returns:
        ``(path, start, stop)``; of a path that names no stretch ``(path, 0.0, None)``. ``stop`` is
        None where the stretch goes to the end.

    Raises:
        UserError: what follows ``::t=`` is no stretch.
    """
    whole, mark, times = str(path).rpartition(MARK)
    if not mark:
        return path, 0.0, None
    first, comma, last = times.partition(",")
    try:
        start, stop = float(first or 0), float(last) if last else None
    except ValueError:
        start, stop = math.nan, None
    end = math.inf if stop is None else stop
    if not (whole and comma and 0 <= start < end) or stop == math.inf:
        raise UserError(
            f"{path}: expected {MARK}START,STOP in seconds at its end, such as {MARK}1.5,4.75, "
            "and STOP after START"
        )
    return Path(whole), start, stop


def with_time(path: Path, start: float, stop: float | None = None) -> Path:
    """The path of a stretch of a sound; ``stop`` None: to its end. Nothing is checked here."""
    return Path(f"{path}{MARK}{_seconds(start)},{'' if stop is None else _seconds(stop)}")


def file_of(path: Path) -> Path:
    """The file in which a medium lies: without its times and its place in a record."""
    whole = Path(str(path).rpartition(MARK)[0] or path)
    address = parse(whole)
    return address.file if address and not whole.exists() else whole


def _seconds(value: float) -> str:
    """Without an exponent, and to the nanosecond."""
    return f"{value:.9f}".rstrip("0").rstrip(".")
