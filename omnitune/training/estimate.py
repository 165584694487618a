"""What a run will take, told before it begins: parts, samples, memory, operations, hours."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from omnitune.config.sft import SftConfig
from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.chat_template import renderer_of
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.template import ChatRenderer
from omnitune.data.template_folder import read_renderer
from omnitune.encoders.registry import configure, read_pretrained
from omnitune.hub import check_weights, find_part, is_folder
from omnitune.models import families
from omnitune.models.adapters import add_adapters
from omnitune.models.loading import MADE_BY
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.models.vocabulary import add_placeholders
from omnitune.sample import UserError
from omnitune.training.caching import frozen_passes
from omnitune.training.costs import (
    EACH,
    Measured,
    ModuleCost,
    encoder_cost,
    measure_samples,
    meta_copy,
    parts_table,
    passes,
    thinker_flops,
)
from omnitune.training.devices import HERE, Device, find_device
from omnitune.training.memory import estimate_memory
from omnitune.training.phases import Phases
from omnitune.training.precision import BF16_SAMPLES, SMALL_MODEL, has_bf16_units
from omnitune.training.rank_costs import share_out
from omnitune.training.run import Plan
from omnitune.training.sources import audit_samples, build_stream, read_samples

SPREAD = 2.5  # standard deviations above the mean: about the longest of a run's batches


def plan_run(
    config: SftConfig, device_name: str = HERE, ranks: int = 1, per_machine: int = 8
) -> dict[str, Any]:
    """The plan of a configuration; no weights are loaded, and nothing is written.

    Args:
        ranks: processes with such a device each. per_machine: of a machine.

    Raises:
        UserError: the configuration, the parts or the data do not allow the run.
    """
    device = find_device(device_name)
    with redirect_stdout(sys.stderr):  # what is read, beside a plan that may be JSON
        model, renderer = empty_model(config)
        Phases(config, model.parts(), model.modalities).set_trainable()
        samples = read_samples(config)
        positions = model.thinker.config.get_text_config().max_position_embeddings
        longest = min(config.max_tokens, positions)
        reading = ReadLimits(renderer, model.modalities, longest, config.multi_turn_prob > 0)
        samples, ledger, _ = audit_samples(config, samples, reading)
        stream = build_stream(
            config, SampleReader(renderer, model.modalities, None, longest), samples
        )
    cached = set() if config.feature_cache == "off" else set(frozen_passes(config, model))
    found = estimate_run(config, model, stream, device, cached)
    rows = {name: ledger[name]["slots"] for name in cached & ledger.keys()}
    sizes = (2 * n * model.modalities[name].feature_dim for name, n in rows.items())
    if ranks > 1:
        found["ranks"] = share_out(found, config, model, ranks, per_machine)
    return found | {"feature_cache_bytes": sum(sizes)}


def empty_model(config: SftConfig) -> tuple[OmniModel, ChatRenderer]:
    """The model of a run on torch's meta device, from the settings of its parts alone."""
    settings, renderer = _thinker_of(config)
    found = {
        name: configure(
            name,
            _encoder_settings(name, find_part(path)),
            config.encoder_settings.get(name, {}),
            config.projectors.get(name),
        )
        for name, path in config.encoders.items()
    }
    encoders = {name: encoder for name, (encoder, _) in found.items()}
    projectors = {name: projector for name, (_, projector) in found.items()}
    with torch.device("meta"):
        model = OmniModel(OmniConfig(settings, encoders, projectors))
        add_placeholders(model.thinker, renderer, model.modalities)
        if config.lora is not None:
            add_adapters(model, config.lora)
    return model, renderer


def _thinker_of(config: SftConfig) -> tuple[dict[str, Any], ChatRenderer]:
    """Settings and renderer of a thinker."""
    path = find_part(config.thinker_ckpt)
    if is_folder(path):
        settings = families.settings_of(path)
        check_weights(path)
        return settings, read_renderer(path, config.chat_template)
    part = _peek(path, "thinker")
    return part["config"], renderer_of(part)


def _encoder_settings(name: str, path: Path) -> dict[str, Any]:
    return read_pretrained(name, path).config if is_folder(path) else _peek(path, name)["config"]


def _peek(path: Path, kind: str) -> dict[str, Any]:
    """A checkpoint whose weights stay on disk."""
    if not path.is_file():
        made_by = MADE_BY.get(kind)
        mend = f"; make it with `{made_by}`" if made_by else ""
        raise UserError(f"{path}: no such checkpoint{mend}")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch tells of damage in many ways
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: is not a checkpoint that can be read ({said[0]})") from None
    if not isinstance(values, dict) or values.get("kind") != kind:
        raise UserError(f"{path}: is no checkpoint of kind {kind!r}")
    return values


