"""What a run reports: the live bar, printed lines, ``metrics.jsonl``, trackers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omnitune.config.run import RunConfig
from omnitune.console import print_line, progress_bar
from omnitune.storage import write_lines
from omnitune.training.trackers import Trackers

LOG_FILE = "metrics.jsonl"
BEST_FILE = "omni_best.pt"  # training/best.py writes it
BAD_STEPS_FILE = "bad_steps.jsonl"  # training/numbers.py writes it
# Turns the scores of one moment into the lines that are printed for them.
Formatter = Callable[[int, dict[str, Any]], list[str]]


class RunLog:
    """Collects a run's numbers between two moments of scoring and writes them out.

    Args:
        config: names the folder of ``metrics.jsonl`` and the trackers, and is shown in them.
        groups: names of the loss groups.
        formatter: lines to print for a moment's scores.
        epochs: in the whole run.

    Attributes:
        sums: what was collected since the last scores; a checkpoint keeps it.
    """

    def __init__(
        self, config: RunConfig, groups: list[str], formatter: Formatter, epochs: int
    ) -> None:
        self.config, self.groups, self.formatter, self.epochs = config, groups, formatter, epochs
        self._path = config.out / LOG_FILE
        self._advance: Callable[..., None] = lambda n=1, note="": None
        self._trackers: Trackers | None = None
        self._printed_epoch = 0
        self.sums = self._nothing()

    def _nothing(self) -> dict[str, Any]:
        zeros = [0.0] * len(self.groups)
        return {"loss": zeros, "count": zeros, "seconds": 0.0, "latest": {}}

    def truncate(self, step: int) -> None:
        """Drops what an interrupted run logged after the step that it goes on from."""
        cut_log(self._path, step)

    @contextmanager
    def training_bar(self, total: int, done: int) -> Iterator[None]:
        """Shows the live bar of the run."""
        config, folder = self.config, self.config.out
        folder.mkdir(parents=True, exist_ok=True)
        settings = config.model_dump(mode="json")
        self._trackers = Trackers(config.trackers, folder, settings, done, self.warn)
        try:
            with progress_bar("training", total, done) as advance:
                self._advance = advance
                yield
        finally:
            self._trackers.close()

    def step(
        self, loss_sums: list[float], counts: list[float], seconds: float, **latest: float
    ) -> None:
        """Takes in one step's loss sums and counts, by group."""
        before = self.sums
        self.sums = {
            "loss": [a + b for a, b in zip(before["loss"], loss_sums, strict=True)],
            "count": [a + b for a, b in zip(before["count"], counts, strict=True)],
            "seconds": before["seconds"] + seconds,
            "latest": latest,
        }
        self._advance(1, f"loss {sum(loss_sums) / max(1.0, sum(counts)):.3f}")

    def scores(
        self,
        step: int,
        epoch: int,
        scores: dict[str, Any],
        epoch_ended: bool,
        scoring_seconds: float = 0.0,
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Writes one moment: means since the last one, the held-out scores, and other notes.

        What the scores hold under ``warnings`` is printed as such.
        """
        entry = {
            "step": step,
            "epoch": epoch,
            "epoch_ended": epoch_ended,
            "train": self._trained(),
            "scoring_seconds": round(scoring_seconds, 3),
            "validation": scores,
            **notes,
        }
        self._append(entry)
        if self._trackers is not None:
            values = {k: v for k, v in entry.items() if k not in ("step", "epoch_ended")}
            self._trackers.write(step, dict(_flat(values)))
        if epoch != self._printed_epoch:
            self.say(f"Epoch {epoch}/{self.epochs}:")
            self._printed_epoch = epoch
        for line in self.formatter(step, entry):
            self.say(line)
        for message in scores.get("warnings", ()):
            self.warn(message)
        self.sums = self._nothing()

    def _trained(self) -> dict[str, Any]:
        """Means over the steps since the last scores; without a loss where there was none."""
        sums = self.sums
        by_group = {
            name: {"loss": loss / count, "tokens": count}
            for name, loss, count in zip(self.groups, sums["loss"], sums["count"], strict=True)
            if count
        }
        count = sum(sums["count"])
        loss = {"loss": sum(sums["loss"]) / count} if count else {}
        return {**loss, "sources": by_group, "seconds": round(sums["seconds"], 3), **sums["latest"]}

    def _append(self, entry: dict[str, Any]) -> None:
        """Writes a line; a disk that is full costs the line, not the run."""
        path = self._path
        whole = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            with suppress(OSError):  # the next line shall not be joined to a half one
                os.truncate(path, whole)
            self.warn(f"{path}: cannot be written ({error.strerror}); this line is lost")

    def say(self, message: str) -> None:
        """Prints a line without disturbing the bar."""
        print_line(message)

    def warn(self, message: str) -> None:
        """Prints a warning without disturbing the bar."""
        self.say(f"warning: {message}")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, float(value)


def cut_log(path: Path, step: int) -> None:
    """Drops the lines of a log that were written after a step, and half a line."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            write_lines(path, (line + "\n" for line in kept))


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 2**63  # half a line, from a run that was killed while writing
