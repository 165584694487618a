"""Makes the standard model of a trained one."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from omnitune.config.lora import THINKER
from omnitune.data.chat_jinja import jinja_of
from omnitune.data.chat_template import TemplateRenderer
from omnitune.data.template import PAD, ChatRenderer, placeholder
from omnitune.models.adapters import base_state
from omnitune.models.omni import OmniModel
from omnitune.models.processor import OmniProcessor
from omnitune.models.standard import OmniForConditionalGeneration
from omnitune.models.standard_config import EncoderConfig, OmniConfig


def pad_token(renderer: ChatRenderer) -> str:
    """What fills up rows."""
    if not isinstance(renderer, TemplateRenderer):
        return PAD
    special = renderer.template.special_tokens
    return special.get("pad_token") or special.get("eos_token") or renderer.template.ends[0]


def to_processor(model: OmniModel, renderer: ChatRenderer) -> OmniProcessor:
    """The processor of the standard model of a trained one."""
    state = renderer.state()
    special = {"pad_token": pad_token(renderer), "eos_token": renderer.token_of(renderer.end)}
    if isinstance(renderer, TemplateRenderer):
        special = renderer.template.special_tokens | special
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(state["tokenizer"]),
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",  # answers begin where rows end
        clean_up_tokenization_spaces=False,
        **special,
    )
    settings = {
        name: {"settings": modality.config, "projector": modality.projector}
        for name, modality in model.modalities.items()
    }
    template = jinja_of(renderer, list(model.modalities))
    return OmniProcessor(tokenizer, settings, state.get("chat"), chat_template=template)


def standard_config(model: OmniModel, renderer: ChatRenderer) -> OmniConfig:
    """The settings of the standard model of a trained one."""
    config = model.thinker.config
    ids = {"pad_token_id": renderer.id_of(pad_token(renderer)), "eos_token_id": renderer.end}
    media = {}
    for name, modality in model.modalities.items():
        formats = [str(_dtype(m)).removeprefix("torch.") for m in _pair(model, name)]
        media[modality.medium.config_name] = EncoderConfig(
            medium=name,
            settings=modality.config,
            projector=modality.projector,
            precision=formats,
        )
        ids[f"{name}_token_id"] = renderer.id_of(placeholder(name))
    text = type(config).from_dict(config.to_dict() | {"dtype": _dtype(model.thinker)})
    return OmniConfig(text_config=text, dtype=_dtype(model.thinker), **media, **ids)


def to_standard(model: OmniModel, renderer: ChatRenderer) -> OmniForConditionalGeneration:
    """The standard model of a trained one; they share their weights."""
    config = standard_config(model, renderer)
    with no_init_weights():
        standard = OmniForConditionalGeneration(config)
    standard.load_state_dict(standard_state(model), assign=True)
    standard.tie_weights()
    # A row ends at the answer's end alone; an answer, wherever the thinker may end one.
    standard.generation_config = GenerationConfig(
        eos_token_id=sorted(renderer.ends), pad_token_id=config.pad_token_id
    )
    standard.requires_grad_(False)
    nn.Module.to(standard, model.device)
    return standard.eval()


def standard_state(model: OmniModel) -> dict[str, Tensor]:
    """A trained model's weights, without adapters, under the names of the standard model."""
    thinker = base_state(model, THINKER)
    state = {name: thinker[key] for key, name in plain_names(model).items()}
    for name, modality in model.modalities.items():
        encoder = base_state(model, modality.medium.encoder_part)
        parts = {"encoders": encoder, "projectors": model.projector(name).state_dict()}
        for part, tensors in parts.items():
            state |= {f"model.{part}.{name}.{key}": t for key, t in tensors.items()}
    return state


def plain_names(model: OmniModel) -> dict[str, str]:
    """Of the thinker's weights, by their own names, those in the standard model."""
    keys = base_state(model, THINKER)
    return {key: found for key in keys if (found := standard_name(model, THINKER, key))}


def standard_name(model: OmniModel, part: str, key: str) -> str:
    """The name in the standard model of a weight of thinker or encoder; "" if it has none."""
    for name, modality in model.modalities.items():
        if modality.medium.encoder_part == part:
            return f"model.encoders.{name}.{key}"
    modules = {id(module): name for name, module in model.thinker.named_modules()}
    inside = modules[id(model.thinker.get_decoder())]
    head = modules[id(model.thinker.get_output_embeddings())]
    for own, other in ((inside, "model.language_model"), (head, "lm_head")):
        if key.startswith(f"{own}."):
            return other + key.removeprefix(own)
    return ""


def _pair(model: OmniModel, name: str) -> tuple[nn.Module, nn.Module]:
    return model.encoders[name], model.projector(name)


def _dtype(module: nn.Module) -> torch.dtype:
    found = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(found, torch.float32)
