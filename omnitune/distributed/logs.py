"""Only rank 0 prints; what each rank says is in a file of its own."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

LOGS = "logs"


class RankLog(io.TextIOBase):
    """Keeps what is written until a file is opened for it, and hands it on as well.

    Args:
        beside: where it is written too, or None.
    """

    def __init__(self, beside: TextIO | None) -> None:
        super().__init__()
        self._beside = beside
        self._file: TextIO | None = None
        self._waiting: list[str] = []
        self._lost = False

    def open(self, folder: Path, rank: int) -> None:
        """Goes on in a file of a run's folder; a full disk costs what is in it, not the run."""
        path = folder / LOGS / f"rank_{rank}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors="replace", buffering=1)
        except OSError as error:
            self.write(f"warning: {path}: cannot be written ({error.strerror}); it is left out\n")
            self._lost = True
        else:
            with suppress(OSError):
                self._file.writelines(self._waiting)
        self._waiting.clear()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Writes to the file, or keeps the text for it."""
        if self._beside is not None:
            self._beside.write(text)
        if self._file is not None:
            with suppress(OSError):
                self._file.write(text)
        elif not self._lost:
            self._waiting.append(text)
        return len(text)

    def flush(self) -> None:
        """Lets go of what is kept back."""
        if self._beside is not None:
            self._beside.flush()

    def close(self) -> None:
        """Closes the file, not what is written beside it."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        super().close()


@contextmanager
def logging(rank: int, world_size: int) -> Iterator[RankLog | None]:
    """Rank 0 prints as ever; the others print into their logs only. One process has no log."""
    if world_size == 1:
        yield None
        return
    log = RankLog(sys.stdout if rank == 0 else None)
    with redirect_stdout(log):
        if rank == 0:
            yield log
        else:
            with redirect_stderr(log):
                yield log
    log.close()
