"""Step checkpoints: all that a run needs to go on from where it stopped.

Weights that are never trained in a run are not in them: a run that goes on has them from where it
had them at first.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import zip_longest
from math import isclose, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnitune.sample import UserError
from omnitune.storage import NoRoomError, edit_manifest, read_checkpoint, write_checkpoint
from omnitune.training import sharded_checkpoint
from omnitune.training.progress import BAD_STEPS_FILE, cut_log
from omnitune.training.run import Run

_STEP_FILE = re.compile(r"(?:\w+_)?step_\d+\.(?:pt|dcp)")
SAME_SUM = 1e-6  # relative difference up to which sums are those of the same weights
# One thread, so that checkpoints are written one after the other.
_WRITER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")


def save(run: Run) -> None:
    """Saves all that is needed to go on, as ``<prefix><step>.pt``; keeps the newest few.

    Training waits for a copy in memory only; the file is written while it goes on.
    """
    if not run.ranks.saves:
        run.saved = run.step
        return
    finish_saving(run)  # no more than one copy at a time
    run.state["log"] = run.log.sums
    ending = sharded_checkpoint.ENDING if run.ranks.sharded else ".pt"
    path = run.config.out / f"{run.config.step_prefix}{run.step}{ending}"
    values: dict[str, Any] = {
        "step": run.step,
        "frozen": frozen_sums(run),
        "torch_rng": torch.get_rng_state() if run.rng is None else run.rng,
        "gpu_rng": torch.cuda.get_rng_state() if run.device.type == "cuda" else None,
        "state": run.state,
        "config": run.config.model_dump(mode="json"),
    }
    # Steps without numbers may have spoilt what no update changes, such as a norm's statistics:
    # the last good checkpoint must not give way to theirs.
    keep = run.config.keep_checkpoints + run.state.get("bad_in_a_row", 0)
    if run.ranks.sharded:
        if run.ranks.rank == 0:
            make_room(path.parent)
        finish = sharded_checkpoint.begin_save(run, path, trained_state(run), copied(values, None))
        run.saving = _WRITER.submit(_finish_sharded, finish, path, keep, run.ranks.rank == 0)
    else:
        values |= {"model": trained_state(run), "optimizer": run.optimizer.state_dict()}
        run.snapshot = copied(values, run.snapshot)
        run.saving = _WRITER.submit(_write, path, run.snapshot, keep)
    run.saved = run.step


def trained_state(run: Run) -> dict[str, Tensor]:
    """The model's state without the weights that are never trained: those of no optimiser."""
    frozen = _frozen(run)
    return {name: t for name, t in run.model.state_dict().items() if name not in frozen}


def _frozen(run: Run) -> dict[str, Tensor]:
    """Weights that are not trained in any phase of a run, by each of their names."""
    trained = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    named = run.model.named_parameters(remove_duplicate=False)
    return {name: weight for name, weight in named if id(weight) not in trained}


def frozen_sums(run: Run) -> dict[str, float]:
    """Of each weight that is never trained the sum of its amounts, by which it is known again.

    Not a digest: a processor of another kind may round a weight that is made at the start, such as
    that of a new token, in another way.
    """
    if run.frozen is None:
        run.frozen = {
            name: _number(weight.detach().abs().sum(dtype=torch.float64))
            for name, weight in _frozen(run).items()
        }
    return run.frozen


def _number(value: Tensor) -> float:
    """A tensor's only value; of one that is divided, over all ranks."""
    return float(value.full_tensor() if hasattr(value, "full_tensor") else value)


