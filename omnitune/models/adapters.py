"""Adapters: small trained weights beside frozen ones, by ``peft`` (LoRA, DoRA).

The part that an adapter is added to keeps its own weights, the base, frozen under their plain
names; what is added is a part of its own, ``thinker_adapter`` beside ``thinker``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omnitune.config.lora import THINKER, LoraSettings
from omnitune.config.settings import nearest
from omnitune.models.kernels import lora
from omnitune.sample import UserError

ADAPTER = "_adapter"  # behind the name of its part
SHOWN = 24  # names of layers in a hint
# What peft calls things: the one adapter of a layer, its weights, the layer that it was added to.
_NAME, _ADDED, _BASE = "default", ".lora_", ".base_layer."

State = dict[str, dict[str, Tensor]]  # by part, and by name within it


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model.

    Attributes:
        saved: by adapted part, what the modules that are trained whole were in the base.
    """

    settings: LoraSettings
    saved: State


def add_adapters(model: Any, settings: LoraSettings) -> None:
    """Adds adapters to a model and freezes what they are added to; its answers stay the same.

    Args:
        model: an ``OmniModel``; ``model.adapters`` will tell of them.

    Raises:
        UserError: a part or a layer that is asked for is not there; nothing was changed.
    """
    modules = model.trunks()
    for part in settings.targets:
        if part not in modules:
            near = nearest(part, modules)
            raise UserError(
                f"lora.targets: {part!r} is not a part that can have adapters; this model's are "
                f"{', '.join(modules)}" + (f"; did you mean {near}?" if near else "")
            )
    layers = {
        part: _choose(f"lora.targets.{part}", regex, _linear_layers(model, part))
        for part, regex in settings.targets.items()
    }
    whole: dict[str, list[str]] = {part: [] for part in layers}
    everything = [name for name, _ in modules[THINKER].named_modules() if name]
    for regex in settings.modules_to_save:
        if THINKER not in whole:
            raise UserError("lora.modules_to_save: lora.targets does not name the thinker")
        whole[THINKER] += _choose("lora.modules_to_save", regex, everything)
    saved = {}
    for part, names in layers.items():
        module = modules[part]
        inside = tuple(f"{name}." for name in whole[part])
        _inject(module, [n for n in names if not f"{n}.".startswith(inside)], settings)
        weights = {
            f"{name}.{inner}": weight
            for name in whole[part]
            for inner, weight in module.get_submodule(name).named_parameters()
        }
        for weight in weights.values():
            weight.requires_grad_(True)
        saved[part] = {name: weight.detach().clone() for name, weight in weights.items()}
    model.adapters = Adapters(settings, saved)


def _linear_layers(model: Any, part: str) -> list[str]:
    """Names of the layers that can have adapters; of a thinker those of its decoder."""
    trunk = model.trunks()[part]
    inside = trunk.get_decoder() if part == THINKER else trunk
    linear = {id(module) for module in inside.modules() if type(module) is nn.Linear}
    return [name for name, module in trunk.named_modules() if id(module) in linear]


def _choose(key: str, regex: str | None, names: list[str]) -> list[str]:
    """The names of which a regular expression is the whole or the end, behind a dot.

    Raises:
        UserError: there are none.
    """
    pattern = re.compile(r"(?:.*\.)?(?:" + (".*" if regex is None else regex) + ")")
    if chosen := [name for name in names if pattern.fullmatch(name)]:
        return chosen
    there = list(dict.fromkeys(re.sub(r"\.\d+\.", ".0.", name) for name in names))
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    raise UserError(
        f"{key}: {'no regular expression' if regex is None else repr(regex)} matches none of this "
        f"part's names, which are such as {', '.join(there[:SHOWN])}{more}; a regular expression "
        "matches a whole name or its end behind a dot"
    )


def _inject(module: nn.Module, names: list[str], settings: LoraSettings) -> None:
    """Puts adapters into layers of a part; everything else in it is frozen."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, which most runs need not

    module.requires_grad_(False)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # it divides it only
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        target_modules=r"part\.(" + "|".join(map(re.escape, names)) + ")",
    )
    # In a case of its own: of a model that peft knows it would rename targets, by family.
    inject_adapter_in_model(config, nn.ModuleDict({"part": module}), _NAME)
    for _, layer in _adapted_layers(module):
        lora.install(layer)
        # The weights of a base in half precision would swallow small steps.
        for weight in _added(layer).values():
            weight.data = weight.data.float()
        if _NAME in layer.lora_magnitude_vector:
            layer.lora_magnitude_vector[_NAME].weight.data = _lengths(layer)


def _adapted_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, m) for name, m in module.named_modules() if hasattr(m, "lora_magnitude_vector"))


def _added(layer: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in layer.named_parameters() if _ADDED in f".{name}"}


def _lengths(layer: Any) -> Tensor:
    """Lengths of the rows of a layer's own weights, which DoRA begins with."""
    return torch.linalg.norm(layer.base_layer.weight.detach().float(), dim=1)


def parts_of(modules: Mapping[str, nn.Module], adapters: Adapters | None) -> dict[str, nn.Module]:
    """Each part, where it is adapted without what was added, which follows as a part of its own."""
    if adapters is None:
        return dict(modules)
    parts: dict[str, nn.Module] = {}
    for part, module in modules.items():
        if part not in adapters.saved:
            parts[part] = module
            continue
        added = list(_trained(module, adapters.saved[part]).values())
        seen = set(map(id, added))
        parts[part] = nn.ParameterList(p for p in module.parameters() if id(p) not in seen)
        parts[part + ADAPTER] = nn.ParameterList(added)
    return parts


