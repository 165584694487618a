"""The thinker's small operators in fewer passes over memory, where they run one by one.

A small model's step on a CPU is mostly operators that read a row and write another. The library's
norm and rotary embedding make eight and ten such passes forward and more backward; these make
three and three, with the same results. A compiler fuses the library's own, and so it is left them.

Shape suffixes: D width that is normalised, ``x`` any number of dimensions before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

ROTARY = "apply_rotary_pos_emb"  # its name in every modeling file of the library that has one


class RmsNorm(torch.autograd.Function):
    """``x / rms(x) * weight`` (Zhang and Sennrich 2019) over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scale, weight_D)
        return (x * scale).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """That of a layer norm whose mean is zero, without its share of the mean."""
        x, scale, weight_D = ctx.saved_tensors
        grad = grad.contiguous()
        dx, dweight_D, _ = torch.ops.aten.native_layer_norm_backward(
            grad,
            x,
            weight_D.shape,
            torch.zeros_like(scale),
            scale,
            weight_D,
            None,
            [True, True, False],
        )
        mean = (grad.view(-1, len(weight_D)) @ weight_D).view_as(scale).div_(len(weight_D))
        return dx.add_(mean.mul_(scale)), dweight_D, None


class Rotary(torch.autograd.Function):
    """Turns the pairs (n, n + D/2) of the last dimension by angles (Su et al. 2021)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """``cos`` and ``sin`` hold each angle twice, once for each of its pair."""
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return y


def hasten(thinker: nn.Module) -> None:
    """Puts these operators in the place of a thinker's own, for every model of its kind.

    In its classes, not its modules: what is compiled for one layer then serves the next.
    """
    for module in thinker.modules():
        norm: Any = type(module)
        is_rms = norm.__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
        if is_rms and not hasattr(norm.forward, "__wrapped__"):
            norm.forward = _norm(norm.forward)
        file = sys.modules[type(module).__module__]
        rotary = getattr(file, ROTARY, None)
        if rotary is not None and not hasattr(rotary, "__wrapped__"):
            setattr(file, ROTARY, _rotary(rotary))


def _one_by_one(x: Tensor) -> bool:
    """Whether operators run one by one, on a processor."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _norm(library: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(library)
    def normalize(module: Any, x: Tensor) -> Tensor:
        if not _one_by_one(x) or module.weight.dtype != torch.float32:
            return library(module, x)
        return RmsNorm.apply(x.float(), module.weight, module.variance_epsilon)

    return normalize


def _rotary(library: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(library)
    def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **options: Any) -> Any:
        if rest or options or not _one_by_one(q) or cos.shape[-1] != q.shape[-1]:
            return library(q, k, cos, sin, *rest, **options)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return tuple(Rotary.apply(x.to(cos.dtype), cos, sin) for x in (q, k))

    return turn
