"""Step checkpoints of a divided model: each rank writes its part, by torch.distributed.checkpoint.

A checkpoint is a folder, ``<prefix><step>.dcp``: tensors in safetensors files, one of each rank;
``run.pt`` with the rest; a manifest with the SHA-256 of each. The folder has its name only when all
of it is there. One process and any number of ranks can read it.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from omnitune.sample import UserError
from omnitune.storage import (
    MANIFEST,
    NO_ROOM,
    NoRoomError,
    edit_manifest,
    read_checkpoint,
    read_manifest,
    require_finite,
    sha256,
    sync_folder,
    write_checkpoint,
)
from omnitune.training.run import Run

T = TypeVar("T")
ENDING = ".dcp"
REST = "run.pt"
MODEL, OPTIMISER = "model/", "optimiser/"  # before the names of tensors


def begin_save(
    run: Run, path: Path, model: Mapping[str, Tensor], rest: dict[str, Any]
) -> Callable[[], None]:
    """Copies what a checkpoint holds and begins to write it; every rank calls it.

    Args:
        model: the trained weights, by name.
        rest: what else it holds.

    Returns:
        what waits for the whole, and on rank 0 gives the folder its name; for a thread.
    """
    ranks = cast(Any, run.ranks)
    temporary = path.with_name(path.name + ".tmp")
    problem = None
    if ranks.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            problem = str(error.strerror)
    if problem := ranks.share(problem):  # the folder is there, or it is not

        def refuse() -> None:
            raise _unwritten(path, problem)

        return refuse
    tensors: dict[str, Any] = {MODEL + name: tensor for name, tensor in model.items()}
    names = optimised(run)
    for name, parameter in names.items():
        for key, value in run.optimizer.state[parameter].items():
            tensors[f"{OPTIMISER}{key}/{name}"] = value
    groups = run.optimizer.state_dict()["param_groups"]
    rest = rest | {"optimizer_names": list(names), "optimizer_groups": groups}
    writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
    saving = dcp.async_save(tensors, storage_writer=writer, process_group=ranks.saving)

    def finish() -> None:
        try:
            cast("Future[Any]", saving).result()
            if ranks.rank == 0:
                _finish(temporary, path, rest)
        except (Exception, CheckpointException) as error:  # which is no Exception
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, UserError):
                raise
            raise _unwritten(path, str(error)) from None

    return finish


def _unwritten(path: Path, told: str) -> UserError:
    """What kept a folder from being written, of what torch or the system tells of it."""
    for number in NO_ROOM:
        if (reason := os.strerror(number)) in told:
            return NoRoomError(f"{path}: cannot be written ({reason}); make room and go on")
    return UserError(f"{path}: cannot be written ({reason_of(told)})")


def reason_of(told: object) -> str:
    """The last line of an error, which of a traceback is what went wrong."""
    return str(told).strip().rpartition("\n")[2]


def optimised(run: Run) -> dict[str, nn.Parameter]:
    """The optimiser's weights by name, in its order."""
    names = {id(p): name for name, p in run.model.named_parameters()}
    order = [p for group in run.optimizer.param_groups for p in group["params"]]
    return {names[id(p)]: p for p in order}


def _finish(temporary: Path, path: Path, rest: dict[str, Any]) -> None:
    write_checkpoint(temporary / REST, rest)
    for file in sorted(temporary.glob("*.safetensors")):
        edit_manifest(temporary, file.name, sha256(file))
    if path.exists():
        shutil.rmtree(path)
    temporary.rename(path)
    sync_folder(path.parent)


def read(path: Path) -> dict[str, Any]:
    """What a folder holds, in the form of a checkpoint that is a file; in one process.

    Raises:
        UserError: a file is missing or damaged.
    """
    rest = read_rest(path)
    for file in tensor_files(path):
        check_file(file)
    tensors: dict[str, Tensor] = {
        name: torch.empty(size, dtype=dtype) for name, (size, dtype) in tensor_sizes(path).items()
    }
    load_into(path, tensors)
    model, state = sorted_out(path, tensors, rest.pop("optimizer_names"))
    groups = rest.pop("optimizer_groups")
    return rest | {"model": model, "optimizer": {"state": state, "param_groups": groups}}


