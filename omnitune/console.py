"""The progress bar that all long work shows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar with the time left; yields ``advance(n=1, note="")``.

    It goes to standard error, so that what a command prints can be piped. Without a terminal it is
    a line every tenth of the way, so that a log file stays short.
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
        redirect_stdout=sys.stdout.isatty(),  # else lines for a file would end in the terminal
        refresh_per_second=4,
    ) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")
        yield _advancer(bars, task, title, console)


def _advancer(bars: Progress, task: TaskID, title: str, console: Console) -> Callable[..., None]:
    total = bars.tasks[task].total or 1
    state = {"done": bars.tasks[task].completed, "tenth": 0.0}
    state["tenth"] = state["done"] * 10 // total
    started, first = time.monotonic(), state["done"]

    def advance(n: int = 1, note: str = "") -> None:
        state["done"] += n
        bars.update(task, advance=n, note=note)
        tenth = state["done"] * 10 // total
        if console.is_terminal or tenth == state["tenth"]:
            return
        state["tenth"] = tenth
        rate = (state["done"] - first) / max(1e-9, time.monotonic() - started)
        left = (total - state["done"]) / max(1e-9, rate)
        print(
            f"{title}: {state['done']:.0f}/{total:.0f}, {left:.0f} s left {note}",
            file=sys.stderr,
            flush=True,
        )

    return advance
