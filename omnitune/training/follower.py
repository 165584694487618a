"""The log of a rank other than 0: it counts along and writes none of the run's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omnitune.training.progress import RunLog


class FollowerLog(RunLog):
    """Keeps the sums that a checkpoint holds, as rank 0 does."""

    def truncate(self, step: int) -> None:
        """Rank 0 does."""

    @contextmanager
    def training_bar(self, total: int, done: int) -> Iterator[None]:
        """There is no bar, and no tracker."""
        yield

    def _append(self, entry: dict[str, Any]) -> None:
        """Rank 0 does."""
