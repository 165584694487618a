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
from omnitune.data.chat_template import renderer_of
from omnitune.data.template import ChatRenderer
from omnitune.data.template_folder import read_renderer
from omnitune.encoders.registry import build_encoder, configure, read_pretrained
from omnitune.hub import find_part, is_folder, read_config
from omnitune.models import adapters, families
from omnitune.models.bases import FORMATS, SAVED_WHOLE, Base, cast_, format_of, num_bytes
from omnitune.models.exported import is_exported, load_exported_omni, read_exported_reading
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.models.vocabulary import add_placeholders, fit_vocabulary, num_ids
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
        if kind == "omni" and {"optimizer", "step"} <= values.keys():
            raise UserError(
                f"{path}: is the state of a run at step {values['step']}, from which only "
                "`--resume` goes on; the model is in the omni.pt that the run writes at its end"
            )
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
    given: Path,
    encoders: dict[str, dict[str, Any]] | None = None,
    projectors: dict[str, dict[str, Any]] | None = None,
    chat_template: str | None = None,
) -> tuple[OmniModel, ChatRenderer]:
    """A trained thinker, with fresh encoders of these settings and fresh projectors.

    Args:
        given: a checkpoint, a pretrained folder or a Hub id.
        chat_template: in place of a folder's own; see ``template_folder.read_renderer``.

    Raises:
        UserError: there is no thinker, or one whose family cannot be trained in packed rows.
    """
    path = find_part(given)
    if is_folder(path):
        thinker = families.load(path)
        config = thinker.config.to_dict() | {"model_type": thinker.config.model_type}
        with _named(path):
            model = OmniModel(OmniConfig(config, encoders, projectors), thinker)
            model.check_thinker()
        renderer: ChatRenderer = read_renderer(path, chat_template)
    else:
        part = read_part(path, "thinker")
        with _named(path):
            model = OmniModel(OmniConfig(part["config"], encoders, projectors))
            model.thinker.load_state_dict(part["state"])
            model.check_thinker()
        renderer = _renderer_of(part, path)
    model.match_projector_scales()
    words = add_placeholders(model.thinker, renderer, model.modalities)
    model.config.thinker["vocab_size"] = model.thinker.config.vocab_size
    if is_folder(path):
        model.bases["thinker"] = Base.of(given, path, model.thinker, words)
    return model, renderer


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Names the file, or the setting, in what is raised by weights and settings from there."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: its weights do not fit its configuration ({error})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _renderer_of(values: Mapping[str, Any], path: Path) -> ChatRenderer:
    try:
        return renderer_of(dict(values))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise UserError(f"{path}: holds no tokenizer that can be read ({error})") from None


def _read_encoder(name: str, given: Path) -> dict[str, Any]:
    """Settings and weights of an encoder's checkpoint, pretrained folder or Hub id."""
    path = find_part(given)
    if not is_folder(path):
        return read_part(path, name)
    config, state = read_pretrained(name, path)
    return {"config": config, "state": state, "folder": path}


def assemble(
    thinker_ckpt: Path,
    encoder_ckpts: dict[str, Path],
    settings: Mapping[str, dict[str, Any]] | None = None,
    projectors: Mapping[str, dict[str, Any]] | None = None,
    chat_template: str | None = None,
) -> tuple[OmniModel, ChatRenderer]:
    """Joins trained parts; the projectors are fresh.

    Args:
        settings: by modality, laid over those in the encoder's checkpoint.
        chat_template: in place of that of the thinker's folder.
        projectors: by modality, ``type`` and settings; else the encoder's own choice.

    Raises:
        UserError: names every checkpoint that is missing or of another kind.
    """
    parts, problems = {}, []
    try:
        words = _vocabulary_of(thinker_ckpt)
    except UserError as error:
        problems.append(str(error))
    for name, path in encoder_ckpts.items():
        try:
            parts[name] = _read_encoder(name, path)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    parts = {name: _speaks(words, part, encoder_ckpts[name]) for name, part in parts.items()}
    settings, projectors = settings or {}, projectors or {}
    for key, given in (("encoder_settings", settings), ("projectors", projectors)):
        if unknown := given.keys() - parts.keys():
            raise UserError(
                f"{key}.{min(unknown)}: the model has no such encoder; it has "
                f"{', '.join(parts) or 'none'}"
            )
    resolved = {
        name: _configured(name, part, settings, projectors, encoder_ckpts[name])
        for name, part in parts.items()
    }
    encoders = {name: config for name, (config, _) in resolved.items()}
    chosen = {name: projector for name, (_, projector) in resolved.items()}
    try:
        model, renderer = load_thinker(thinker_ckpt, encoders, chosen, chat_template)
    except UserError:
        for name, config in encoders.items():  # it may be an encoder's fault
            with _named(encoder_ckpts[name]):
                build_encoder(name, config, chosen[name]).build()
        raise
    for name, part in parts.items():
        with _named(encoder_ckpts[name]):
            model.encoders[name].load_state_dict(part["state"])
        if "folder" in part:
            cast_(model.encoders[name], FORMATS[format_of(part["state"].values())])
            part_name = model.modalities[name].medium.encoder_part
            model.bases[part_name] = Base.of(
                encoder_ckpts[name], part["folder"], model.encoders[name]
            )
    return model, renderer