def estimate_run(
    config: SftConfig,
    model: OmniModel,
    stream: BatchStream,
    device: Device,
    cached: Collection[str],
    each: int = EACH,
    bf16: bool | None = None,
) -> dict[str, Any]:
    """What a run is expected to take on a device, as JSON-able values.

    Args:
        model: whose parts that are ever trained have gradients; it may be without values.
        cached: modalities that are encoded once, before the first step.
        each: samples of a source to measure.
        bf16: the precision; None for what the configuration would choose.
    """
    measured = measure_samples(stream, each)
    size, plan = stream.batch_size, Plan.of(config, len(stream))
    if bf16 is None:
        bf16 = expects_bf16(config, model, device, size)
    encoding = {
        name: encoder_cost(encoder, meta_copy(encoder), measured.examples[name])
        for name, encoder in model.modalities.items()
        if name in measured.examples and name not in cached
    }
    tokens, targets = _largest(measured, size)
    kept = _kept_by_encoders(model, measured, encoding, size)
    checkpointed = config.activation_checkpointing
    terms = estimate_memory(model, tokens, targets, bf16, checkpointed, kept, not device.is_gpu)
    if config.max_interpolation:
        weights = (p for p in model.thinker.parameters() if p.requires_grad)
        terms["start"] = sum(p.numel() * p.element_size() for p in weights)
    flops = _flops(model, measured, encoding, size * config.gradient_accumulation)
    rate = (device.bf16 if bf16 else device.fp32) * device.used
    seconds = sum(flops.values()) / rate
    return {
        "parts": parts_table(model),
        "samples": {name: kind.means() for name, kind in measured.kinds.items()},
        "batch": {
            "samples": size,
            "tokens": measured.mean("tokens") * size,
            "largest": tokens,
            "supervised": measured.mean("supervised") * size,
        },
        "precision": "bf16" if bf16 else "fp32",
        "memory": terms,
        "memory_total": sum(terms.values()),
        "flops_per_step": flops,
        "steps": plan.total_steps,
        "device": device.name,
        "device_memory": device.memory,
        "flops_per_second": rate,
        "utilisation": device.used,
        "step_seconds": seconds,
        "hours": seconds * plan.total_steps / 3600,
    }


def expects_bf16(config: SftConfig, model: OmniModel, device: Device, samples: int) -> bool:
    """What ``precision.choose_precision`` will say on that device."""
    if config.precision != "auto":
        return config.precision == "bf16"
    large = sum(p.numel() for p in model.parameters()) > SMALL_MODEL or samples >= BF16_SAMPLES
    return device.is_gpu or (has_bf16_units() and large)


def _largest(measured: Measured, size: int) -> tuple[int, int]:
    """Tokens and supervised tokens of about the largest batch of a run."""
    found = torch.tensor(measured.lengths, dtype=torch.float64)
    spread = found.std(dim=0, correction=0) * SPREAD * math.sqrt(size)
    most = torch.minimum(found.mean(dim=0) * size + spread, found.max(dim=0).values * size)
    tokens, targets = most.ceil().long().tolist()
    return tokens, targets


def _kept_by_encoders(
    model: OmniModel, measured: Measured, encoding: dict[str, ModuleCost], size: int
) -> int:
    """Bytes that projectors, and encoders that are trained, keep of a batch; roughly."""
    total = 0.0
    samples = sum(kind.samples for kind in measured.kinds.values())
    for name, encoder in model.modalities.items():
        slots = sum(kind.slots[name] for kind in measured.kinds.values()) / max(1, samples)
        # Rows, their norm, and twice the thinker's width before and after the activation.
        total += slots * size * 4 * (2 * encoder.feature_dim + 4 * model.thinker.config.hidden_size)
        if name in encoding and any(p.requires_grad for p in model.encoders[name].parameters()):
            total += measured.media(name) * size * encoding[name].kept
    return round(total)


def _flops(
    model: OmniModel, measured: Measured, encoding: dict[str, ModuleCost], samples: int
) -> dict[str, float]:
    """Floating point operations of a step, by part."""
    sums = (measured.mean(name) * samples for name in ("tokens", "supervised", "squares"))
    found = {"thinker": thinker_flops(model, *sums) * passes(model.thinker)}
    total = sum(kind.samples for kind in measured.kinds.values())
    for name, encoder in model.modalities.items():
        slots = sum(kind.slots[name] for kind in measured.kinds.values()) / max(1, total)
        projector = model.projector(name)
        weights = sum(p.numel() for p in projector.parameters())
        found[encoder.medium.projector_part] = 2.0 * weights * slots * samples * passes(projector)
        if name in encoding:
            module = model.encoders[name]
            trained = any(p.requires_grad for p in module.parameters())
            each = encoding[name].flops * (passes(module) if trained else 1.0)
            found[encoder.medium.encoder_part] = each * measured.media(name) * samples
    return found
