"""A layer under LoRA in one step on a CPU, where ``peft`` takes many.

peft brings the layer's input to the format of the adapter's weights, autocast brings it back, and
what the adapter gives is scaled and added in passes of its own, forward and backward. Here the
adapter's product is added onto the layer's while it is computed, with the same results.

Shape suffixes: N rows, I and O widths of input and output, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from omnitune.models.kernels import cpu


class LoraProduct(torch.autograd.Function):
    """``x W' + b + s (x A') B'`` (Hu et al. 2021, "LoRA", equation 3); the layer is frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.formats = (x_NI.dtype, a_RI.dtype, b_OR.dtype)
        ctx.scale = scale
        x_NI, weight_OI, a_RI, b_OR = (t.to(dtype) for t in (x_NI, weight_OI, a_RI, b_OR))
        y_NO = nn.functional.linear(x_NI, weight_OI, None if bias_O is None else bias_O.to(dtype))
        h_NR = x_NI @ a_RI.T
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, h_NR)
        return y_NO.addmm_(h_NR, b_OR.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, a_RI, b_OR, h_NR = ctx.saved_tensors
        of_x, of_a, of_b = ctx.formats
        grad_NO = grad_NO.to(x_NI.dtype)
        grad_NR = (grad_NO @ b_OR).mul_(ctx.scale)
        grad_NI = None
        if ctx.needs_input_grad[0]:
            grad_NI = (grad_NO @ weight_OI).addmm_(grad_NR, a_RI).to(of_x)
        grad_RI = (grad_NR.T @ x_NI).to(of_a)
        grad_OR = (grad_NO.T @ h_NR).to(of_b).mul_(ctx.scale)
        return grad_NI, None, None, grad_RI, grad_OR, None, None


def install(layer: Any) -> None:
    """Puts the product in the place of peft's own, for every layer of this kind.

    It serves where a layer has one plain adapter, without dropout or DoRA; peft's own forward pass
    does elsewhere, on a GPU, and where a compiler fuses it.
    """
    kind: Any = type(layer)
    if not hasattr(kind.forward, "__wrapped__"):
        kind.forward = _fused(kind.forward)


def _fused(library: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(library)
    def multiply(layer: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        name = None if rest or options or not cpu.one_by_one(x) else _plain_adapter(layer)
        dtype = None if name is None else _format(layer, x, name)
        if dtype is None:
            return library(layer, x, *rest, **options)
        base = layer.base_layer
        a_RI, b_OR = layer.lora_A[name].weight, layer.lora_B[name].weight
        rows_NI = x.reshape(-1, x.shape[-1])
        scale = layer.scaling[name]
        y_NO = LoraProduct.apply(rows_NI, base.weight, base.bias, a_RI, b_OR, scale, dtype)
        return y_NO.view(*x.shape[:-1], -1)

    return multiply


def _plain_adapter(layer: Any) -> str | None:
    """The name of the one adapter of a frozen linear layer, if it is LoRA and nothing more."""
    names = layer.active_adapters
    if len(names) != 1 or names[0] not in layer.lora_A or type(layer.base_layer) is not nn.Linear:
        return None
    name = names[0]
    dropout = layer.lora_dropout[name]
    plain = (
        not layer.disable_adapters
        and not layer.merged
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and not layer.fan_in_fan_out
        and (not layer.training or isinstance(dropout, nn.Identity) or dropout.p == 0)
        and not any(p.requires_grad for p in layer.base_layer.parameters())
    )
    return name if plain else None


def _format(layer: Any, x: Tensor, name: str) -> torch.dtype | None:
    """In what the product is computed; None where formats are mixed and nothing says."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    weights = (layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight)
    return x.dtype if all(weight.dtype == x.dtype for weight in weights) else None
