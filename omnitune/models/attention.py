"""Attention over a packed row: causal within each segment, blind across segments.

The projections run on the padding-free row; only the attention itself sees a padded
``[B, L]`` view, where plain causal attention is exact because padding comes last. This costs
about B times less than one masked square over the row. Segments that begin alike are one tree of
the view, under a mask. In half precision on a GPU torch's variable-length attention takes the
segments as they are, without padding, or flash attention 4 does (``flash4``).

Sliding windows, attention sinks and soft-capping are the library's own: a layer that has them hands
them over with each call.

Shape suffixes: H heads, K key-value heads, T row tokens, B trees or segments, L longest of them,
P tokens of all segments, D head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from omnitune.data.segments import Segments
from omnitune.encoders.attention import attend
from omnitune.models.kernels import flash4

NAME = "omnitune_segments"
CAUSAL = (-1, 0)  # window: all that went before, nothing that comes
# What a layer may hand over: what is computed with here, and what changes no result.
KNOWN_OPTIONS = frozenset({"scaling", "segments", "dropout", "sliding_window", "softcap", "s_aux"})
KNOWN_OPTIONS |= {"is_causal", "position_ids", "use_cache", "output_attentions", "logits_to_keep"}


def _load_varlen() -> Callable[..., Any] | None:
    """torch's variable-length attention if it takes our options; asks nothing of a GPU."""
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
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function in the form that ``transformers`` calls.

    Args:
        segments: of the packed row; without them (generation) it is the library's SDPA under the
            given mask.
        sliding_window: how many tokens a token sees, itself included; None for all before it.
        softcap: bound that the scores approach.
        s_aux: a score of each head ``[H]`` that takes a share of attention and gives no value.
    """
    plain = softcap is None and s_aux is None
    if segments is None:
        mask = _windowed(attention_mask, q_1HTD, k_1KTD, sliding_window)
        if (watch := _WATCH.get()) is not None:
            watch.add(q_1HTD, k_1KTD, mask, scaling, softcap, s_aux)
        if plain:
            options = {"scaling": scaling, "dropout": dropout, **kwargs}
            return sdpa_attention_forward(module, q_1HTD, k_1KTD, v_1KTD, mask, **options)
        out = _attend_plainly(q_1HTD, k_1KTD, v_1KTD, mask, scaling, dropout, softcap, s_aux)
        return out.transpose(1, 2).contiguous(), None
    as_wide = q_1HTD.shape[-1] == v_1KTD.shape[-1]
    if plain and as_wide and not dropout and varlen_attn is not None and _suits_varlen(v_1KTD):
        return _attend_unpadded(q_1HTD, k_1KTD, v_1KTD, scaling, segments, sliding_window), None
    scatter_T, gathers, masks = segments.scatter_T, segments.gathers, segments.masks
    if sliding_window is not None:
        masks = [
            _windowed_tree(mask, gather_BL, sliding_window)
            for mask, gather_BL in zip(masks, gathers, strict=True)
        ]
    grouped = q_1HTD.shape[1] != k_1KTD.shape[1]
    padded = (Unpack.apply(x[0], scatter_T, *gathers) for x in (q_1HTD, k_1KTD, v_1KTD))
    outs = [
        attend(q, k, v, mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped)
        if plain and not dropout
        else _attend_plainly(q, k, v, mask, scaling, dropout, softcap, s_aux)
        for q, k, v, mask in zip(*padded, masks, strict=True)
    ]
    return Repack.apply(scatter_T, *outs).unsqueeze(0), None


def _windowed(
    mask: Tensor | None, q_BHLD: Tensor, k_BKLD: Tensor, window: int | None
) -> Tensor | None:
    """The mask of a cache that holds every key, less what the window leaves out.

    Args:
        mask: true or 0 where a query sees a key, ``[B, 1, queries, keys]``; None for causal.
    """
    queries, keys = q_BHLD.shape[2], k_BKLD.shape[2]
    if window is None or keys <= window:
        return mask
    key_L = torch.arange(keys, device=q_BHLD.device)
    behind = key_L[keys - queries :, None] - key_L
    near = behind < window
    if mask is None:
        return (near & (behind >= 0))[None, None]
    return mask & near if mask.dtype == torch.bool else mask.masked_fill(~near, -torch.inf)


def _windowed_tree(mask: Tensor | None, gather_BL: Tensor, window: int) -> Tensor | None:
    """Where a token of a tree sees another within the window; None where that is all before it."""
    longest = gather_BL.shape[1]
    if longest <= window:
        return mask
    if mask is None:
        place_L = torch.arange(longest, device=gather_BL.device)
        behind = place_L[:, None] - place_L
        return (behind >= 0) & (behind < window)
    sees_B1LL = mask == 0
    place_B1L = sees_B1LL.sum(dim=-1)  # within its own segment, whatever stands between in the tree
    return sees_B1LL & (place_B1L[..., :, None] - place_B1L[..., None, :] < window)


def _attend_plainly(
    q_BHLD: Tensor,
    k_BKLD: Tensor,
    v_BKLD: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    s_aux: Tensor | None,
) -> Tensor:
    """Attention written out, for what torch's own does not do; softmax in fp32: ``[B, H, L, D]``.

    Args:
        mask: true or 0 where a query sees a key; None for causal.
    """
    groups = q_BHLD.shape[1] // k_BKLD.shape[1]
    dtype = torch.float32 if q_BHLD.device.type == "cpu" else v_BKLD.dtype
    with torch.autocast(q_BHLD.device.type, enabled=False):
        shares = _shares(q_BHLD.to(dtype), k_BKLD.to(dtype), mask, scaling, softcap, s_aux)
        shares = nn.functional.dropout(shares, dropout)
        v = v_BKLD.to(dtype).repeat_interleave(groups, dim=1)
        return (shares.to(dtype) @ v).to(v_BKLD.dtype)


def _shares(
    q_BHLD: Tensor,
    k_BKLD: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    s_aux: Tensor | None,
) -> Tensor:
    """What part of its attention each query gives each key, in fp32: ``[B, H, queries, keys]``."""
    queries, keys = q_BHLD.shape[2], k_BKLD.shape[2]
    scale = q_BHLD.shape[-1] ** -0.5 if scaling is None else scaling
    if mask is None:
        mask = q_BHLD.new_ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)
    k = k_BKLD.repeat_interleave(q_BHLD.shape[1] // k_BKLD.shape[1], dim=1)
    scores = (q_BHLD @ k.mT).float() * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    scores = scores + mask
    if s_aux is not None:
        sinks = s_aux.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    return scores.softmax(dim=-1)[..., :keys]


class AttentionWatch:
    """Adds up where the attention of the last queries lies.

    Args:
        count: how many queries, from the end, are watched.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._sum_QK: Tensor | None = None
        self._layers = 0

    def add(
        self,
        q_BHLD: Tensor,
        k_BKLD: Tensor,
        mask: Tensor | None,
        scaling: float | None,
        softcap: float | None,
        s_aux: Tensor | None,
    ) -> None:
        """Takes one layer's queries and keys, of one sequence."""
        mask = None if mask is None else mask[..., -self.count :, :]
        last_BHQD = q_BHLD[:, :, -self.count :].float()
        shares = _shares(last_BHQD, k_BKLD.float(), mask, scaling, softcap, s_aux)
        mean_QK = shares[0].mean(dim=0)
        self._sum_QK = mean_QK if self._sum_QK is None else self._sum_QK + mean_QK
        self._layers += 1

    @property
    def mean_QK(self) -> Tensor:
        """What part each of the last queries gave each key, mean over heads and layers."""
        assert self._sum_QK is not None, "nothing was watched"
        return self._sum_QK / self._layers


