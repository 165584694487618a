"""The settings of runs on several processes (``torchrun``)."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from omnitune.config.base import Config, Count
from omnitune.sample import UserError

RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # times that torchrun has started the ranks anew
Mode = Literal["auto", "single", "ddp", "fsdp"]


class OfFirstRank(UserError):
    """What went wrong on rank 0, as the other ranks hear of it: it has been told already."""


def world_size() -> int:
    """Number of processes that were started together; 1 without ``torchrun``."""
    return _number("WORLD_SIZE", 1)


def own_rank() -> int:
    """Number of this process among them."""
    return _number("RANK", 0)


def rank_prefix() -> str:
    """What an error begins with, where several processes could have made it."""
    return f"rank {own_rank()}: " if world_size() > 1 else ""


def restarted() -> bool:
    """Whether ``torchrun`` has started the processes anew, after one of them was lost."""
    return _number(RESTARTS, 0) > 0


def record_failure(reason: str) -> None:
    """Gives torchrun, where it has started this process, what it shows as the reason of its end."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    more = {"py_callstack": reason, "timestamp": str(int(time.time()))}
    with suppress(OSError):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        told = {"message": {"message": reason, "extraInfo": more}}
        Path(path).write_text(json.dumps(told), encoding="utf-8")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise UserError(f"the environment's {name} is {text!r}, expected a number; use torchrun")
    return int(text)


class ParallelSettings(Config):
    """How the processes that ``torchrun`` starts share a run."""

    mode: Mode = "auto"
    """single: one process; ddp: each holds the whole model; fsdp: weights, gradients and the
    optimiser's state are divided among them; auto: ddp where the model fits a device, else fsdp"""
    shard: Count | None = None
    """fsdp: number of processes that the weights are divided among [default: all, or what replicate
    leaves]"""
    replicate: Count | None = None
    """fsdp: number of groups that hold the weights once each, such as one for each machine
    [default: 1, or what shard leaves]"""
    cpu_offload: bool = False
    """fsdp: keep the weights in the machine's memory, and send them to the GPU when they are
    needed"""
    timeout: float = Field(600, gt=0, le=86_400)
    """seconds that a process waits for the others in a step before the run ends with an error"""

    @model_validator(mode="before")
    @classmethod
    def _name_the_place(cls, values: Any) -> Any:
        """Two settings that other programs have in here."""
        for name in ("activation_checkpointing", "compile"):
            if isinstance(values, dict) and name in values:
                raise ValueError(
                    f"{name} is a setting of the run, with one process or many; take it out of "
                    f"parallel and give {name} beside it"
                )
        return values

    def grid(self, size: int) -> tuple[int, int]:
        """Of so many processes: how many share the weights once, and how often they are held."""
        if self.shard is not None:
            return self.shard, self.replicate or max(1, size // self.shard)
        replicate = self.replicate or 1
        return max(1, size // replicate), replicate