def read_rest(path: Path) -> dict[str, Any]:
    """What a folder holds beside the tensors; raises UserError."""
    rest = read_checkpoint(path / REST)
    for key in ("optimizer_names", "optimizer_groups"):
        if key not in rest:
            raise UserError(f"{path / REST}: holds no {key}, so it is of no divided checkpoint")
    return rest


def tensor_files(path: Path) -> list[Path]:
    """The files of a folder's tensors, as its manifest names them, sorted.

    Raises:
        UserError: one is missing, or is there that the manifest does not know.
    """
    files = {file.name for file in path.glob("*.safetensors")}
    wanted = {name for name in read_manifest(path) if name.endswith(".safetensors")}
    if not wanted or wanted - files:
        name = min(wanted - files, default=MANIFEST)
        raise UserError(f"{path}: is damaged ({name} is missing)")
    if unknown := files - wanted:
        raise UserError(f"{path}: is damaged ({min(unknown)} is not in {MANIFEST})")
    return [path / name for name in sorted(wanted)]


def check_file(file: Path) -> None:
    """Whether a file of tensors is as it was written, and each of its numbers is finite.

    One tensor is in memory at a time.

    Raises:
        UserError: it is not.
    """
    try:
        if sha256(file) != read_manifest(file.parent).get(file.name):
            raise UserError(f"{file}: is damaged (its SHA-256 is not that in {MANIFEST})")
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dictionary)
                require_finite(file, opened.get_tensor(name), name)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read ({reason_of(error)})") from None


def tensor_sizes(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """The size and format of each tensor that a folder's files hold together, by its full name.

    Raises:
        UserError: a piece of one is missing.
    """
    found = {}
    try:
        stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
    for name, one in cast("dict[str, Any]", stored).items():
        if sum(chunk.sizes.numel() for chunk in one.chunks) != one.size.numel():
            raise UserError(f"{path}: is damaged (a piece of {name} is missing)")
        found[name] = one.size, one.properties.dtype
    return found


def load_into(path: Path, tensors: dict[str, Tensor]) -> None:
    """Reads a folder's files into tensors; of each divided one what this rank holds of it.

    No rank waits for another.

    Args:
        tensors: by full name; all of them are in the folder, in these sizes.

    Raises:
        UserError: a file cannot be read.
    """
    reader = HuggingFaceStorageReader(str(path))
    try:
        with warnings.catch_warnings():  # that ranks do not talk is as it should be
            warnings.simplefilter("ignore", UserWarning)
            dcp.load(tensors, storage_reader=reader, no_dist=True)
    except (Exception, CheckpointException) as error:  # which is no Exception
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None


def sorted_out(
    path: Path, tensors: Mapping[str, T], names: list[str]
) -> tuple[dict[str, T], dict[int, dict[str, T]]]:
    """What is there of each full name, as a model's state and an optimiser's state by number.

    Args:
        names: those of the optimiser's weights, in its order.

    Raises:
        UserError: there is state of another weight.
    """
    numbers = {name: number for number, name in enumerate(names)}
    model: dict[str, T] = {}
    state: dict[int, dict[str, T]] = {}
    for full, found in tensors.items():
        if full.startswith(OPTIMISER):
            key, _, name = full.removeprefix(OPTIMISER).partition("/")
            if name not in numbers:
                raise UserError(f"{path}: is damaged ({name} is not in the order of {REST})")
            state.setdefault(numbers[name], {})[key] = found
        else:
            model[full.removeprefix(MODEL)] = found
    return model, state


def consolidate_newest(folder: Path) -> Path:
    """Consolidates a checkpoint, or the newest of a run's folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if folder.suffix == ENDING:
        return consolidate(folder)
    found = sorted(folder.glob(f"*step_*{ENDING}"), key=lambda p: int(p.stem.rpartition("_")[2]))
    if not found:
        raise UserError(
            f"{folder}: holds no checkpoint of a divided model (omni_step_N{ENDING}); give the "
            "output folder of a run with parallel.mode fsdp"
        )
    return consolidate(found[-1])


def consolidate(path: Path) -> Path:
    """Writes a folder's content as the file that one process would have saved; returns its path."""
    target = path.with_suffix(".pt")
    write_checkpoint(target, read(path))
    return target
