"""What a step is expected to take of a GPU's memory, before the first one is made."""

from __future__ import annotations

from omnitune.models.omni import OmniModel

# Bytes that are kept for the backward pass, for each token and layer: of the width, of the query
# heads, of the key and value heads, of the feed-forward part. Counted in transformers' Qwen3; a
# test compares it with what is kept.
KEPT_FP32 = (16, 20, 20, 16)
KEPT_BF16 = (26, 14, 14, 8)
PER_LOGIT = 12  # bytes: the logit, its float32 copy, its gradient


def estimate_memory(
    model: OmniModel, tokens: int, targets: int, bf16: bool, checkpointed: bool = False
) -> dict[str, int]:
    """Bytes by part, of one micro-batch and AdamW.

    Encoders that are trained keep activations too, which are not counted.

    Args:
        tokens: of the row. targets: supervised tokens in it.
        checkpointed: only the layers' inputs are kept.
    """
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layers = model.thinker.config.num_hidden_layers
    layer = tokens * kept_per_token(model, bf16)
    inputs = 4 * tokens * layers * model.thinker.config.hidden_size
    activations = inputs + layer if checkpointed else layers * layer
    logits = PER_LOGIT * targets * model.thinker.config.vocab_size
    return {
        "weights": 4 * weights + (2 * weights if bf16 else 0),  # autocast keeps copies for a step
        "gradients": 4 * trained,
        "optimiser": 8 * trained,
        "activations": activations + logits,
    }


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
    return sum(a * b for a, b in zip(KEPT_BF16 if bf16 else KEPT_FP32, sizes, strict=True))
