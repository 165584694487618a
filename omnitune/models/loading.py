"""Builds and loads the parts (thinker, encoders) and the whole from checkpoint files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.template import ChatRenderer, placeholder
from omnitune.encoders.registry import build_encoder, with_settings
from omnitune.models import adapters
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint

# The command that makes each kind of checkpoint, for the error when it is missing.
MADE_BY = {
    "thinker": "omnitune parts` or `omnitune pretrain --config configs/thinker_tiny.json",
    "audio": "omnitune parts` or `omnitune pretrain --config configs/audio_enc_tiny.json",
    "image": "omnitune parts` or `omnitune pretrain --config configs/vision_tiny.json",
    "omni": "python sft_omni.py --config configs/omni_sft_tiny.json",
}


def read_part(path: Path, kind: str) -> dict[str, Any]:
    """Reads a checkpoint and checks that it is of the kind that is asked for."""
    values = read_checkpoint(path, MADE_BY.get(kind, ""))
    if values.get("kind") != kind:
        found = values.get("kind", "no kind of omnitune's")
        raise UserError(f"{path}: is a checkpoint of kind {found!r}, expected {kind!r}")
    return values


def save_thinker(path: Path, model: OmniModel, tokenizer: Tokenizer, **extra: Any) -> None:
    """Writes a thinker with its tokenizer."""
    values = {
        "kind": "thinker",
        "config": model.config.thinker,
        "tokenizer": tokenizer.to_str(),
        "state": model.thinker.state_dict(),
    }
    write_checkpoint(path, values | extra)


def save_encoder(
    path: Path, name: str, config: dict[str, Any], state: dict[str, Any], **extra: Any
) -> None:
    """Writes one modality's encoder."""
    write_checkpoint(path, {"kind": name, "config": config, "state": state} | extra)


