"""What a step is expected to take of memory, before the first one is made."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from omnitune.models.omni import OmniModel

# Bytes that are kept for the backward pass, for each token and layer: of the width, of the query
# heads, of the key and value heads, of the feed-forward part. Counted in transformers' Qwen3; a
# test compares it with what is kept.
KEPT_FP32 = (16, 20, 20, 16)
KEPT_BF16 = (26, 14, 14, 8)
# Of a layer whose matrices are frozen: they do not need their inputs.
KEPT_FROZEN_FP32 = (8, 16, 12, 12)
KEPT_FROZEN_BF16 = (12, 12, 12, 6)
# Of activations and logits, what the C library's allocator holds on top on a CPU: blocks that were
# freed and do not fit what comes next. Measured with thinkers of 30 M weights, trained and frozen,
# in short and long rows: 0.25 to 0.6 of them (docs/training.md, "Before the run").
UNUSED_ON_CPU = 0.4
PER_LOGIT = 12  # bytes: the logit, its float32 copy, its gradient

Sized = nn.Linear | nn.Conv1d | nn.Conv2d


def estimate_memory(
    model: OmniModel,
    tokens: int,
    targets: int,
    bf16: bool,
    checkpointed: bool = False,
    encoders: int = 0,
    on_cpu: bool = False,
) -> dict[str, int]:
    """Bytes by part, of one micro-batch and AdamW.

    Args:
        tokens: of the row. targets: supervised tokens in it.
        checkpointed: only the layers' inputs are kept.
        encoders: bytes that encoders and projectors keep.
        on_cpu: the allocator keeps what is freed, and more than is used; it is a term of its own.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layers = model.thinker.config.num_hidden_layers
    layer = tokens * kept_per_token(model, bf16)
    inputs = 4 * tokens * layers * model.thinker.config.hidden_size
    terms = {
        "weights": weight_bytes(model),
        "copies": copied_bytes(model) if bf16 else 0,
        "gradients": trained,
        "optimiser": 8 * count,
        "activations": encoders + (inputs + layer if checkpointed else layers * layer),
        "logits": PER_LOGIT * targets * model.thinker.config.vocab_size,
    }
    if on_cpu:
        terms["allocator"] = round(UNUSED_ON_CPU * (terms["activations"] + terms["logits"]))
    return terms


def divided(terms: Mapping[str, int], shards: int) -> dict[str, int]:
    """The terms on a rank, where so many hold weights, gradients and optimiser's state together."""
    shared = ("weights", "gradients", "optimiser")
    return {name: size // shards if name in shared else size for name, size in terms.items()}


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all weights and buffers, as they are held."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copied_bytes(model: OmniModel) -> int:
    """Bytes of the bf16 copies that autocast keeps of fp32 matrices until a step's end.

    Of a frozen encoder, which needs no backward pass, each copy goes at once.
    """
    parts = {n: p for n, p in model.parts().items() if n not in _frozen_encoders(model)}
    matrices = {
        module.weight
        for part in parts.values()
        for module in part.modules()
        if isinstance(module, Sized)
    }
    return sum(2 * weight.numel() for weight in matrices if weight.element_size() == 4)


def _frozen_encoders(model: OmniModel) -> set[str]:
    names = {encoder.medium.encoder_part for encoder in model.modalities.values()}
    parts = model.parts()
    return {n for n in names if not any(p.requires_grad for p in parts[n].parameters())}


def kept_per_token(model: OmniModel, bf16: bool) -> int:
    """Bytes that one layer keeps of one token."""
    config = model.thinker.config
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    sizes = (
        config.hidden_size,
        heads * head_dim,
        config.num_key_value_heads * head_dim,
        config.intermediate_size,
    )
    layers = model.thinker.get_decoder().layers
    frozen = not any(p.requires_grad for p in layers.parameters() if p.ndim > 1)
    kinds = (KEPT_FROZEN_FP32, KEPT_FROZEN_BF16) if frozen else (KEPT_FP32, KEPT_BF16)
    return sum(a * b for a, b in zip(kinds[bf16], sizes, strict=True))