def _trained(module: nn.Module, saved: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The weights of a part's adapter, modules that are trained whole among them."""
    named = dict(module.named_parameters(remove_duplicate=False))
    whole = {name: named[name] for name in saved}
    return {name: p for name, p in named.items() if _ADDED in name} | whole


def adapted_prefixes(model: Any) -> list[str]:
    """What the names of weights in adapted parts begin with, as ``model`` names them."""
    saved = () if model.adapters is None else model.adapters.saved
    ids = {id(module) for part, module in model.trunks().items() if part in saved}
    return [f"{name}." for name, module in model.named_modules() if id(module) in ids]


def base_state(model: Any, part: str) -> dict[str, Tensor]:
    """A part's state as if it had never had an adapter."""
    module: nn.Module = model.trunks()[part]
    state = module.state_dict()
    if model.adapters is None or part not in model.adapters.saved:
        return state
    named = dict(module.named_parameters(remove_duplicate=False))
    before = {id(named[name]): tensor for name, tensor in model.adapters.saved[part].items()}
    return {
        name.replace(_BASE, "."): before.get(id(named.get(name)), tensor)
        for name, tensor in state.items()
        if _ADDED not in name
    }


def adapter_state(model: Any) -> State:
    """What the adapters have learnt: names as peft's files have them, within each part."""
    if model.adapters is None:
        return {}
    return {
        part: {_plain(n): p.detach() for n, p in _trained(model.trunks()[part], saved).items()}
        for part, saved in model.adapters.saved.items()
    }


def _plain(name: str) -> str:
    return name.replace(f".{_NAME}.", ".")


@torch.no_grad()
def load_adapter_state(model: Any, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Puts in what ``adapter_state`` gave.

    Raises:
        UserError: the state is of other adapters; names the first weight.
    """
    here = adapter_state(model)
    flat = [
        {(part, n): t for part, ts in found.items() for n, t in ts.items()}
        for found in (here, state)
    ]
    for key in flat[0].keys() ^ flat[1].keys():
        raise UserError(f"the adapter's weight {key[1]} of {key[0]} is missing in one of the two")
    for key, tensor in flat[0].items():
        if tensor.shape != flat[1][key].shape:
            raise UserError(
                f"the adapter's weight {key[1]} of {key[0]} has the size "
                f"{list(flat[1][key].shape)}, expected {list(tensor.shape)}"
            )
        tensor.copy_(flat[1][key])


def to_checkpoint(model: Any) -> dict[str, Any]:
    """What ``omni.pt`` holds of adapters, under ``adapter``; nothing without them."""
    if model.adapters is None:
        return {}
    config = model.adapters.settings.model_dump(mode="json")
    return {"adapter": {"config": config, "state": adapter_state(model)}}


def from_checkpoint(model: Any, values: Mapping[str, Any]) -> None:
    """Adds and loads the adapters of ``omni.pt``, if it has any; the base is there already.

    Raises:
        UserError: they do not fit the model.
    """
    if (found := values.get("adapter")) is None:
        return
    try:
        settings = LoraSettings.model_validate(found["config"])
    except ValueError as error:
        raise UserError(f"its adapter has settings that are not known here ({error})") from None
    add_adapters(model, settings)
    load_adapter_state(model, found["state"])


def without_effect(module: nn.Module, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values, by name in an adapted part, with which it gives what its base gives.

    On the way to them an adapter fades: that of LoRA in proportion.
    """
    values = dict(saved)
    for name, layer in _adapted_layers(module):
        for inner, weight in _added(layer).items():
            if inner.startswith("lora_B."):
                values[f"{name}.{inner}"] = torch.zeros_like(weight, requires_grad=False)
            elif inner.startswith("lora_magnitude_vector."):
                values[f"{name}.{inner}"] = _lengths(layer)
    return values


@contextmanager
def disabled(model: Any) -> Iterator[None]:
    """The model computes as its base does, without any adapter."""
    parts = {} if model.adapters is None else model.adapters.saved
    modules = [(model.trunks()[part], saved) for part, saved in parts.items()]
    layers = [layer for module, _ in modules for _, layer in _adapted_layers(module)]
    # The attribute itself: peft's own switch would decide anew what is trained.
    before = [layer._disable_adapters for layer in layers]
    whole = [
        (weight, weight.data, saved[name])
        for module, saved in modules
        for name, weight in _trained(module, saved).items()
        if name in saved
    ]
    try:
        _switch(layers, [True] * len(layers), ((w, base.to(w.device)) for w, _, base in whole))
        yield
    finally:
        _switch(layers, before, ((weight, data) for weight, data, _ in whole))


def _switch(
    layers: Iterable[Any], flags: Iterable[bool], data: Iterable[tuple[nn.Parameter, Tensor]]
) -> None:
    for layer, flag in zip(layers, flags, strict=True):
        layer._disable_adapters = flag
    for weight, values in data:
        weight.data = values


@torch.no_grad()
def merge(model: Any) -> None:
    """Adds the adapters to the weights beneath them, in fp32; the model is then a plain one."""
    parts = () if model.adapters is None else tuple(model.adapters.saved)
    for part in parts:
        trunk: nn.Module = model.trunks()[part]
        for name, layer in list(_adapted_layers(trunk)):
            weight = layer.base_layer.weight
            merged = weight.float() + layer.get_delta_weight(_NAME)
            if _NAME in layer.lora_magnitude_vector:
                lengths = layer.lora_magnitude_vector[_NAME].weight
                merged *= (lengths / torch.linalg.norm(merged, dim=1)).unsqueeze(1)
            weight.copy_(merged)
            trunk.set_submodule(name, layer.base_layer)
    model.adapters = None
