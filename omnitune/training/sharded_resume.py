"""How the ranks of a divided model go on from a checkpoint, none of which holds all of it.

Of a folder each reads what is its own. Of a file rank 0 reads all, and sends one tensor after the
other. What is wrong with one all ranks hear of, and do the same then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from omnitune.distributed.protocol import Distributed
from omnitune.distributed.sharding import put
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint
from omnitune.training.run import Run
from omnitune.training.sharded_checkpoint import (
    ENDING,
    MODEL,
    OPTIMISER,
    check_file,
    load_into,
    optimised,
    read_rest,
    sorted_out,
    tensor_files,
    tensor_sizes,
)

T = TypeVar("T")
R = TypeVar("R")
Opened = tuple[Callable[[], None], dict[str, Any]]
MEND = "give the settings that the run began with, or --overwrite to train it anew"


def open_together(run: Run, path: Path) -> Opened:
    """Checks a checkpoint; every rank calls it.

    Returns:
        what brings its values into the run, to be called by every rank; and what it holds, the
        same on all ranks, with tensors that have a size and no values (those on the meta device).

    Raises:
        UserError: it is damaged; the same one on all ranks.
    """
    return (_open_folder if path.suffix == ENDING else _open_file)(run, path)


def _open_folder(run: Run, path: Path) -> Opened:
    files = _first(run.ranks, lambda: tensor_files(path))
    _each(run.ranks, check_file, files)
    rest, sizes = _first(run.ranks, lambda: (read_rest(path), tensor_sizes(path)))
    names, own = rest.pop("optimizer_names"), list(optimised(run))
    stored = {n: torch.empty(s, dtype=d, device="meta") for n, (s, d) in sizes.items()}
    model, state = sorted_out(path, stored, names)
    groups = rest.pop("optimizer_groups")
    values = rest | {"model": model, "optimizer": {"state": state, "param_groups": groups}}

    def fill() -> None:
        if names != own:
            other = next(iter(sorted({*names} ^ {*own})), "the same ones in another order")
            raise UserError(f"{path}: is of a run that trains other weights ({other}); {MEND}")
        weights, found = _places(run, path, values)
        tensors = {MODEL + name: tensor for name, tensor in weights.items()}
        for number, by_key in found.items():
            for key, tensor in by_key.items():
                tensors[f"{OPTIMISER}{key}/{names[number]}"] = tensor
        _each(run.ranks, lambda _: load_into(path, tensors), range(run.ranks.world_size))
        run.optimizer.load_state_dict({"state": found, "param_groups": groups})

    return fill, values


def _open_file(run: Run, path: Path) -> Opened:
    whole: dict[str, Any] = {}  # on rank 0 only

    def read() -> dict[str, Any]:
        whole.update(read_checkpoint(path))
        sizes = {key: _without_values(whole[key]) for key in ("model", "optimizer")}
        return whole | sizes

    values = _first(run.ranks, read)

    def fill() -> None:
        weights, found = _places(run, path, values)
        for name, into in weights.items():
            _bring(run, into, whole["model"].pop(name) if whole else None)
        for number, by_key in found.items():
            state = whole["optimizer"]["state"].pop(number) if whole else {}
            for key, into in by_key.items():
                _bring(run, into, state.pop(key, None))
        groups = values["optimizer"]["param_groups"]
        run.optimizer.load_state_dict({"state": found, "param_groups": groups})

    return fill, values


def _bring(run: Run, into: Tensor, whole: Tensor | None) -> None:
    """Writes rank 0's whole tensor into one that may be divided, on every rank."""
    if whole is None:
        whole = torch.empty(into.shape, dtype=into.dtype, device=run.device)
    whole = whole.to(run.device, into.dtype)
    run.ranks.send([whole])
    put(into, whole)


def _places(
    run: Run, path: Path, values: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """The tensors that a checkpoint's values shall come into: the model's and fresh state.

    Raises:
        UserError: they have other sizes in the checkpoint.
    """
    own = run.model.state_dict()
    weights = {name: own[name] for name in values["model"]}
    for name, into in weights.items():
        _require_size(path, name, values["model"][name], into)
    groups = values["optimizer"]["param_groups"], run.optimizer.param_groups
    counts, expected = ([len(group["params"]) for group in each] for each in groups)
    if counts != expected:
        raise UserError(f"{path}: is of a run that trains other weights; {MEND}")
    parameters = list(optimised(run).items())
    state: dict[int, dict[str, Tensor]] = {}
    for number, found in values["optimizer"]["state"].items():
        name, parameter = parameters[number]
        state[number] = {}
        for key, stored in found.items():
            if stored.dim():
                _require_size(path, f"{key} of {name}", stored, parameter)
                state[number][key] = torch.zeros_like(parameter, dtype=stored.dtype)
            else:
                state[number][key] = torch.zeros((), dtype=stored.dtype)
    return weights, state


def _require_size(path: Path, name: str, stored: Tensor, own: Tensor) -> None:
    if stored.shape != own.shape:
        sizes = f"{list(stored.shape)}, expected {list(own.shape)}"
        raise UserError(f"{path}: its {name} has the size {sizes}; {MEND}")


def _without_values(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: _without_values(inner) for key, inner in value.items()}
    return value


def _first(ranks: Distributed, function: Callable[[], R]) -> R:
    """What a function returns on rank 0; a UserError that it raises is raised on all ranks."""
    problem, found = ranks.on_first(lambda: _tried(function))
    if problem:
        raise UserError(problem)
    assert found is not None
    return found


def _each(ranks: Distributed, function: Callable[[T], None], pieces: Sequence[T]) -> None:
    """Calls a function of pieces, shared out; the first UserError is raised on all ranks."""

    def tell(piece: T) -> str:
        return _tried(partial(function, piece))[0]

    problems = ranks.share_out(tell, pieces)
    if problem := ranks.share(next(filter(None, problems), "")):
        raise UserError(problem)


def _tried(function: Callable[[], R]) -> tuple[str, R | None]:
    """What a UserError says that a function raises, and what it returns otherwise."""
    try:
        return "", function()
    except UserError as error:
        return str(error), None
