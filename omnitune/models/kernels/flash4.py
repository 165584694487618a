"""Flash attention 4 over a row of segments, on a Hopper GPU where ``flash-attn-4`` is installed.

torch's own attention of this sort runs flash attention 2, which was written for the generation
before. torch can put the newer kernels in its place (``activate_flash_attention_impl``), but then
for every attention of the process, and an input that they do not take becomes an error.

Shape suffixes: P tokens of all segments, B segments, H heads, K key-value heads, D head width.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

HOPPER = (9, 0)
WIDTH = 128  # of a head: what the kernels were tried with here

kernels: Any = None  # what ``load`` finds


@cache
def load() -> Any:
    """The package's module, or None; looked for once, then kept as ``kernels``.

    Not at import: to ask which GPU there is initialises CUDA, and a run may be meant for the CPU.
    """
    global kernels
    if torch.cuda.is_available() and torch.cuda.get_device_capability() == HOPPER:
        with suppress(ImportError):
            kernels = importlib.import_module("flash_attn.cute.interface")
    return kernels


def suits(q_PHD: Tensor) -> bool:
    """Whether these kernels are there and take such queries."""
    if not torch.compiler.is_compiling():  # before anything is compiled they are loaded
        load()
    return q_PHD.shape[-1] == WIDTH and kernels is not None


def attend(
    q_PHD: Tensor, k_PKD: Tensor, v_PKD: Tensor, bounds_B: Tensor, longest: int, scale: float
) -> Tensor:
    """Causal attention within each segment, blind across them: ``[P, H, D]``.

    Args:
        bounds_B: where each segment begins, and where the last ends (int32).
        longest: tokens of the longest segment, or more.
    """
    rows = (x.contiguous() for x in (q_PHD, k_PKD, v_PKD))
    return _forward(*rows, bounds_B, longest, scale)[0]


def _segments(bounds_B: Tensor, longest: int, scale: float) -> dict[str, Any]:
    return {
        "softmax_scale": scale,
        "causal": True,
        "cu_seqlens_q": bounds_B,
        "cu_seqlens_k": bounds_B,
        "max_seqlen_q": longest,
        "max_seqlen_k": longest,
    }


# Operators of their own: what is compiled around them sees each as a whole.
@torch.library.custom_op("omnitune::flash4", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = kernels._flash_attn_fwd(
        q, k, v, return_lse=True, **_segments(bounds, longest, scale)
    )[:2]
    return out, lse


@_forward.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("omnitune::flash4_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bounds: Tensor,
    longest: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = kernels._flash_attn_bwd(
        q, k, v, out, grad, lse, **_segments(bounds, longest, scale)
    )[:3]
    return dq, dk, dv


@_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bounds, ctx.longest, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, bounds)


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, bounds = ctx.saved_tensors
    grads = _backward(grad.contiguous(), q, k, v, out, lse, bounds, ctx.longest, ctx.scale)
    return (*grads, None, None, None)


_forward.register_autograd(_gradients, setup_context=_keep)
