"""How a run computes: device, precision and whether it is compiled, chosen once.

The last two are kept in the run's state, so that a resumed run goes on as it began.
"""

from __future__ import annotations

import shutil
import statistics
import time
from typing import TYPE_CHECKING

import torch

from omnitune.data.packing import Shard
from omnitune.sample import UserError
from omnitune.training.optim import Muon

if TYPE_CHECKING:
    from omnitune.training.loop import LossBatch, Run

BF16_PAYS = 1.5  # times the rate of fp32 from which on bf16 is chosen on a CPU
TIMED_BATCHES = 6  # that are timed in both precisions
LONG_PASS = 2.0  # seconds; where one takes longer, matrix products decide
# Of torch.compile on a CPU, measured: what it costs at the start and saves of each step. Where
# vectors are shorter than those of AVX-512 it saves next to nothing (docs/performance.md).
COMPILE_SECONDS = 30.0
COMPILE_GAIN = 0.25
COMPILE_PAYS = 1.5  # times its cost that it must save
MATMUL_SIZES = (128, 512, 2048)
MATMUL_SIZES_ON_GPU = (2048, 8192)
WATCHED_STEPS = 20  # steps that are timed before it is decided
WORTH_COMPILING_ON_GPU = 300  # steps


def resolve_precision(run: Run, ranks: int = 1) -> None:
    """Chooses precision and compilation, or takes over what the run began with.

    Args:
        ranks: processes that share a step; they cannot be compiled.
    """
    state = run.state
    why = "as the run began"
    if "precision" not in state:
        asked = run.config.precision
        precision, why = choose_precision(asked, run.device)
        state["products"] = precision
        if (asked, precision, run.device.type) == ("auto", "bf16", "cpu"):
            precision, why = faster_precision(run, ranks, why)
        state["precision"] = precision
    run.log.say(f"precision: {state['precision']} ({why})")
    if isinstance(run.optimizer, Muon):  # its matrices come in few shapes, whatever the batches
        bf16 = state.get("products") == "bf16"
        run.optimizer.products = torch.bfloat16 if bf16 else torch.float32
    if run.compile is None and run.config.compile == "on":
        run.log.warn("compile is on, but nothing of this stage can be compiled")
    if run.compile is None or run.config.compile == "off" or ranks > 1:
        state["compile"] = False
    elif run.config.compile == "on":
        state["compile"] = True
    elif "compile" in state:
        pass  # as the run began
    elif run.device.type == "cuda":
        state["compile"] = run.plan.total_steps - run.step > WORTH_COMPILING_ON_GPU
    elif not compiling_helps():
        state["compile"] = False
    if state.get("compile"):
        _compile(run)


def maybe_compile(run: Run, seconds: float) -> None:
    """Compiles once some steps have shown that the rest of the run will repay it.

    Args:
        seconds: that the last step took.
    """
    if "compile" in run.state or run.compile is None:
        return
    run.pace.append(seconds)
    if len(run.pace) < WATCHED_STEPS:
        return
    left = run.plan.total_steps - run.step
    run.state["compile"] = compile_pays(left, statistics.median(run.pace))
    if run.state["compile"]:
        _compile(run)


def compile_pays(steps: int, seconds_per_step: float) -> bool:
    """Whether compiling saves a multiple of what it costs, on a CPU."""
    return steps * seconds_per_step * COMPILE_GAIN > COMPILE_PAYS * COMPILE_SECONDS


def pick_device(name: str) -> torch.device:
    """The device of a configuration's name; ``auto`` takes a GPU if there is one.

    Raises:
        UserError: there is no GPU, and one was asked for.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU; take --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def compiling_helps() -> bool:
    """Whether this processor runs compiled layers faster, and there is a C++ compiler for them."""
    there = any(shutil.which(name) for name in ("g++", "clang++"))
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512"


def choose_precision(asked: str, device: torch.device) -> tuple[str, str]:
    """``bf16`` or ``fp32``, by what the hardware multiplies faster; and why.

    Args:
        asked: ``auto``, or the answer.
    """
    if asked != "auto":
        return asked, "as configured"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has bf16 units"
        return "fp32", "the GPU has no bf16 units"
    if not has_bf16_units():
        return "fp32", "the processor has no bf16 units"
    ratio = matmul_rate(torch.bfloat16) / matmul_rate(torch.float32)
    why = f"in bf16 a matrix product runs at {ratio:.2g} times the rate of fp32"
    return ("bf16" if ratio >= BF16_PAYS else "fp32"), why


def faster_precision(run: Run, ranks: int, why: str) -> tuple[str, str]:
    """``bf16`` or ``fp32``, by what the run's first micro-batches take in each; and why.

    A fast matrix product is not all: where the matrices are small, what surrounds them takes
    longer in bf16 (rounding up, casts). And where batches cannot be rounded to few shapes, each new
    one costs bf16 the building of a kernel, more than it saves. No weight changes.

    Args:
        ranks: processes that will share a step.
        why: bf16 is fast, which decides where even one pass takes long.
    """
    if run.rounded is None:
        return "fp32", "the batches come in many shapes"
    seconds = {"fp32": 0.0, "bf16": 0.0}
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if ranks == 1 else 1)
    run.model.eval()  # in training, batch norms and dropout would keep what they saw
    try:
        for number in range(TIMED_BATCHES):
            batch = run.batch_at(number, Shard(0, ranks))
            if batch is None:
                continue
            for name in seconds:
                taken = _timed_pass(run, batch, name)
                if taken > LONG_PASS:
                    return "bf16", why
                seconds[name] += min(taken, _timed_pass(run, batch, name))
    finally:
        torch.set_num_threads(threads)
    ratio = seconds["fp32"] / max(seconds["bf16"], 1e-9)
    why = f"in bf16 the first batches run at {ratio:.2g} times the rate of fp32"
    return ("bf16" if ratio > 1 else "fp32"), why


def _timed_pass(run: Run, batch: LossBatch, precision: str) -> float:
    """Seconds of a forward and backward pass."""
    if precision == "bf16":
        assert run.rounded is not None
        batch = run.rounded(batch)
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        losses, _ = run.model(batch)
    losses.sum().backward()
    run.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def matmul_rate(
    dtype: torch.dtype, device: torch.device | str = "cpu", seconds: float = 0.1
) -> float:
    """Best rate (FLOP/s) of a square matrix product, of growing size, in about so many seconds.

    Without bf16 units a large product would take a minute: a small one tells first. The best of
    many counts, as other work on the machine makes single ones slow.
    """
    best = 0.0
    draw = torch.Generator(device).manual_seed(0)  # not the run's own
    sizes = MATMUL_SIZES if torch.device(device).type == "cpu" else MATMUL_SIZES_ON_GPU
    for size in sizes:
        a, b = (torch.rand(size, size, generator=draw, device=device).to(dtype) for _ in "ab")
        ends = time.perf_counter() + seconds / len(sizes)
        fastest = min(_timed_product(a, b) for _ in range(3))  # the first builds the kernel
        while time.perf_counter() < ends:
            fastest = min(fastest, _timed_product(a, b))
        best = max(best, 2 * size**3 / fastest)
        if fastest * 64 > 4 * seconds:  # the next is 64 times the work
            break
    return best


def has_bf16_units() -> bool:
    """Whether the processor multiplies in bf16 by itself."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _timed_product(a: torch.Tensor, b: torch.Tensor) -> float:
    started = time.perf_counter()
    a @ b
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    return time.perf_counter() - started


def _compile(run: Run) -> None:
    assert run.compile is not None
    run.log.say(f"step {run.step}: compiling the model, which takes a minute or two once")
    run.compile()
