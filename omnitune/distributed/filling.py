"""Weights that rank 0 alone has read come to the other ranks, one after the other.

They have the same model without values (``models.outline``), divided or not. So no rank but the
first holds more than its part and the one weight that is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from omnitune.distributed.sharding import put
from omnitune.models.outline import replace_weights

Send = Callable[[Sequence[Tensor]], None]


def is_hollow(model: nn.Module) -> bool:
    """Whether any weight has no values here (it is on torch's meta device)."""
    return any(weight.is_meta for weight in model.parameters())


def take_out(module: nn.Module) -> dict[str, Tensor]:
    """Takes the values of a module's weights out of it, and returns those that it has, by name."""
    values = {n: w.detach() for n, w in module.named_parameters() if not w.is_meta}
    replace_weights(module, torch.empty_like, "meta")
    return values


@torch.no_grad()
def fill_whole(module: nn.Module, device: torch.device, send: Send) -> None:
    """Gives a module on each rank the values that it has on rank 0.

    Args:
        send: writes rank 0's values of tensors into those of the others.
    """
    if is_hollow(module):
        replace_weights(module, torch.empty_like, device)
    nn.Module.to(module, device)
    send(list(module.parameters()))


@torch.no_grad()
def fill_divided(
    model: nn.Module,
    part: str,
    values: dict[str, Tensor],
    device: torch.device,
    kept_on: torch.device,
    send: Send,
) -> None:
    """Gives each rank its share of the values of a divided model's part.

    Args:
        part: its name in the model, whose weights have no values.
        values: what ``take_out`` gave on rank 0, which is emptied; nothing on the others.
        device: by which ranks talk. kept_on: where their shares stay.
    """
    # By the module itself, which tells torch's wrapper of the new memory.
    model._apply(lambda t: torch.empty_like(t, device=kept_on) if t.is_meta else t)
    for name, weight in model.get_submodule(part).named_parameters():
        if values:
            whole = values.pop(name).to(device)
        else:
            whole = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        send([whole])
        put(weight, whole)