def finish_saving(run: Run, last: bool = False, leaving: bool = False) -> None:
    """Waits until the newest checkpoint is whole on disk.

    A full disk does not end a run, which would lose more, unless ``on_full_disk`` says so: a
    warning tells of it, and the next checkpoint is tried again. Those before stay as they are.

    Args:
        last: there is no next one: what went wrong is raised.
        leaving: the run is ending for another reason, which is what its user shall hear.

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
        told = f"{error}; {whole_files(run)}"
        full = isinstance(error, NoRoomError)
        if full and run.config.on_full_disk == "stop" and not leaving:
            raise NoRoomError(f"{told}; the run stops, as on_full_disk is stop") from None
        run.log.warn(told)


def whole_files(run: Run) -> str:
    """Says from where a run could go on."""
    whole = step_files(run.config.out)
    return f"the newest whole one is {whole[-1].name}" if whole else "there is no other one"


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


def make_room(folder: Path) -> None:
    """Removes older checkpoints, the newest excepted, until one of its size has room.

    Before a divided model is written: to write it once more would take all ranks.
    """
    *older, newest = step_files(folder) or [folder]
    size = sum(file.stat().st_size for file in newest.glob("*"))
    while older and shutil.disk_usage(folder).free < size:
        _remove(older.pop(0))


def _finish_sharded(finish: Callable[[], None], path: Path, keep: int, removes: bool) -> None:
    finish()
    for old in step_files(path.parent)[:-keep] if removes else ():
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # no room: an entry without its file does no harm
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
    """Goes on from the newest whole checkpoint of the run's folder; False if there is none.

    Raises:
        UserError: it is of a run that trains other weights, or beside other frozen ones.
    """
    # Of a divided model all ranks have to try the same ones, whatever each of them sees.
    for path in reversed(run.ranks.share(step_files(run.config.out))):
        try:
            fill, values = _opened(run, path)
        except UserError as error:
            run.log.warn(f"{error}; trying the one before")
            continue
        _check_weights(path, run, values)
        fill()
        torch.set_rng_state(values["torch_rng"])
        if run.device.type == "cuda" and values.get("gpu_rng") is not None:
            torch.cuda.set_rng_state(values["gpu_rng"])
        run.state.update(values["state"])
        run.step = run.saved = values["step"]
        scored = run.state.get("scored") == run.step  # else that moment is scored once more
        run.log.truncate(run.step if scored else run.step - 1)
        cut_log(run.config.out / BAD_STEPS_FILE, run.step)
        run.log.sums = run.state.pop("log", run.log.sums)
        return True
    run.log.truncate(-1)
    cut_log(run.config.out / BAD_STEPS_FILE, 0)
    return False


def _opened(run: Run, path: Path) -> tuple[Callable[[], None], dict[str, Any]]:
    """What brings a checkpoint's tensors into a run, and what the checkpoint holds.

    Of a divided run it has of the tensors their sizes only.

    Raises:
        UserError: it is damaged; on all ranks of a divided run.
    """
    if run.ranks.sharded:
        from omnitune.training import sharded_resume  # one process needs none of it

        return sharded_resume.open_together(run, path)
    is_folder = path.suffix == sharded_checkpoint.ENDING
    values = (sharded_checkpoint.read if is_folder else read_checkpoint)(path)

    def fill() -> None:
        run.model.load_state_dict(values["model"], strict=False)
        run.optimizer.load_state_dict(values["optimizer"])

    return fill, values


def _check_weights(path: Path, run: Run, values: dict[str, Any]) -> None:
    """Whether a checkpoint has every weight that is trained, and the others are as they were."""
    expected, found = trained_state(run).keys(), values["model"].keys()
    mend = "give the parts and settings that the run began with, or --overwrite to train it anew"
    if missing := sorted(expected - found):
        raise UserError(f"{path}: holds no {missing[0]}, which this run trains; {mend}")
    if unknown := sorted(found - run.model.state_dict().keys()):
        raise UserError(f"{path}: holds {unknown[0]}, which this model does not have; {mend}")
    here = frozen_sums(run)
    for name, before in values.get("frozen", {}).items():  # older ones hold the weights themselves
        if not isclose(before, here.get(name, nan), rel_tol=SAME_SUM):
            raise UserError(f"{path}: the frozen {name} has other values than it had then; {mend}")


def step_files(folder: Path) -> list[Path]:
    """The step checkpoints of a folder, oldest first."""
    paths = (path for path in folder.glob("*step_*") if is_step_file(path.name))
    return sorted(paths, key=lambda path: (step_of(path), path))


def step_of(path: Path) -> int:
    """The step of a step checkpoint, by its name."""
    return int(path.stem.rpartition("_")[2])


def is_step_file(name: str) -> bool:
    """Whether a step checkpoint could bear this name."""
    return _STEP_FILE.fullmatch(name) is not None
