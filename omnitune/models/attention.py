"""Attention over a packed row: causal within each segment, blind across segments.

The projections run on the padding-free row; only the attention itself sees a padded
``[B, L]`` view, where plain causal attention is exact because padding comes last. This costs
about B times less than one masked square over the row. Segments that begin alike are one tree of
the view, under a mask. In half precision on a GPU torch's variable-length attention takes the
segments as they are, without padding, or flash attention 4 does (``flash4``).

Shape suffixes: H heads, K key-value heads, T row tokens, B trees or segments, L longest of them,
P tokens of all segments, D head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from omnitune.data.segments import Segments
from omnitune.modalities.attention import attend
from omnitune.models import flash4

NAME = "omnitune_segments"
CAUSAL = (-1, 0)  # window: all that went before, nothing that comes


def _load_varlen() -> Callable[..., Any] | None:
    """torch's variable-length attention where there is a GPU for it, and it takes our options."""
    if not torch.cuda.is_available():
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    options = inspect.signature(varlen_attn).parameters
    if "enable_gqa" in options:
        return varlen_attn

    def without_option(*inputs: Any, enable_gqa: bool, **rest: Any) -> Any:
        """torch 2.11 groups the heads of queries without being told to."""
        return varlen_attn(*inputs, **rest)

    return without_option if {"scale", "window_size"} <= options.keys() else None


varlen_attn = _load_varlen()


def segment_attention(
    module: nn.Module,
    q_1HTD: Tensor,
    k_1KTD: Tensor,
    v_1KTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function in the form that ``transformers`` calls.

    Without ``segments`` (generation) it is the library's SDPA under the given mask.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, q_1HTD, k_1KTD, v_1KTD, attention_mask, scaling=scaling, **kwargs
        )
    if varlen_attn is not None and _suits_varlen(v_1KTD):
        return _attend_unpadded(q_1HTD, k_1KTD, v_1KTD, scaling, segments), None
    grouped = q_1HTD.shape[1] != k_1KTD.shape[1]
    scatter_T, gathers = segments.scatter_T, segments.gathers
    padded = (Unpack.apply(x[0], scatter_T, *gathers) for x in (q_1HTD, k_1KTD, v_1KTD))
    outs = [
        attend(
            q_BHLD, k_BKLD, v_BKLD, mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        for q_BHLD, k_BKLD, v_BKLD, mask in zip(*padded, segments.masks, strict=True)
    ]
    return Repack.apply(scatter_T, *outs).unsqueeze(0), None


def _suits_varlen(v_1KTD: Tensor) -> bool:
    """What flash attention is written for."""
    half = v_1KTD.dtype in (torch.bfloat16, torch.float16)
    width = v_1KTD.shape[-1]
    return v_1KTD.is_cuda and half and width <= 256 and width % 8 == 0


def _attend_unpadded(
    q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor, scaling: float | None, segments: Segments
) -> Tensor:
    """``[1, T, H, D]``; queries and keys take the precision of the values, as under autocast."""
    assert varlen_attn is not None
    order_P, place_T = segments.order_P, segments.place_T
    q_PHD, k_PKD, v_PKD = (x[0].transpose(0, 1).to(v_1KTD.dtype) for x in (q_1HTD, k_1KTD, v_1KTD))
    if order_P is not None:
        q_PHD, k_PKD, v_PKD = (x.index_select(0, order_P) for x in (q_PHD, k_PKD, v_PKD))
    longest = max(gather_BL.shape[1] for gather_BL in segments.gathers)
    scale = q_PHD.shape[-1] ** -0.5 if scaling is None else scaling
    if flash4.suits(q_PHD):
        out_PHD = flash4.attend(q_PHD, k_PKD, v_PKD, segments.bounds_B, longest, scale)
    else:
        out_PHD = varlen_attn(
            q_PHD,
            k_PKD,
            v_PKD,
            segments.bounds_B,
            segments.bounds_B,
            longest,
            longest,
            scale=scale,
            window_size=CAUSAL,
            enable_gqa=q_1HTD.shape[1] != k_1KTD.shape[1],
        )
    return (out_PHD if place_T is None else out_PHD.index_select(0, place_T)).unsqueeze(0)


class Unpack(torch.autograd.Function):
    """``[H, T, D]`` of the row to ``[B, H, L, D]`` of each view.

    Each token stands in one place of the views, so that the gradients are moved back and not added
    up, which takes several times as long. (What stands in padding has none.)
    """

    @staticmethod
    def forward(ctx: Any, x_HTD: Tensor, scatter_T: Tensor, *gathers: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(scatter_T)
        x_THD = x_HTD.transpose(0, 1)
        views = (x_THD.index_select(0, g.flatten()).unflatten(0, g.shape) for g in gathers)
        return tuple(x_BLHD.transpose(1, 2) for x_BLHD in views)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (scatter_T,) = ctx.saved_tensors
        grad_THD = _end_to_end(grads).index_select(0, scatter_T)
        return (grad_THD.transpose(0, 1), None, *(None for _ in grads))


class Repack(torch.autograd.Function):
    """``[B, H, L, D]`` of each view to ``[T, H, D]`` of the row; the other way than ``Unpack``."""

    @staticmethod
    def forward(ctx: Any, scatter_T: Tensor, *views: Tensor) -> Tensor:
        ctx.save_for_backward(scatter_T)
        ctx.shapes = [view.shape for view in views]
        return _end_to_end(views).index_select(0, scatter_T)

    @staticmethod
    def backward(ctx: Any, grad_THD: Tensor) -> tuple[Tensor | None, ...]:
        (scatter_T,) = ctx.saved_tensors
        counts = [count * longest for count, _, longest, _ in ctx.shapes]
        flat = grad_THD.new_zeros(sum(counts), *grad_THD.shape[1:])
        flat.index_copy_(0, scatter_T, grad_THD)
        views = zip(flat.split(counts), ctx.shapes, strict=True)
        return (None, *(x.unflatten(0, (s[0], s[2])).transpose(1, 2) for x, s in views))


def _end_to_end(views: Sequence[Tensor]) -> Tensor:
    """``[B, H, L, D]`` of each view to ``[L..., H, D]`` of all their places."""
    return torch.cat([x_BHLD.transpose(1, 2).flatten(0, 1) for x_BHLD in views])


AttentionInterface.register(NAME, segment_attention)
