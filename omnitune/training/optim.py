"""The optimiser and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from omnitune.config import RunConfig


def build_optimizer(
    model: nn.Module, config: RunConfig, rates: dict[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW over the trainable weights; no decay on norms, biases and other vectors.

    Args:
        rates: peak learning rate by prefix of the parameter's name, where it differs.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trainable(model):
        rate = next(
            (r for prefix, r in (rates or {}).items() if name.startswith(prefix)),
            config.learning_rate,
        )
        is_bias = parameter.ndim < 2 or "bias" in name.rpartition(".")[2]
        decay = 0.0 if is_bias else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(0.9, config.adam_beta2),
        fused=True,
    )


def trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Names and parameters that have gradients."""
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)


def rate_factor(step: int, total: int, warmup: int, floor: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine down to ``floor``.

    A run shorter than twice the warm-up warms up over half of its steps, so that a short trial
    reaches its peak rate at all.
    """
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
