"""A model without its weights, as ranks build it that wait for those of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omnitune.config.lora import LoraSettings
from omnitune.data.chat_template import renderer_of
from omnitune.data.template import ChatRenderer
from omnitune.models import adapters
from omnitune.models.bases import Base
from omnitune.models.kernels import cpu as operators
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import UserError

Kind = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Outline:
    """All of a model but the values of its weights and buffers.

    Attributes:
        config: of ``OmniConfig``. renderer: its ``state()``.
        kinds: shape and number format of each weight and buffer, by name.
        loose: tensors that modules hold beside those, by module and attribute; few and small.
        plain_head: what was found of the thinker's head, which takes its weights to see.
    """

    config: dict[str, Any]
    renderer: dict[str, Any]
    kinds: dict[str, Kind]
    loose: dict[tuple[str, str], Tensor]
    plain_head: bool
    bases: dict[str, Base]
    lora: LoraSettings | None

    @classmethod
    def of(cls, model: OmniModel, renderer: ChatRenderer) -> Outline:
        """That of a model which has its weights on the CPU."""
        config = {
            "thinker": model.config.thinker,
            "encoders": model.config.encoders,
            "projectors": model.config.projectors,
        }
        return cls(
            config,
            renderer.state(),
            _kinds(model),
            {
                (name, attribute): value
                for name, module in model.named_modules()
                for attribute, value in vars(module).items()
                if isinstance(value, Tensor)
            },
            model._has_plain_head,
            model.bases,
            model.adapters.settings if model.adapters else None,
        )

    def build(self) -> tuple[OmniModel, ChatRenderer]:
        """The model on the CPU, but for the thinker's weights, which are on torch's meta device.

        What other weights and buffers there are hold no values yet.

        Raises:
            UserError: the libraries of this machine build another model of the same settings.
        """
        with torch.device("meta"):
            model = OmniModel(OmniConfig(**self.config))
            if self.lora is not None:
                adapters.add_adapters(model, self.lora)
        operators.install_cpu_kernels(model.thinker)
        model._has_plain_head, model.bases = self.plain_head, self.bases
        here = _kinds(model)
        odd = [name for name, (shape, _) in self.kinds.items() if here.get(name, ((),))[0] != shape]
        if odd := sorted({*odd, *(here.keys() - self.kinds.keys())}):
            raise UserError(
                f"this process builds a model with another {odd[0]} than rank 0 has read; all "
                "machines need the same versions of torch, transformers and peft"
            )
        for name, weight in model.named_parameters():
            weight.data = weight.data.to(self.kinds[name][1])
        self._make_buffers(model)
        for module in model.children():
            if module is not model.thinker:
                replace_weights(module, torch.empty_like, "cpu")
        return model, renderer_of(self.renderer)

    def _make_buffers(self, model: nn.Module) -> None:
        """Room on the CPU for the values of buffers, and what is loose, which has its own."""
        made: dict[int, Tensor] = {}
        for name, buffer in model.named_buffers():
            shape, dtype = self.kinds[name]
            made[id(buffer)] = torch.empty(shape, dtype=dtype)
        for module in model.modules():
            for name, found in module._buffers.items():
                if found is not None:
                    module._buffers[name] = made[id(found)]
        for (place, name), value in self.loose.items():
            setattr(model.get_submodule(place), name, value)


def _kinds(model: nn.Module) -> dict[str, Kind]:
    return {
        name: (tuple(t.shape), t.dtype)
        for name, t in (*model.named_parameters(), *model.named_buffers())
    }


def replace_weights(module: nn.Module, change: Callable[..., Tensor], device: object) -> None:
    """Puts others in the place of a module's weights; those that are tied stay so.

    Args:
        change: gives the new values, of the old weight and ``device=``.
    """
    made: dict[int, nn.Parameter] = {}
    held: list[Tensor] = []  # until the end, so that no other gets its number
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is None:
                continue
            if id(weight) not in made:
                held.append(weight)
                values = change(weight.detach(), device=device)
                new = nn.Parameter(values, requires_grad=weight.requires_grad)
                new.__dict__.update(weight.__dict__)  # who has frozen it
                made[id(weight)] = new
            part._parameters[name] = made[id(weight)]