def load_thinker(
    path: Path, encoders: dict[str, dict[str, Any]] | None = None
) -> tuple[OmniModel, Tokenizer]:
    """A trained thinker, with fresh encoders of these settings and fresh projectors.

    Raises:
        UserError: the file is no thinker, or one whose family cannot be trained in packed rows.
    """
    part = read_part(path, "thinker")
    with _named(path):
        model = OmniModel(OmniConfig(thinker=part["config"], encoders=encoders))
        model.thinker.load_state_dict(part["state"])
        model.check_thinker()
    model.match_projector_scales()
    return model, _tokenizer_of(part, path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names the file in what is raised by weights and settings that were read from it."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: its weights do not fit its configuration ({error})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _tokenizer_of(part: Mapping[str, Any], path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(part["tokenizer"])
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise UserError(f"{path}: holds no tokenizer that can be read ({error})") from None


def assemble(
    thinker_ckpt: Path,
    encoder_ckpts: dict[str, Path],
    settings: Mapping[str, dict[str, Any]] | None = None,
) -> tuple[OmniModel, Tokenizer]:
    """Joins trained parts; the projectors are fresh.

    Args:
        settings: by modality, laid over those in the encoder's checkpoint.

    Raises:
        UserError: names every checkpoint that is missing or of another kind.
    """
    parts, problems = {}, []
    for kind, path in {"thinker": thinker_ckpt, **encoder_ckpts}.items():
        try:
            parts[kind] = read_part(path, kind)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    words = vocabulary(Tokenizer.from_str(parts.pop("thinker")["tokenizer"]))
    parts = {name: _speaks(words, part, encoder_ckpts[name]) for name, part in parts.items()}
    settings = settings or {}
    if unknown := settings.keys() - parts.keys():
        raise UserError(
            f"encoder_settings.{min(unknown)}: the model has no such encoder; it has "
            f"{', '.join(parts) or 'none'}"
        )
    encoders = {
        name: with_settings(name, part["config"], settings.get(name, {}))
        for name, part in parts.items()
    }
    model, tokenizer = load_thinker(thinker_ckpt, encoders)
    for name, part in parts.items():
        with _named(encoder_ckpts[name]):
            model.encoders[name].load_state_dict(part["state"])
    add_placeholders(model, tokenizer)
    return model, tokenizer


@torch.no_grad()
def add_placeholders(model: OmniModel, tokenizer: Tokenizer) -> None:
    """Gives the tokenizer a placeholder for each medium of the model that it lacks.

    A new embedding is the mean of the others, so that it changes little of what the thinker says
    (Hewitt 2021).
    """
    tokens = [placeholder(name) for name in model.modalities]
    missing = [token for token in tokens if tokenizer.token_to_id(token) is None]
    if not missing:
        return
    tokenizer.add_special_tokens(missing)
    old = model.thinker.get_input_embeddings().weight.shape[0]
    if (size := tokenizer.get_vocab_size()) > old:
        model.thinker.resize_token_embeddings(size, mean_resizing=False)
        heads = (model.thinker.get_input_embeddings(), model.thinker.get_output_embeddings())
        for weight in {module.weight for module in heads}:
            weight[old:] = weight[:old].mean(dim=0)
        model.config.thinker["vocab_size"] = size


def vocabulary(tokenizer: Tokenizer) -> str:
    """Hash of a tokenizer, by which an encoder's readout knows its words."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def _speaks(words: str, part: dict[str, Any], path: Path) -> dict[str, Any]:
    """The part of an encoder; without its readout if that names another vocabulary's words."""
    if "words" not in part["config"] or part.get("vocabulary") == words:
        return part
    print(
        f"warning: {path} names words of another thinker's vocabulary, so stage E cannot begin "
        "with them; train it again with --tokenizer FILE (tokenizer.json beside the thinker), or "
        "go on and let the projector learn them"
    )
    config = {name: value for name, value in part["config"].items() if name != "words"}
    state = {n: value for n, value in part["state"].items() if not n.startswith("readout.")}
    return part | {"config": config, "state": state}


def save_omni(path: Path, model: OmniModel, tokenizer: Tokenizer, **extra: Any) -> None:
    """Writes the whole model: ``thinker``, ``proj_v``, ``proj_a`` and what makes it whole."""
    projectors = {
        modality.medium.projector_part: model.projector(name).state_dict()
        for name, modality in model.modalities.items()
    }
    values = {
        "kind": "omni",
        "thinker": adapters.base_state(model, "thinker"),
        **projectors,
        **adapters.to_checkpoint(model),
        "encoders": {
            name: adapters.base_state(model, modality.medium.encoder_part)
            for name, modality in model.modalities.items()
        },
        "config": {"thinker": model.config.thinker, "encoders": model.config.encoders},
        "tokenizer": tokenizer.to_str(),
    }
    write_checkpoint(path, values | extra)


def read_reading(ckpt_dir: Path, max_tokens: int) -> ReadLimits:
    """How the model of a folder reads samples; its weights are not loaded."""
    path = ckpt_dir / "omni.pt"
    values = read_part(path, "omni")
    encoders = values["config"]["encoders"]
    modalities = {name: build_encoder(name, config) for name, config in encoders.items()}
    return ReadLimits(ChatRenderer(_tokenizer_of(values, path)), modalities, max_tokens)


def load_omni(
    ckpt_dir: Path, device: torch.device | None = None
) -> tuple[OmniModel, Tokenizer, dict[str, Any]]:
    """Loads ``omni.pt`` of a folder, ready to answer; returns its other values too.

    Raises:
        UserError: the folder or file is missing, damaged, or no model of omnitune's.
    """
    is_file = ckpt_dir.suffix == ".pt" or ckpt_dir.is_file()
    path = ckpt_dir if is_file else ckpt_dir / "omni.pt"
    values = read_part(path, "omni")
    with _named(path):
        model = OmniModel(OmniConfig(**values["config"]))
        model.thinker.load_state_dict(values["thinker"])
        for name, modality in model.modalities.items():
            model.projector(name).load_state_dict(values[modality.medium.projector_part])
            model.encoders[name].load_state_dict(values["encoders"][name])
        model.check_thinker()
        adapters.from_checkpoint(model, values)
    nn.Module.to(model, device or torch.device("cpu"))
    model.requires_grad_(False)
    model.eval()
    return model, _tokenizer_of(values, path), values
