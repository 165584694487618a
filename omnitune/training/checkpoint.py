"""Step checkpoints: all that a run needs to go on from where it stopped."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnitune.sample import UserError
from omnitune.storage import NoRoomError, edit_manifest, read_checkpoint, write_checkpoint
from omnitune.training.run import Run

_STEP_FILE = re.compile(r"(?:\w+_)?step_\d+\.pt")
# One thread, so that checkpoints are written one after the other.
_WRITER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")


def save(run: Run) -> None:
    """Saves all that is needed to go on, as ``<prefix><step>.pt``; keeps the newest few.

    Training waits for a copy in memory only; the file is written while it goes on.
    """
    finish_saving(run)  # no more than one copy at a time
    run.state["log"] = run.log.sums
    path = run.config.out / f"{run.config.step_prefix}{run.step}.pt"
    values = {
        "step": run.step,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "torch_rng": torch.get_rng_state() if run.rng is None else run.rng,
        "gpu_rng": torch.cuda.get_rng_state() if run.device.type == "cuda" else None,
        "state": run.state,
        "config": run.config.model_dump(mode="json"),
    }
    run.snapshot = copied(values, run.snapshot)
    run.saving = _WRITER.submit(_write, path, run.snapshot, run.config.keep_checkpoints)
    run.saved = run.step


def finish_saving(run: Run, last: bool = False) -> None:
    """Waits until the newest checkpoint is whole on disk.

    A full disk does not end a run, which would lose more: a warning says so, and the next
    checkpoint is tried again.

    Args:
        last: there is no next one: what went wrong is raised.

    Raises:
        UserError: it could not be written.
    """
    saving, run.saving = run.saving, None
    if saving is None:
        return
    try:
        saving.result()
    except UserError as error:
        run.saved = -1
        if last:
            raise
        whole = step_files(run.config.out)
        newest = f"the newest whole one is {whole[-1].name}" if whole else "there is no other one"
        run.log.warn(f"{error}; {newest}")


def _write(path: Path, values: dict[str, Any], keep: int) -> None:
    """Writes a checkpoint; where there is no room, in the place of older ones but the newest."""
    while True:
        older = [old for old in step_files(path.parent) if old != path]
        try:
            write_checkpoint(path, values)
            break
        except NoRoomError:
            if len(older) < 2:
                raise
            _remove(older[0])
    for old in step_files(path.parent)[:-keep]:
        _remove(old)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    edit_manifest(path.parent, path.name, None)


def copied(value: Any, into: Any) -> Any:
    """Nested values whose tensors the next step does not change.

    Args:
        into: the last such copy, written over where it fits: fresh memory costs several times more.
    """
    if isinstance(value, Tensor):
        fits = isinstance(into, Tensor) and (into.shape, into.dtype) == (value.shape, value.dtype)
        return into.copy_(value) if fits else value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        by_key = into if isinstance(into, dict) else {}
        return {key: copied(v, by_key.get(key)) for key, v in value.items()}
    if isinstance(value, list | tuple):
        before = into[: len(value)] if isinstance(into, list | tuple) else ()
        return type(value)(copied(v, old) for v, old in zip_longest(value, before))
    return value


def restore(run: Run) -> bool:
    """Goes on from the newest whole checkpoint of the run's folder; False if there is none."""
    for path in reversed(step_files(run.config.out)):
        try:
            values = read_checkpoint(path)
        except UserError as error:
            run.log.warn(f"{error}; trying the one before")
            continue
        run.model.load_state_dict(values["model"])
        run.optimizer.load_state_dict(values["optimizer"])
        torch.set_rng_state(values["torch_rng"])
        if run.device.type == "cuda" and values.get("gpu_rng") is not None:
            torch.cuda.set_rng_state(values["gpu_rng"])
        run.state.update(values["state"])
        run.step = run.saved = values["step"]
        scored = run.state.get("scored") == run.step  # else that moment is scored once more
        run.log.truncate(run.step if scored else run.step - 1)
        run.log.sums = run.state.pop("log", run.log.sums)
        return True
    run.log.truncate(-1)
    return False


def step_files(folder: Path) -> list[Path]:
    """The step checkpoints of a folder, oldest first."""
    paths = (path for path in folder.glob("*step_*.pt") if is_step_file(path.name))
    return sorted(paths, key=lambda path: (int(path.stem.rpartition("_")[2]), path))


def is_step_file(name: str) -> bool:
    """Whether a step checkpoint could bear this name."""
    return _STEP_FILE.fullmatch(name) is not None
