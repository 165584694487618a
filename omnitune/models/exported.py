"""Reads what was exported: as the standard model, or as the one that training and scoring use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.template import ChatRenderer
from omnitune.hub import check_weights
from omnitune.models import families
from omnitune.models.bases import cast_
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.models.registration import register
from omnitune.sample import UserError

INDEX = "model.safetensors.index.json"
THINKER = "thinker"
BASE, ADAPTER = "base", "adapter_config.json"


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / "processor_config.json").is_file() or (folder / ADAPTER).is_file()


def load_exported(folder: Path, **options: Any) -> tuple[Any, Any]:
    """The standard model and its processor; a model with an adapter has it on its base.

    Args:
        options: of ``from_pretrained``.
    """
    register()
    base = folder / BASE if (folder / ADAPTER).is_file() else folder
    model = AutoModelForMultimodalLM.from_pretrained(base, local_files_only=True, **options)
    if base != folder:
        from peft import PeftModel  # takes seconds, which most exports need not

        model = PeftModel.from_pretrained(model, str(folder))
    return model.eval(), AutoProcessor.from_pretrained(base, local_files_only=True)


def load_exported_omni(
    folder: Path, device: torch.device | None = None
) -> tuple[OmniModel, ChatRenderer, dict[str, Any]]:
    """An exported model as ``loading.load_omni`` gives one, to be scored and talked to.

    Raises:
        UserError: the folder is not whole, or is an adapter, which has no weights of its own.
    """
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"{folder}: is an adapter; give the folder of the run, or export it with --to merged"
        )
    register()
    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
    files = [load_file(path) for path in check_weights(folder)]
    state = {name: tensor for file in files for name, tensor in file.items()}
    text = config.text_config.to_dict() | {"model_type": config.text_config.model_type}
    encoders = {name: values.settings for name, values in config.encoders.items()}
    thinker = families.build(text, initialised=False)
    projectors = {name: values.projector for name, values in config.encoders.items()}
    model = OmniModel(OmniConfig(text, encoders, projectors), thinker)
    try:
        _load(thinker, {n: t for n, t in state.items() if n in thinker.state_dict()})
        for name in model.modalities:
            for part, module in (
                ("encoders", model.encoders[name]),
                ("projectors", model.projector(name)),
            ):
                prefix = f"model.{part}.{name}."
                found = {n: t for n, t in state.items() if n.startswith(prefix)}
                _load(module, {n.removeprefix(prefix): t for n, t in found.items()})
    except RuntimeError as error:
        raise UserError(
            f"{folder}: its weights do not fit its {config.model_type} ({error})"
        ) from None
    model.check_thinker()
    nn.Module.to(model, device or torch.device("cpu"))
    model.requires_grad_(False)
    return model.eval(), processor.renderer, read_facts(folder)


def read_exported_reading(folder: Path, max_tokens: int) -> ReadLimits:
    """How an exported model reads samples; its weights are not loaded."""
    register()
    base = folder / BASE if (folder / ADAPTER).is_file() else folder
    processor: Any = AutoProcessor.from_pretrained(base, local_files_only=True)
    encoders = {name: medium.encoder for name, medium in processor.media.items()}
    return ReadLimits(processor.renderer, encoders, max_tokens)


def _load(module: Any, state: dict[str, Tensor]) -> None:
    """Loads weights in their own number format; tied ones stand in the files once."""
    dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    cast_(module, dtype)
    tied = getattr(module, "all_tied_weights_keys", {})
    missing, unexpected = module.load_state_dict(state, strict=False)
    if lost := [*unexpected, *(name for name in missing if name not in tied)]:
        raise RuntimeError(f"{len(lost)} weights, the first is {lost[0]}")


FACTS = "omnitune.json"  # what the run knew beside the weights


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``write_facts`` kept."""
    path = folder / FACTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_facts(folder: Path, values: dict[str, Any]) -> None:
    """Keeps what commands ask of a run's ``omni.pt`` beside its weights."""
    plain = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
    plain.pop("tokenizer", None)
    (folder / FACTS).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
