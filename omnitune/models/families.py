"""Which families of language models can be thinkers, and what each does around its decoder.

A row holds several samples, so each layer must keep them apart. Attention does, by the segments
that it is given; nothing else in a layer may look at another position.

Shape suffixes: N hidden states, E their width, V vocabulary.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import MoeModelOutputWithPast

from omnitune.hub import check_said, load_pretrained, read_config, said_by
from omnitune.models import attention
from omnitune.sample import UserError

# Those whose packed rows and answers a test compares with the library's own (test_families).
KNOWN = (
    "cohere",
    "cohere2",
    "ernie4_5",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm4",
    "gpt_oss",
    "granite",
    "helium",
    "llama",
    "mistral",
    "mixtral",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "starcoder2",
)
PACKED_LAYERS = frozenset({"full_attention", "sliding_attention"})
# Names of a language model's weights inside of a model of several media, and what they are alone.
INSIDE = {r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.", r"^language_model\.": ""}
# Positions turn by angles that depend on the longest sequence at hand.
UNSTABLE_ROPE = frozenset({"dynamic", "longrope"})


def refusal(kind: object, reason: str) -> UserError:
    """What is said of a thinker that cannot be trained."""
    return UserError(
        f"a thinker of the family {kind!r} cannot be trained: {reason}; "
        f"take one of these families: {', '.join(KNOWN)}"
    )


def build(settings: dict[str, Any], initialised: bool = True) -> Any:
    """A fresh thinker of a configuration with ``model_type``.

    Args:
        initialised: false where weights are loaded into it: drawing them takes seconds a billion.

    Raises:
        UserError: names a family that cannot be one, and why.
    """
    settings = dict(settings)
    kind = settings.pop("model_type", None)
    try:
        config = AutoConfig.for_model(kind, **settings)
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise refusal(kind, f"transformers has no such configuration ({said_by(error)})") from None
    if reason := _obstacle(config):
        raise refusal(kind, reason)
    try:
        with nullcontext() if initialised else no_init_weights():
            thinker = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    except Exception as error:
        raise refusal(kind, f"transformers cannot build it ({said_by(error)})") from None
    if not initialised:
        thinker.tie_weights()
    return _checked(thinker, kind)


def settings_of(folder: Path) -> dict[str, Any]:
    """The configuration of a folder's thinker; its weights are not read."""
    config = _config_of(folder)
    return config.to_dict() | {"model_type": config.model_type}


def _config_of(folder: Path) -> Any:
    kind = read_config(folder)["model_type"]
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = config.get_text_config(decoder=True)
        reason = _obstacle(config)
    except Exception as error:
        check_said(folder, error)
        reason = f"transformers has no such configuration ({said_by(error)})"
    else:
        kind = config.model_type
        if not reason and type(config) not in AutoModelForCausalLM._model_mapping:
            reason = "it is no language model that writes from left to right"
    if reason:
        raise UserError(f"{folder}: {refusal(kind, reason)}")
    return config


def load(folder: Path) -> Any:
    """The thinker of a pretrained folder, in the number format of its weights.

    Of a model of several media it is the language model, without its encoders.

    Raises:
        UserError: the folder is not whole, or of a family that cannot be a thinker.
    """
    config = _config_of(folder)
    nested = config.model_type != read_config(folder)["model_type"]
    options = {
        "config": config,
        "attn_implementation": attention.NAME,
        "key_mapping": INSIDE if nested else None,
    }
    model = AutoModelForCausalLM._model_mapping[type(config)]
    return _checked(load_pretrained(model, folder, **options), config.model_type)


def _checked(thinker: Any, kind: object) -> Any:
    decoder = thinker.get_decoder()
    if not hasattr(decoder, "layers") or thinker.get_output_embeddings() is None:
        raise refusal(kind, "it is not a stack of decoder layers under one linear head")
    return thinker


def _obstacle(config: Any) -> str | None:
    """What in a configuration rules out packed rows, if anything does."""
    if getattr(config, "is_encoder_decoder", False):
        return "its decoder writes what an encoder of its own has read"
    if not isinstance(getattr(config, "hidden_size", None), int):
        return "its configuration is not that of a language model alone (no hidden_size)"
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    others = sorted({str(kind) for kind in kinds or ()} - PACKED_LAYERS - {"attention"})
    if others:
        return (
            f"its layers of type {', '.join(others)} cannot tell the samples of a packed row apart "
            "(those of full and of sliding attention can)"
        )
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [ropes, *(value for value in ropes.values() if isinstance(value, dict))]
    found = sorted({str(rope.get("rope_type")) for rope in nested} & UNSTABLE_ROPE)
    if found:
        return (
            f"its rope of type {', '.join(found)} turns a sample's positions by the length of the "
            "longest sample beside it (take its variant of fixed context length)"
        )
    return None


@torch.no_grad()
def last_feed_forward(thinker: Any) -> nn.Module | None:
    """The last layer's feed-forward part, if rows are all that it takes and gives.

    A mixture of experts gives more.
    """
    part: Any = getattr(thinker.get_decoder().layers[-1], "mlp", None)
    if not type(part).__name__.endswith("MLP"):
        return None
    weight = thinker.get_output_embeddings().weight
    found = part(weight.new_zeros(1, 1, weight.shape[1]))
    return part if isinstance(found, Tensor) else None


class _Given(nn.Module):
    """In place of a decoder: its hidden states are what it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


def logits_of(thinker: Any, hidden_1NE: Tensor) -> Tensor:
    """Logits ``[1, N, V]`` as the library's own model makes them of last hidden states.

    Some families scale or bound them after the linear head (Granite, Cohere, Gemma).
    """
    decoder = thinker.get_decoder()
    head = copy.copy(thinker)  # shares every weight
    head._modules = {
        name: _Given() if any(part is decoder for part in child.modules()) else child
        for name, child in thinker._modules.items()
    }
    return head(inputs_embeds=hidden_1NE, use_cache=False).logits


@torch.no_grad()
def has_plain_head(thinker: Any) -> bool:
    """Whether logits are what the linear head gives, and nothing more.

    Raises:
        UserError: the library's own logits cannot be had.
    """
    weight = thinker.get_output_embeddings().weight
    if weight.is_meta:
        return False
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 4, weight.shape[1], generator=draw, device="cpu").to(weight)
    try:
        expected = logits_of(thinker, hidden)
    except Exception as error:
        kind = thinker.config.model_type
        raise refusal(kind, f"its logits cannot be had of hidden states ({error})") from None
    return torch.equal(thinker.get_output_embeddings()(hidden), expected)
