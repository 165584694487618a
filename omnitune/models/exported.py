"""Reads what was exported: as the standard model, or as the one that training and scoring use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMultimodalLM, AutoProcessor

from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.template import ChatRenderer
from omnitune.hub import load_pretrained, read_config, said_by
from omnitune.models import families
from omnitune.models.convert import plain_names
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.models.registration import register
from omnitune.models.standard_config import MODEL_TYPE
from omnitune.sample import UserError

INDEX = "model.safetensors.index.json"
THINKER = "thinker"
BASE, ADAPTER = "base", "adapter_config.json"
# The library would else ask on the terminal whether to run the code that a folder brings.
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


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
    model = AutoModelForMultimodalLM.from_pretrained(base, **LOCAL, **options)
    if base != folder:
        from peft import PeftModel  # takes seconds, which most exports need not

        model = PeftModel.from_pretrained(model, str(folder))
    return model.eval(), AutoProcessor.from_pretrained(base, **LOCAL)


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
    processor = _read_processor(folder)
    # By the library: files may name weights of a family as its first release did.
    standard: Any = load_pretrained(AutoModelForMultimodalLM, folder)
    config, text = standard.config, standard.config.text_config
    settings = text.to_dict() | {"model_type": text.model_type}
    encoders = {name: values.settings for name, values in config.encoders.items()}
    projectors = {name: values.projector for name, values in config.encoders.items()}
    thinker = families.build(settings, initialised=False)
    model = OmniModel(OmniConfig(settings, encoders, projectors), thinker)
    state = standard.state_dict()
    own = {key: state[name] for key, name in plain_names(model).items()}
    thinker.load_state_dict(own, assign=True)
    thinker.tie_weights()
    for name in model.modalities:
        model.encoders[name] = standard.model.encoders[name]
        setattr(
            model, model.modalities[name].medium.projector_part, standard.model.projectors[name]
        )
    model.check_thinker()
    nn.Module.to(model, device or torch.device("cpu"))
    model.requires_grad_(False)
    return model.eval(), processor.renderer, read_facts(folder)


def _read_processor(folder: Path) -> Any:
    """The processor of an exported model.

    Raises:
        UserError: the folder holds another model, or is not whole.
    """
    register()
    kind = read_config(folder)["model_type"]
    if kind != MODEL_TYPE:
        raise UserError(
            f"{folder}: is of the family {kind!r}, and no model that omnitune exported; as a "
            "thinker it can be trained (thinker_ckpt)"
        )
    try:
        return AutoProcessor.from_pretrained(folder, **LOCAL)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise UserError(f"{folder}: its processor cannot be read ({said_by(error)})") from None


def read_exported_reading(folder: Path, max_tokens: int) -> ReadLimits:
    """How an exported model reads samples; its weights are not loaded."""
    base = folder / BASE if (folder / ADAPTER).is_file() else folder
    processor = _read_processor(base)
    encoders = {name: medium.encoder for name, medium in processor.media.items()}
    return ReadLimits(processor.renderer, encoders, max_tokens)


FACTS = "omnitune.json"  # what the run knew beside the weights


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``write_facts`` kept."""
    path = folder / FACTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_facts(folder: Path, values: dict[str, Any]) -> None:
    """Keeps what commands ask of a run's ``omni.pt`` beside its weights."""
    plain = {key: value for key, value in values.items() if key != "tokenizer" and _is_plain(value)}
    (folder / FACTS).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def _is_plain(value: Any) -> bool:
    """Whether a value is a word or a number, or such by name; what is deeper is no mere fact."""
    values = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(one, str | int | float) for one in values)
