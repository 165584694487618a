"""The progress bar that all long work shows, and lines that may be lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from omnitune.storage import NO_ROOM

QUICK = 1.0  # seconds between two lines of progress that say no more than a number


def print_line(text: str, file: TextIO | None = None) -> None:
    """Prints a line at once; one that goes to a full disk is lost, and the work goes on."""
    try:
        print(text, file=file, flush=True)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar with the time left; yields ``advance(n=1, note="")``.

    It goes to standard error, so that what a command prints can be piped. Without a terminal it is
    a line every tenth of the way, so that a log file stays short; what says nothing but a number
    is a second apart, so that quick work is silent.
    """
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
        # Else lines for a file would end in the terminal; there may be no output at all.
        redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
        refresh_per_second=4,
    ) as bars:
        bars.add_task(title, total=total, completed=done, note="")
        task = bars.tasks[0]
        told_at = time.monotonic()

        def advance(n: float = 1, note: str = "") -> None:
            nonlocal told_at
            tenth = 10 * task.completed // max(1, total)
            bars.update(task.id, advance=n, note=note)
            if console.is_terminal or 10 * task.completed // max(1, total) <= tenth:
                return
            if note or time.monotonic() - told_at >= QUICK:
                told_at = time.monotonic()
                told = f"{title}: {task.completed:.0f}/{total:.0f}, {task.time_remaining or 0:.0f}"
                print_line(f"{told} s left {note}".rstrip(), sys.stderr)

        yield advance
