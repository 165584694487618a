"""Attention over a packed row: causal within each segment, blind across segments.

The projections run on the padding-free row; only the attention itself sees a padded
``[B, L]`` view, where plain causal attention is exact because padding comes last. This costs
about B times less than one masked square over the row.

Shape suffixes: H heads, K key-value heads, T row tokens, B segments, L longest segment,
D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from omnitune.data.batching import Segments

NAME = "omnitune_segments"


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
    flat = []
    for gather_BL in segments.gathers:
        out_BHLD = nn.functional.scaled_dot_product_attention(
            _unpack(q_1HTD, gather_BL),
            _unpack(k_1KTD, gather_BL),
            _unpack(v_1KTD, gather_BL),
            is_causal=True,
            scale=scaling,
            enable_gqa=q_1HTD.shape[1] != k_1KTD.shape[1],
        )
        flat.append(out_BHLD.transpose(1, 2).flatten(0, 1))
    return torch.cat(flat).index_select(0, segments.scatter_T).unsqueeze(0), None


def _unpack(x_1HTD: Tensor, gather_BL: Tensor) -> Tensor:
    """``[1, H, T, D]`` of the row to ``[B, H, L, D]``."""
    x_THD = x_1HTD[0].transpose(0, 1)
    x_BLHD = x_THD.index_select(0, gather_BL.flatten()).unflatten(0, gather_BL.shape)
    return x_BLHD.transpose(1, 2)


AttentionInterface.register(NAME, segment_attention)
