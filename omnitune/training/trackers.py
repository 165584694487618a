"""Where a run's numbers go besides ``metrics.jsonl``: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from omnitune.config.settings import read_json_object
from omnitune.sample import UserError
from omnitune.storage import write_json

TRACKER_FILE = "trackers.json"
PROJECT = "omnitune"


class Tracker(Protocol):
    """Takes the numbers of one moment after the other."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes the numbers of a step."""

    def close(self) -> None:
        """Called once, at the end or when the run is stopped."""


class TensorBoard:
    """Event files in the run's folder; what was written after the step begun at is dropped."""

    def __init__(self, folder: Path, settings: dict[str, Any], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds a point to each curve."""
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left."""
        self.board.close()


class Wandb:
    """Weights & Biases: ``WANDB_MODE``, ``WANDB_PROJECT`` and ``WANDB_ENTITY`` hold as usual.

    Without an account or a network the run is kept offline, for ``wandb sync``.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], done: int) -> None:
        wandb = importlib.import_module("wandb")
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "name": folder.name,
            "id": run_id(folder),
            "resume": "allow",
            "dir": str(folder),
            "config": settings,
        }
        try:
            self.run = wandb.init(**options)
        except Exception as error:  # of many kinds: no key, no network, a server's refusal
            print(
                f"wandb: {error}\nwandb: the run is kept offline; "
                f"`wandb sync {folder / 'wandb'}/offline-run-*` uploads it",
                file=sys.stderr,
            )
            self.run = wandb.init(**options, mode="offline")
        # A step of its own: wandb's may not go back to that of a checkpoint.
        self.run.define_metric("*", step_metric="step")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs a row."""
        self.run.log({"step": step, **values})

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


class Trackio:
    """trackio: a local database, shown by ``trackio show``."""

    def __init__(self, folder: Path, settings: dict[str, Any], done: int) -> None:
        trackio = importlib.import_module("trackio")
        # It knows a run by its name alone, so that this must be unlike any other folder's.
        name = f"{folder.name}-{run_id(folder)}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.run = trackio.init(project=project, name=name, resume="allow", config=settings)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs a row."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, dict[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


def check_installed(names: Iterable[str]) -> None:
    """Raises UserError if a tracker that is asked for is not installed."""
    missing = [n for n in names if n not in sys.modules and importlib.util.find_spec(n) is None]
    if missing:
        raise UserError(
            f"trackers: {', '.join(missing)} not installed; install with "
            f"`python -m pip install {' '.join(missing)}`, or leave it out of trackers"
        )


def run_id(folder: Path) -> str:
    """The name of this run for trackers; a resumed run keeps it."""
    path = folder / TRACKER_FILE
    if path.is_file():
        found = read_json_object(path).get("id")
        if isinstance(found, str) and found:
            return found
    fresh = uuid.uuid4().hex[:12]
    write_json(path, {"id": fresh})
    return fresh


class Trackers:
    """The trackers of a run; one that fails is dropped with a warning, training goes on.

    Args:
        folder: of the run.
        settings: its configuration.
        done: steps that were done before.
        warn: says something to the user.
    """

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        settings: dict[str, Any],
        done: int,
        warn: Callable[[str], None],
    ) -> None:
        self.warn = warn
        self.open: dict[str, Tracker] = {}
        for name in names:
            with self._spared(name):
                self.open[name] = TRACKERS[name](folder.resolve(), settings, done)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Sends the numbers of a step to each."""
        for name, tracker in list(self.open.items()):
            with self._spared(name):
                tracker.write(step, values)

    def close(self) -> None:
        """Ends them all."""
        for name, tracker in list(self.open.items()):
            with self._spared(name):
                tracker.close()
        self.open = {}

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """Keeps a failure in other people's code from ending the run."""
        try:
            yield
        except Exception as error:
            self.open.pop(name, None)
            self.warn(f"{name} is left out from here on: {error}")
