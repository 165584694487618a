"""A plan in words, and beside what a run measures of itself."""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from omnitune.training.rank_costs import rank_lines

MEASURED_STEPS = 20
WARMING = 5  # first steps of these, which make kernels and take memory for the first time
GIB = 2**30


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan as a page of text."""
    lines = ["Parts, in million weights:"]
    for name, counts in plan["parts"].items():
        trained, frozen = counts["trained"] / 1e6, counts["frozen"] / 1e6
        lines.append(f"  {name:<16}{trained:10.2f} trained {frozen:10.2f} frozen")
    lines.append("Samples, means of those measured:")
    for name, kind in plan["samples"].items():
        slots = "".join(f", {n:.0f} slots of {medium}" for medium, n in kind["slots"].items())
        lines.append(
            f"  {name:<16}{kind['tokens']:10.0f} tokens{slots}, {kind['supervised']:.0f} "
            f"supervised; longest {kind['longest']} ({kind['measured']} measured)"
        )
    batch = plan["batch"]
    lines.append(
        f"A batch: {batch['samples']} samples, {batch['tokens']:,.0f} tokens, the largest about "
        f"{batch['largest']:,}; {plan['precision']}"
    )
    lines.append("Memory, in GiB:")
    lines += [f"  {name:<16}{size / GIB:10.3f}" for name, size in plan["memory"].items()]
    there = plan["device_memory"] / GIB
    lines.append(f"  {'in all':<16}{plan['memory_total'] / GIB:10.3f} of {there:.0f}")
    if plan["memory_total"] > plan["device_memory"]:
        lines.append(
            "  that does not fit: take a smaller batch_size with more gradient_accumulation, or "
            "activation_checkpointing"
        )
    if plan.get("feature_cache_bytes"):
        lines.append(f"Feature cache: {plan['feature_cache_bytes'] / GIB:.3f} GiB on disk, at most")
    flops = plan["flops_per_step"]
    parts = ", ".join(f"{name} {count / 1e12:.3g}" for name, count in flops.items())
    lines.append(f"A step: {sum(flops.values()) / 1e12:.3g} TFLOP ({parts})")
    lines.append(
        f"{plan['steps']:,} steps on {plan['device']}: {_time(plan['hours'])}, at "
        f"{plan['step_seconds']:.3g} s a step; assumed are {plan['flops_per_second'] / 1e12:.3g} "
        f"TFLOP/s, {plan['utilisation']:.0%} of its peak. Scores and encoding come on top."
    )
    if "ranks" in plan:
        lines += rank_lines(plan["ranks"])
    return lines


def _time(hours: float) -> str:
    """A time in the unit in which it has digits to show."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} minutes" if hours < 1 else f"{hours:.2f} hours"


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def peak_resident(process: int | str = "self") -> int:
    """Most bytes that a process has held in memory so far.

    Linux's `ru_maxrss` begins at what the parent held when it started the process, so a small
    process of a large one would look large: its own high-water mark is read where there is one.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if process != "self":
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Comparison:
    """Compares the first steps of a run with its plan.

    Args:
        before: resident bytes before the model was there.
    """

    def __init__(self, plan: Mapping[str, Any], device: torch.device, before: int) -> None:
        self.plan, self.device, self.before = plan, device, before
        self.seconds: list[float] = []

    def step(self, seconds: float) -> str:
        """Takes in a step; after the last that is measured, a line."""
        self.seconds.append(seconds)
        if len(self.seconds) != MEASURED_STEPS:
            return ""
        measured = statistics.median(self.seconds[WARMING:])
        planned = self.plan["step_seconds"]
        expected = "unknown" if planned != planned else f"{planned:.3g}"
        return (
            f"after {MEASURED_STEPS} steps: {measured:.3g} s a step (planned "
            f"{expected}), peak memory {self.peak() / GIB:.2f} GiB (planned "
            f"{self.plan['memory_total'] / GIB:.2f})"
        )

    def peak(self) -> int:
        """Most bytes so far: on a GPU those of tensors, on a CPU the growth of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_resident() - self.before
