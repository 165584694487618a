"""What devices compute and hold, for plans."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from omnitune.config.settings import nearest
from omnitune.sample import UserError
from omnitune.storage import machine_memory
from omnitune.training.precision import has_bf16_units

GIB = 2**30
# Share of the peak that a step reaches. On one GPU a 30M thinker reached 0.41 of it in bf16
# (docs/performance.md); with small batches it is less. A processor is held to its own products.
USED_OF_GPU = 0.35
USED_OF_CPU = 0.6
SIDE = 1024  # of the matrices by which a processor is measured


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        bf16, fp32: floating point operations a second at its peak: dense, without sparsity and
            without TF32. memory: bytes. used: share of the peak that a step is assumed to reach.
    """

    name: str
    bf16: float
    fp32: float
    memory: int
    used: float = USED_OF_GPU
    is_gpu: bool = True


# By NVIDIA's data sheets: H100 (2023), H200 (2024), A100 (2021), L4 and L40S (2023), A10 (2021); of
# the GeForce cards the Ampere GA102, Ada and Blackwell architecture white papers, their rates with
# fp32 accumulation. Rates with sparsity, which the sheets give too, are twice as high.
DEVICES = {
    device.name: device
    for device in (
        Device("h200", 989e12, 67e12, 141 * 10**9),
        Device("h100", 989e12, 67e12, 80 * 10**9),
        Device("a100-80gb", 312e12, 19.5e12, 80 * 10**9),
        Device("a100-40gb", 312e12, 19.5e12, 40 * 10**9),
        Device("l40s", 362e12, 91.6e12, 48 * 10**9),
        Device("l4", 121e12, 30.3e12, 24 * 10**9),
        Device("a10", 125e12, 31.2e12, 24 * 10**9),
        Device("rtx5090", 209.5e12, 104.8e12, 32 * 10**9),
        Device("rtx4090", 165.2e12, 82.6e12, 24 * 10**9),
        Device("rtx3090", 71e12, 35.6e12, 24 * 10**9),
    )
}
HERE = "cpu"  # this machine's processor


def find_device(name: str) -> Device:
    """A device by its name; ``cpu`` is this machine's processor, which is measured.

    Raises:
        UserError: no such device is known.
    """
    key = name.lower().replace(" ", "").replace("_", "-")
    if key == HERE:
        return measure_processor()
    if key not in DEVICES:
        close = nearest(key, DEVICES)
        raise UserError(
            f"--device-name is {name!r}; known: {', '.join([HERE, *DEVICES])}"
            f"{f'; did you mean {close}?' if close else ''}"
        )
    return DEVICES[key]


def this_device(device: torch.device) -> Device:
    """Where a run is; a GPU that is not in the table has rates that are no numbers."""
    if device.type != "cuda":
        return measure_processor()
    name = torch.cuda.get_device_name(device)
    memory = torch.cuda.get_device_properties(device).total_memory
    letters = name.lower().replace(" ", "")
    known = (d for key, d in DEVICES.items() if key.partition("-")[0] in letters)
    rates = next(((d.bf16, d.fp32) for d in known), (math.nan, math.nan))
    return Device(name, *rates, memory)


def measure_processor() -> Device:
    """This machine's processor, by a few products of matrices (a tenth of a second or so)."""
    rates = {}
    for dtype in (torch.float32, torch.bfloat16) if has_bf16_units() else (torch.float32,):
        a = torch.ones(SIDE, SIDE, dtype=dtype)
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - started)
        rates[dtype] = 2 * SIDE**3 / best
    return Device(
        HERE, max(rates.values()), rates[torch.float32], machine_memory(), USED_OF_CPU, False
    )