def _vocabulary_of(given: Path) -> str:
    """Hash of a thinker's tokenizer; one of a folder has none that an encoder could know."""
    path = find_part(given)
    if is_folder(path):
        read_config(path)
        return ""
    return vocabulary(Tokenizer.from_str(read_part(path, "thinker")["tokenizer"]))


def _configured(
    name: str,
    part: Mapping[str, Any],
    settings: Mapping[str, dict[str, Any]],
    projectors: Mapping[str, dict[str, Any]],
    path: Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configurations of an encoder and its projector for a run; a UserError names who is wrong."""
    with _named(path):
        build_encoder(name, part["config"])
    try:
        config, projector = configure(
            name, part["config"], settings.get(name, {}), projectors.get(name)
        )
        build_encoder(name, config, projector)
    except UserError as error:
        if str(error).startswith(("encoder_settings.", "projectors.")):
            raise
        raise UserError(f"encoder_settings.{name}: {error}") from None
    return config, projector


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


def save_omni(
    path: Path,
    model: OmniModel,
    renderer: ChatRenderer,
    save_whole: bool | None = None,
    **extra: Any,
) -> None:
    """Writes the whole model: ``thinker``, ``proj_v``, ``proj_a`` and what makes it whole.

    Args:
        save_whole: whether pretrained bases that were not trained are written too, and not only
            referred to; None: those below ``SAVED_WHOLE`` bytes are.
    """
    projectors = {
        modality.medium.projector_part: model.projector(name).state_dict()
        for name, modality in model.modalities.items()
    }
    bases: dict[str, Any] = {}
    states = {}
    for name in model.trunks():
        base, states[name] = model.bases.get(name), adapters.base_state(model, name)
        untrained = base.if_untrained(states[name]) if base else None
        if base and untrained is not None:
            bases[name], states[name] = base.state(), untrained
            small = num_bytes(untrained) < SAVED_WHOLE
            if not (small if save_whole is None else save_whole):
                states[name] = {}
    values = {
        "kind": "omni",
        "thinker": states["thinker"],
        **projectors,
        **adapters.to_checkpoint(model),
        "encoders": {
            name: states[modality.medium.encoder_part]
            for name, modality in model.modalities.items()
        },
        "config": {
            "thinker": model.config.thinker,
            "encoders": model.config.encoders,
            "projectors": model.config.projectors,
        },
        "bases": bases,
        **renderer.state(),
    }
    write_checkpoint(path, values | extra)


def read_reading(ckpt_dir: Path, max_tokens: int) -> ReadLimits:
    """How the model of a folder or file reads samples; its weights are not loaded."""
    if is_exported(ckpt_dir):
        return read_exported_reading(ckpt_dir, max_tokens)
    path = _model_file(ckpt_dir)
    values = read_part(path, "omni")
    config = OmniConfig(**values["config"])
    modalities = {
        name: build_encoder(name, encoder, config.projectors.get(name))
        for name, encoder in config.encoders.items()
    }
    return ReadLimits(_renderer_of(values, path), modalities, max_tokens)


def _model_file(ckpt_dir: Path) -> Path:
    is_file = ckpt_dir.suffix == ".pt" or ckpt_dir.is_file()
    return ckpt_dir if is_file else ckpt_dir / "omni.pt"


def load_omni(
    ckpt_dir: Path, device: torch.device | None = None
) -> tuple[OmniModel, ChatRenderer, dict[str, Any]]:
    """Loads ``omni.pt`` of a folder, a file or an export, to answer; returns its other values too.

    Raises:
        UserError: the folder or file is missing, damaged, or no model of omnitune's; or a
            pretrained base that it refers to is.
    """
    if is_exported(ckpt_dir):
        return load_exported_omni(ckpt_dir, device)
    path = _model_file(ckpt_dir)
    values = read_part(path, "omni")
    bases = {name: Base(**base) for name, base in values.get("bases", {}).items()}
    with _named(path):
        renderer = _renderer_of(values, path)
        config = OmniConfig(**values["config"])
        thinker = _load_base_thinker(values, bases.get("thinker"), config, renderer)
        model = OmniModel(config, thinker)
        for name, modality in model.modalities.items():
            model.projector(name).load_state_dict(values[modality.medium.projector_part])
            base = bases.get(modality.medium.encoder_part)
            state = values["encoders"][name]
            if base and not state:
                state = read_pretrained(name, base.find()).state
            model.encoders[name].load_state_dict(state)
            cast_(model.encoders[name], FORMATS[format_of(state.values())])
            if base and not values["encoders"][name]:
                base.check(model.encoders[name])
        model.bases = bases
        model.check_thinker()
        adapters.from_checkpoint(model, values)
    nn.Module.to(model, device or torch.device("cpu"))
    model.requires_grad_(False)
    model.eval()
    return model, renderer, values


def _load_base_thinker(
    values: Mapping[str, Any], base: Base | None, config: OmniConfig, renderer: ChatRenderer
) -> Any:
    """The thinker of ``omni.pt``: from there, or from the pretrained folder that it refers to."""
    if values["thinker"] or base is None:
        thinker = families.build(config.thinker, initialised=False)
        cast_(thinker, FORMATS[format_of(values["thinker"].values())])
        thinker.load_state_dict(values["thinker"])
        return thinker
    thinker = families.load(base.find())
    if base.words:
        fit_vocabulary(thinker, base.words, num_ids(renderer.tokenizer))
    base.check(thinker)
    return thinker
