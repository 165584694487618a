"""What is said and refused before the first step: memory, and a plan to hold it against."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import torch

from omnitune.config.sft import SftConfig
from omnitune.data.packing import Batch, Shard
from omnitune.data.samples import Samples
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.storage import machine_memory
from omnitune.training import precision
from omnitune.training.devices import this_device
from omnitune.training.estimate import estimate_run
from omnitune.training.memory import divided, estimate_memory
from omnitune.training.plan_lines import Comparison
from omnitune.training.run import Run

GIB = 2**30
COMPARED = 32  # samples of a source from which a run's own plan is made


def compare_with_plan(
    config: SftConfig, run: Run, cached: Collection[str], before: int
) -> Callable[[float], str]:
    """What holds the first steps of a run against its plan.

    Args:
        cached: modalities that were encoded once, before the first step.
        before: bytes of the process before the model was there.
    """
    assert run.strategy is not None
    plan = estimate_run(
        config,
        cast(OmniModel, run.model),
        run.strategy.stream,
        this_device(run.device),
        cached,
        each=COMPARED,
        bf16=precision.choose_precision(run)[0] == "bf16",
    )
    return Comparison(plan, run.device, before).step


def check_batch(
    config: SftConfig, run: Run, samples: Mapping[str, Samples], truncation: Mapping[str, Any]
) -> None:
    """Refuses a batch that the machine could not hold, before one is made.

    Raises:
        UserError: a step is expected to take more memory than there is.
    """
    records = sum(len(found) for found in samples.values())
    mean = truncation["text"]["whole"] / max(1, records)
    tokens = config.tokens_per_batch or round(mean * config.batch_size)
    bf16 = config.precision != "fp32"
    checkpointed = config.activation_checkpointing
    device = run.device
    on_cpu = device.type == "cpu"
    ranks, model = run.ranks, cast(OmniModel, run.model)
    each = -(-tokens // ranks.world_size)
    terms = estimate_memory(model, each, 0, bf16, checkpointed, on_cpu=on_cpu)
    needed = sum(divided(terms, ranks.shards).values())
    there = (
        torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else machine_memory()
    )
    if needed > there:
        key = "tokens_per_batch" if config.tokens_per_batch else "batch_size"
        raise UserError(
            f"{key} is {getattr(config, key)}: a step would take about {needed / GIB:,.0f} GiB of "
            f"memory, and there are {there / GIB:,.0f}; take a smaller {key} with more "
            "gradient_accumulation"
        )


def log_memory_estimate(config: SftConfig, run: Run) -> None:
    """Says what a step is expected to take of the GPU's memory, and warns if it is not there.

    Judged by the longest of the first few batches.
    """
    first = run.step * config.gradient_accumulation
    ranks = run.ranks
    found = (run.batch_at(first + n, Shard(0, ranks.world_size)) for n in range(4))
    batches = [cast(Batch, batch) for batch in found if batch is not None]
    needed = estimate_memory(
        cast(OmniModel, run.model),
        tokens=max(len(batch.tokens_T) for batch in batches),
        targets=max(len(batch.labels_N) for batch in batches),
        bf16=config.precision != "fp32",
        checkpointed=config.activation_checkpointing,
    )
    needed = divided(needed, ranks.shards)
    there = torch.cuda.mem_get_info(run.device)[0] + torch.cuda.memory_reserved(run.device)
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in needed.items())
    total = sum(needed.values())
    run.log.say(f"memory, in GiB: {parts}; in all {total / GIB:.1f} of {there / GIB:.1f}")
    if total > there:
        run.log.warn(
            "that may not fit: take a smaller batch_size with more gradient_accumulation, or "
            "activation_checkpointing"
        )
