"""Writes the standard model as a folder that transformers, PEFT and vLLM load.

The thinker's weights lie in shards of their own under its own names. The folder ``thinker`` holds
the same shards once more, as further names of the same bytes (hard links), with an index: so the
thinker loads by itself, without omnitune.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging

from omnitune.data.chat_jinja import jinja_of
from omnitune.data.template import ChatRenderer
from omnitune.models.adapters import adapter_state
from omnitune.models.convert import plain_names, standard_name, to_processor, to_standard
from omnitune.models.exported import BASE, INDEX, THINKER
from omnitune.models.omni import OmniModel
from omnitune.models.standard import OmniForConditionalGeneration
from omnitune.sample import UserError

SHARD_BYTES = 5_000_000_000


def write_standard(
    out: Path, model: OmniModel, renderer: ChatRenderer, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes weights, configurations, processor and the thinker's own folder.

    Args:
        out: an empty folder, or one to be made.
        shard_bytes: of a file of weights, at most.
    """
    standard = to_standard(model, renderer)
    processor = to_processor(model, renderer)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        out.mkdir(parents=True, exist_ok=True)
        standard.config.architectures = [type(standard).__name__]
        standard.config.save_pretrained(out)
        standard.generation_config.save_pretrained(out)
        processor.save_pretrained(out)
        _write_thinker(out / THINKER, model, standard, renderer, processor.tokenizer)
        _write_weights(out, model, standard, shard_bytes)
    finally:
        logging.set_verbosity(verbosity)


def write_adapter(out: Path, model: OmniModel) -> None:
    """Writes a model's adapters as PEFT's folder has them, for the standard model beside them.

    Raises:
        UserError: the model has none.
    """
    if model.adapters is None:
        raise UserError("the model has no adapter; export it with --to hf")
    from peft import LoraConfig  # takes seconds, which most exports need not

    settings = model.adapters.settings
    state: dict[str, Tensor] = {}
    layers: set[str] = set()
    whole: set[str] = set()
    for part, tensors in adapter_state(model).items():
        for key, tensor in tensors.items():
            name = standard_name(model, part, key)
            layer, found, _ = name.partition(".lora_")
            (layers if found else whole).add(layer if found else name.rpartition(".")[0])
            state[f"base_model.model.{name}"] = tensor.detach().cpu().clone().contiguous()
    config = LoraConfig(
        base_model_name_or_path=BASE,
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # it divides it only
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        target_modules=sorted(layers),
        modules_to_save=sorted(whole) or None,
        inference_mode=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(out))
    _save(state, out / "adapter_model.safetensors")


def _write_thinker(
    folder: Path,
    model: OmniModel,
    standard: OmniForConditionalGeneration,
    renderer: ChatRenderer,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """All of a thinker's folder but its weights."""
    config = type(standard.config.text_config).from_dict(standard.config.text_config.to_dict())
    config.architectures = [type(model.thinker).__name__]
    config.save_pretrained(folder)
    generation = GenerationConfig.from_dict(standard.generation_config.to_dict())
    generation.save_pretrained(folder)
    tokenizer.chat_template = jinja_of(renderer, [])
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = None


def _write_weights(
    out: Path, model: OmniModel, standard: OmniForConditionalGeneration, shard_bytes: int
) -> None:
    """The shards, and the two indices that name them."""
    tied = standard.all_tied_weights_keys
    state = {name: t for name, t in standard.state_dict().items() if name not in tied}
    files = revert_weight_conversion(standard, state)
    own = plain_names(model)
    parts = {
        "model-thinker": {name: files[name] for name in files if name in own},
        "model-media": {name: files[name] for name in files if name not in own},
    }
    places: dict[str, dict[str, str]] = {}
    for prefix, tensors in parts.items():
        places[prefix] = _write_shards(out, prefix, tensors, shard_bytes) if tensors else {}
    every = {name: place for found in places.values() for name, place in found.items()}
    _write_index(out / INDEX, every, files)
    _write_index(out / THINKER / INDEX, _share(out, places["model-thinker"]), files)


def _write_shards(
    out: Path, prefix: str, tensors: Mapping[str, Tensor], shard_bytes: int
) -> dict[str, str]:
    """Writes files of weights; returns the file of each weight."""
    plan = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern=prefix + "{suffix}.safetensors", max_shard_size=shard_bytes
    )
    for name, names in plan.filename_to_tensors.items():
        shard = {key: tensors[key].detach().cpu().contiguous() for key in names}
        _save(shard, out / name)
    return {key: name for name, names in plan.filename_to_tensors.items() for key in names}


def _share(out: Path, places: Mapping[str, str]) -> dict[str, str]:
    """Puts the thinker's shards into its own folder too; where each weight lies, seen from there.

    On a disk without hard links they are referred to in the folder above.
    """
    try:
        for place in sorted(set(places.values())):
            os.link(out / place, out / THINKER / place)
    except OSError:
        return {name: f"../{place}" for name, place in places.items()}
    return dict(places)


def _save(state: dict[str, Tensor], path: Path) -> None:
    """Writes a file of weights.

    Raises:
        OSError: it cannot be written; names it.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(state, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk too
        raise OSError(errno.EIO, str(error), str(path)) from None
    path.chmod(mode)  # the library lets only the owner read what it writes


def _write_index(path: Path, places: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    size = sum(tensors[name].numel() * tensors[name].element_size() for name in places)
    values: dict[str, Any] = {"metadata": {"total_size": size}, "weight_map": dict(places)}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
