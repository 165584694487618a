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
from typing import Any, cast

import torch
import torch.distributed.checkpoint as dcp
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
    sha256,
    sync_folder,
    write_checkpoint,
)
from omnitune.training.run import Run

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
    names = _optimised(run)
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
    reason = told.strip().rpartition("\n")[2]  # of a traceback
    return UserError(f"{path}: cannot be written ({reason})")


def _optimised(run: Run) -> dict[str, nn.Parameter]:
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
    rest = read_checkpoint(path / REST)
    manifest = read_manifest(path)
    files = {file.name for file in path.glob("*.safetensors")}
    wanted = {name for name in manifest if name.endswith(".safetensors")}
    if not wanted or wanted - files:
        name = min(wanted - files, default=MANIFEST)
        raise UserError(f"{path}: is damaged ({name} is missing)")
    for name in sorted(wanted):
        if sha256(path / name) != manifest[name]:
            raise UserError(f"{path / name}: is damaged (its SHA-256 is not that in {MANIFEST})")
    reader = HuggingFaceStorageReader(str(path))
    tensors: dict[str, Tensor] = {
        name: torch.empty(cast(Any, found).size, dtype=cast(Any, found).properties.dtype)
        for name, found in reader.read_metadata().state_dict_metadata.items()
    }
    with warnings.catch_warnings():  # that there is no process group is as it should be
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    names = rest.pop("optimizer_names")
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        if full.startswith(OPTIMISER):
            key, _, name = full.removeprefix(OPTIMISER).partition("/")
            state.setdefault(names.index(name), {})[key] = tensor
    model = {n.removeprefix(MODEL): t for n, t in tensors.items() if n.startswith(MODEL)}
    return rest | {
        "model": model,
        "optimizer": {"state": state, "param_groups": rest.pop("optimizer_groups")},
    }


def put_values(run: Run, values: Mapping[str, Any]) -> None:
    """Writes the whole weights and optimiser's state of a checkpoint into a divided run."""
    from omnitune.distributed.sharding import divided_like, put

    own = run.model.state_dict()
    for name, tensor in values["model"].items():
        put(own[name], tensor)
    parameters = list(_optimised(run).values())
    state = {
        number: {
            key: divided_like(parameters[number], value) if value.dim() else value
            for key, value in found.items()
        }
        for number, found in values["optimizer"]["state"].items()
    }
    run.optimizer.load_state_dict(values["optimizer"] | {"state": state})


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
