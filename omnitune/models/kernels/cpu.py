"""The thinker's small operators in fewer passes over memory, where they run one by one.

A small model's step on a CPU is mostly operators that read a row and write another. The library's
norm and rotary embedding make eight and ten such passes forward and more backward; these make
three and three, with the same results. A compiler fuses the library's own, and so it is left them.

What a family's operator of that name computes may be something else (Gemma adds one to the norm's
weights, Cohere turns neighbours in place of halves): each is replaced only if it gives the same.

Shape suffixes: D width that is normalised, ``x`` any number of dimensions before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

ROTARY = "apply_rotary_pos_emb"  # its name in every modeling file of the library that has one

replaced = True  # whether these operators are used, or the library's own


class RmsNorm(torch.autograd.Function):
    """``x / rms(x) * weight`` (Zhang and Sennrich 2019) over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        scale = _scale(x, epsilon)
        ctx.save_for_backward(x, scale, weight_D)
        return (x * scale).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
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
            [True, ctx.needs_input_grad[1], False],
        )
        mean = (grad.view(-1, len(weight_D)) @ weight_D).view_as(scale).div_(len(weight_D))
        return dx.add_(mean.mul_(scale)), dweight_D, None


def _scale(x: Tensor, epsilon: float) -> Tensor:
    """By what each row is multiplied to have a mean square of 1: ``[..., 1]``."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()


def rms_norm(x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """``RmsNorm``; where no gradient is asked for, without what keeps one, which costs a third."""
    if torch.is_grad_enabled():
        return RmsNorm.apply(x, weight_D, epsilon)
    return (x * _scale(x, epsilon)).mul_(weight_D)


class Rotary(torch.autograd.Function):
    """Turns the pairs (n, n + D/2) of the last dimension by angles (Su et al. 2021)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        return _turned(x, cos, sin[..., :half], sin[..., half:], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half = grad.shape[-1] // 2
        return _turned(grad, cos, sin[..., half:], sin[..., :half], -1), None, None


def _turned(x: Tensor, cos: Tensor, first: Tensor, second: Tensor, sign: int) -> Tensor:
    """``x`` by ``cos``, and each half less, or more, the other half by its sines."""
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], first, value=-sign)
    y[..., half:].addcmul_(x[..., :half], second, value=sign)
    return y


def install_cpu_kernels(thinker: nn.Module) -> None:
    """Puts these operators in the place of a thinker's own, for every model of its kind.

    In its classes, not its modules: what is compiled for one layer then serves the next. An
    operator of the thinker's that gives another result on random inputs is left as it is, and so
    are all where nothing is computed (torch's meta device is the default).
    """
    if torch.get_default_device().type == "meta":
        return
    others = set()  # classes whose first norm was another; the next hundred would be too
    for module in thinker.modules():
        norm: Any = type(module)
        is_rms = norm.__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
        if is_rms and norm not in others and not hasattr(norm.forward, "__wrapped__"):
            if _same_norm(module):
                norm.forward = _norm(norm.forward)
            else:
                others.add(norm)
        file = sys.modules[type(module).__module__]
        rotary = getattr(file, ROTARY, None)
        if rotary is not None and not hasattr(rotary, "__wrapped__") and _same_rotary(rotary):
            setattr(file, ROTARY, _rotary(rotary))


def _same_norm(module: Any) -> bool:
    """Whether a norm is ``RmsNorm``, in fp32 and in what it makes of bf16."""
    if [name for name, _ in module.named_parameters()] != ["weight"] or module.weight.dim() != 1:
        return False
    draw = torch.Generator().manual_seed(0)
    width = len(module.weight)
    weight = torch.randn(width, generator=draw, device="cpu")
    # Quiet rows too, in which the epsilon counts.
    x = torch.randn(3, width, generator=draw, device="cpu") * torch.tensor([[3.0], [1.0], [1e-3]])

    def library(x: Tensor, weight: Tensor) -> Any:
        return torch.func.functional_call(module, {"weight": weight}, (x,))

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x.float(), weight, module.variance_epsilon)

    return _alike(library, ours, [x, weight]) and _alike(library, ours, [x.bfloat16(), weight])


def _same_rotary(library: Callable[..., Any]) -> bool:
    """Whether a rotary embedding of queries and keys is ``Rotary``."""
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 3, 8, generator=draw, device="cpu") for heads in (4, 2))
    cos, sin = torch.randn(2, 2, 3, 8, generator=draw, device="cpu")
    return _alike(
        lambda q, k: library(q, k, cos, sin),
        lambda q, k: tuple(_turn_both(q, k, cos, sin)),
        [q, k],
    )


def _alike(library: Callable[..., Any], ours: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    """Whether two functions give the same, of the same types, and have the same gradients."""
    results = []
    for function in (library, ours):
        leaves = [x.clone().requires_grad_() for x in inputs]
        try:
            with torch.enable_grad():
                found = function(*leaves)
                outs = list(found) if isinstance(found, tuple) else [found]
                total = torch.stack([(out.float().sin() * 3).sum() for out in outs]).sum()
                grads = torch.autograd.grad(total, leaves)
        except Exception:  # called in another way, whatever it then says
            return False
        results.append([*outs, *grads])
    tolerance = 1e-5 if inputs[0].dtype == torch.float32 else 2e-2
    return len(results[0]) == len(results[1]) and all(
        one.shape == other.shape
        and one.dtype == other.dtype
        and torch.allclose(one, other, rtol=tolerance, atol=tolerance)
        for one, other in zip(*results, strict=True)
    )


def one_by_one(x: Tensor) -> bool:
    """Whether operators run one by one, on a processor."""
    return x.device.type == "cpu" and replaced and not torch.compiler.is_compiling()


def _norm(library: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(library)
    def normalize(module: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        if rest or options or not one_by_one(x) or module.weight.dtype != torch.float32:
            return library(module, x, *rest, **options)
        return rms_norm(x.float(), module.weight, module.variance_epsilon)

    return normalize


def _rotary(library: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(library)
    def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **options: Any) -> Any:
        if rest or options or not one_by_one(q) or cos.shape[-1] != q.shape[-1]:
            return library(q, k, cos, sin, *rest, **options)
        return tuple(_turn_both(q, k, cos, sin))

    return turn


def _turn_both(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
    """Queries and keys ``[B, heads, T, D]`` by angles ``[B, T, D]``."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    both = [x.to(cos.dtype) for x in (q, k)]
    if torch.is_grad_enabled():
        return [Rotary.apply(x, cos, sin) for x in both]
    half = cos.shape[-1] // 2
    sines = (sin[..., :half], sin[..., half:])
    if q.shape[2] > 1:
        return [_turned(x, cos, *sines, 1) for x in both]
    # One token: what an operator costs is its call, so both are one.
    heads = [x.shape[1] for x in both]
    return list(_turned(torch.cat(both, dim=1), cos, *sines, 1).split(heads, dim=1))
