"""Attention in the precision that is fast where it runs; encoders call it by its name.

Shape suffixes: B sequences, H heads, L their length, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "omnitune_plain"


def attend(
    q_BHLD: Tensor,
    k_BHLD: Tensor,
    v_BHLD: Tensor,
    attn_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """torch's attention; on a CPU always in fp32.

    Its backward pass for CPUs takes several times as long in bf16, AMX or not (torch 2.13, heads
    of 32: docs/log.md), and autocast would choose bf16.
    """
    sdpa = nn.functional.scaled_dot_product_attention
    if q_BHLD.device.type != "cpu":
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(q_BHLD.dtype)
        return sdpa(q_BHLD, k_BHLD, v_BHLD, attn_mask=attn_mask, **options)
    with torch.autocast("cpu", enabled=False):
        inputs = (q_BHLD.float(), k_BHLD.float(), v_BHLD.float())
        return sdpa(*inputs, attn_mask=attn_mask, **options).to(v_BHLD.dtype)


def encoder_attention(
    module: nn.Module,
    q_BHLD: Tensor,
    k_BHLD: Tensor,
    v_BHLD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Every position sees every other; in the form that ``transformers`` calls."""
    out_BHLD = attend(
        q_BHLD, k_BHLD, v_BHLD, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return out_BHLD.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, encoder_attention)
