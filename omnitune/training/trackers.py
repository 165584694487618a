"""Where a run's numbers go besides ``metrics.jsonl``: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from omnitune.config.settings import read_json_object
from omnitune.sample import UserError
from omnitune.storage import write_json

TRACKER_FILE = "trackers.json"
PROJECT = "omnitune"


class Tracker(NamedTuple):
    """What takes the numbers of one step after the other, and what ends it."""

    write: Callable[[int, dict[str, float]], Any]
    close: Callable[[], Any]


def open_tensorboard(folder: Path, settings: dict[str, Any], done: int) -> Tracker:
    """Event files in the run's folder; what was written after step ``done`` is dropped."""
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(folder / "tensorboard"), purge_step=done)

    def write(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            board.add_scalar(name, value, step)

    return Tracker(write, board.close)


def open_wandb(folder: Path, settings: dict[str, Any], done: int) -> Tracker:
    """Weights & Biases: ``WANDB_MODE``, ``WANDB_PROJECT`` and ``WANDB_ENTITY`` hold as usual.

    Without an account or a network the run is kept offline, for ``wandb sync``.
    """
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
        run = wandb.init(**options)
    except Exception as error:  # of many kinds: no key, no network, a server's refusal
        print(
            f"wandb: {error}\nwandb: the run is kept offline; "
            f"`wandb sync {folder / 'wandb'}/offline-run-*` uploads it",
            file=sys.stderr,
        )
        run = wandb.init(**options, mode="offline")
    # A step of its own: wandb's may not go back to that of a checkpoint.
    run.define_metric("*", step_metric="step")
    return Tracker(lambda step, values: run.log({"step": step, **values}), run.finish)


def open_trackio(folder: Path, settings: dict[str, Any], done: int) -> Tracker:
    """trackio: a local database, shown by ``trackio show``."""
    trackio = importlib.import_module("trackio")
    # It knows a run by its name alone, so that this must be unlike any other folder's.
    name = f"{folder.name}-{run_id(folder)}"
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    run = trackio.init(project=project, name=name, resume="allow", config=settings)
    return Tracker(lambda step, values: run.log(values, step=step), run.finish)


TRACKERS = {"tensorboard": open_tensorboard, "wandb": open_wandb, "trackio": open_trackio}


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
    found = read_json_object(path).get("id") if path.is_file() else None
    if isinstance(found, str) and found:
        return found
    fresh = uuid.uuid4().hex[:12]
    write_json(path, {"id": fresh})
    return fresh


class Trackers:
    """The trackers of a run; one that fails is dropped with a warning, training goes on.

    Args:
        settings: the run's configuration.
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
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for name in names:
            tracker = self._spare(name, TRACKERS[name], folder.resolve(), settings, done)
            if tracker:
                self._open[name] = tracker

    def write(self, step: int, values: dict[str, float]) -> None:
        """Sends the numbers of a step to each."""
        for name, tracker in list(self._open.items()):
            self._spare(name, tracker.write, step, values)

    def close(self) -> None:
        """Ends them all."""
        for name, tracker in list(self._open.items()):
            self._spare(name, tracker.close)

    def _spare(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        """Calls other people's code, whose failure must not end the run; None if it fails."""
        try:
            return call(*inputs)
        except Exception as error:
            self._open.pop(name, None)
            self._warn(f"{name} is left out from here on: {error}")
            return None