_WATCH: ContextVar[AttentionWatch | None] = ContextVar("attention_watch", default=None)


@contextmanager
def watched_attention(count: int) -> Iterator[AttentionWatch]:
    """Watches the attention of what this thread computes over one unpacked sequence.

    Args:
        count: how many queries, from the end, are watched.
    """
    watch = AttentionWatch(count)
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


def _suits_varlen(v_1KTD: Tensor) -> bool:
    """What flash attention is written for."""
    half = v_1KTD.dtype in (torch.bfloat16, torch.float16)
    width = v_1KTD.shape[-1]
    return v_1KTD.is_cuda and half and width <= 256 and width % 8 == 0


def _attend_unpadded(
    q_1HTD: Tensor,
    k_1KTD: Tensor,
    v_1KTD: Tensor,
    scaling: float | None,
    segments: Segments,
    sliding_window: int | None = None,
) -> Tensor:
    """``[1, T, H, D]``; queries and keys take the precision of the values, as under autocast."""
    assert varlen_attn is not None
    order_P, place_T = segments.order_P, segments.place_T
    q_PHD, k_PKD, v_PKD = (x[0].transpose(0, 1).to(v_1KTD.dtype) for x in (q_1HTD, k_1KTD, v_1KTD))
    if order_P is not None:
        q_PHD, k_PKD, v_PKD = (x.index_select(0, order_P) for x in (q_PHD, k_PKD, v_PKD))
    longest = max(gather_BL.shape[1] for gather_BL in segments.gathers)
    window = CAUSAL
    if sliding_window is not None and sliding_window < longest:
        window = (sliding_window - 1, 0)
    scale = q_PHD.shape[-1] ** -0.5 if scaling is None else scaling
    if window == CAUSAL and flash4.suits(q_PHD):
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
            window_size=window,
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
