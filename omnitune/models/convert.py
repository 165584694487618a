"""Makes the standard model of a trained one."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from omnitune.data.chat_jinja import jinja_of
from omnitune.data.chat_template import TemplateRenderer
from omnitune.data.template import PAD, ChatRenderer, placeholder
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
    """A trained model's weights under the names of the standard model."""
    thinker = model.thinker.state_dict()
    state = {name: thinker[key] for key, name in plain_names(model.thinker).items()}
    for name in model.modalities:
        for part, module in zip(("encoders", "projectors"), _pair(model, name), strict=True):
            for key, tensor in module.state_dict().items():
                state[f"model.{part}.{name}.{key}"] = tensor
    return state


def plain_names(thinker: nn.Module) -> dict[str, str]:
    """Of a thinker's weights, by their plain names, those in the standard model."""
    modules = {id(module): name for name, module in thinker.named_modules()}
    inside = modules[id(thinker.get_decoder())]  # type: ignore[operator]
    head = modules[id(thinker.get_output_embeddings())]  # type: ignore[operator]
    names = {}
    for key in thinker.state_dict():
        if key.startswith(f"{inside}."):
            names[key] = "model.language_model" + key.removeprefix(inside)
        elif key.startswith(f"{head}."):
            names[key] = "lm_head" + key.removeprefix(head)
    return names


def _pair(model: OmniModel, name: str) -> tuple[nn.Module, nn.Module]:
    return model.encoders[name], model.projector(name)


def _dtype(module: nn.Module) -> torch.dtype:
    found = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(found, torch.float32)
