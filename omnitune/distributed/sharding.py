"""A model whose weights are divided among ranks, by torch's ``fully_shard`` (FSDP2).

Each decoder layer is gathered when it is needed and let go again. What every batch needs, the
embeddings, the head and the projectors, is gathered once a pass. An encoder is a group of its own,
which each pass gathers whether its batch holds such a medium or not: so all ranks make the same
calls. A frozen encoder that is small stays whole on each rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from omnitune.storage import machine_memory, usable_cores

# Bytes up to which a frozen encoder stays whole: to gather it in each pass would take longer than
# the memory is worth.
SMALL = 1 << 30
ALONE = 0.9  # of a device's memory, for a model that rank 0 alone computes with in the end
# Share of a device's memory that weights, gradients and optimiser may take where each rank holds
# all of them; activations need the rest.
ROOM = 0.6
_TRAINED_BYTES = 16  # of a trained weight: itself, its gradient, two moments
_TOUCH = "gather_root"


def fits(model: nn.Module, device: torch.device) -> bool:
    """Whether each rank can hold the whole model, its gradients and its optimiser's state."""
    needed = sum(
        p.numel() * (_TRAINED_BYTES if p.requires_grad else p.element_size())
        for p in model.parameters()
    )
    return needed < _room(device)


def fits_whole(model: nn.Module, device: torch.device, room: float = ROOM) -> bool:
    """Whether each rank can hold the whole model once, to compute with it only.

    Args:
        room: share of the device's memory that it may take.
    """
    return sum(p.numel() * p.element_size() for p in model.parameters()) < _room(device, room)


def _room(device: torch.device, share: float = ROOM) -> float:
    if device.type == "cuda":
        return share * torch.cuda.get_device_properties(device).total_memory
    return share * machine_memory() / max(1, usable_cores())


def shard(
    model: nn.Module,
    device: torch.device,
    sizes: tuple[int, int],
    cpu_offload: bool = False,
    fill: Callable[[], None] = lambda: None,
) -> None:
    """Divides a model's weights in place.

    Args:
        sizes: ranks that share the weights once, and how often they are held.
        fill: called when all is divided, and before a weight is used: gives values to those that
            have none.
    """
    count, copies = sizes
    shape, names = (
        ((copies, count), ("replicate", "shard")) if copies > 1 else ((count,), ("shard",))
    )
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    policy: OffloadPolicy = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    kept: dict[str, Any] = {"mesh": mesh, "offload_policy": policy}
    for layer in cast(Any, model).thinker.get_decoder().layers:
        fully_shard(layer, **kept)
    whole: set[nn.Parameter] = set()
    for encoder in cast(Any, model).encoders.values():
        if not any(True for _ in encoder.parameters()):
            continue
        if _stays_whole(encoder):
            whole |= set(encoder.parameters())
        else:
            fully_shard(encoder, reshard_after_forward=False, **kept)
    fully_shard(model, reshard_after_forward=False, ignored_params=whole, **kept)
    # Behind torch's own hook, within the pass.
    model.register_forward_pre_hook(lambda module, _: gather_encoders(module))
    # A weight that only some ranks' batches have used is reduced on all of them.
    cast(FSDPModule, model).set_reduce_scatter_unused_params(True)
    setattr(model, _TOUCH, lambda: None)
    register_fsdp_forward_method(model, _TOUCH)
    fill()
    # Memory of gathered weights is made at first use, which must not be where nothing is recorded
    # for a backward pass.
    with gathered_root(model):
        for module in _groups(model):
            module.unshard()
            module.reshard()


def _stays_whole(encoder: nn.Module) -> bool:
    if any(p.requires_grad for p in encoder.parameters()):
        return False
    return sum(p.numel() * p.element_size() for p in encoder.parameters()) <= SMALL


def _groups(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def gathered_root(model: nn.Module) -> Iterator[None]:
    """What every pass needs is there: for scoring, which calls the model's parts one by one."""
    with torch.no_grad():
        getattr(model, _TOUCH)()
    try:
        yield
    finally:
        for module in _groups(model):
            module.reshard()
        # What was computed here would else count as the forward pass of the next backward pass,
        # which gathers ahead by the order of it: on each rank another one.
        cast(FSDPModule, model).reset_iter_state()


def gather_encoders(model: nn.Module) -> None:
    """Gathers the divided encoders; all ranks do so in each pass, whatever their batch holds."""
    for encoder in cast(Any, model).encoders.values():
        if isinstance(encoder, FSDPModule):
            encoder.unshard()


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors in the machine's memory, one gathered after the other.

    Args:
        keep: on this rank; the others take part only.
    """
    state = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            state[name] = whole.detach().to("cpu", copy=True)
    return state


def dealt_matrices(
    parameters: Sequence[nn.Parameter],
    part_of: Callable[[nn.Parameter], Tensor],
    function: Callable[[Tensor], Tensor],
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """A function of whole matrices of one shape, each computed by one of the ranks that share it.

    Args:
        part_of: this rank's part of a parameter's matrix.

    Yields:
        each parameter with this rank's part of what the function made of its matrix.
    """
    first = cast(DTensor, parameters[0])
    mesh = first.device_mesh
    group = mesh.get_group(mesh.ndim - 1)  # the last one divides, one before it holds copies
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    for start in range(0, len(parameters), size):
        some = parameters[start : start + size]
        own: Tensor | None = None
        for n, parameter in enumerate(some):
            whole = _like(part_of(parameter), cast(DTensor, parameter)).full_tensor()
            if n == rank:
                own = function(whole).contiguous()
        for n, parameter in enumerate(some):
            found = own if n == rank and own is not None else torch.empty_like(whole)
            dist.broadcast(found, dist.get_global_rank(group, n), group)
            yield parameter, cast(DTensor, divided_like(parameter, found)).to_local()


def _like(part: Tensor, divided: DTensor) -> DTensor:
    return DTensor.from_local(
        part,
        divided.device_mesh,
        divided.placements,
        run_check=False,
        shape=divided.shape,
        stride=divided.stride(),
    )


@torch.no_grad()
def gather_for_good(model: nn.Module, keep: bool, device: torch.device) -> None:
    """Makes a divided model whole again, in place, one tensor after the other.

    Each part of this rank is let go when the whole is there, so that no rank holds the model twice.

    Args:
        keep: on this rank; the others take part only, and have no model afterwards.
        device: where it is kept.
    """
    for group in _groups(model):
        group.reshard()
        _forget(group)
    wholes: dict[int, nn.Parameter] = {}
    held: list[Tensor] = []  # until the end, so that no other gets its number
    for module in model.modules():
        for name, parameter in cast("dict[str, Any]", module._parameters).items():
            if not isinstance(parameter, DTensor):
                continue
            if id(parameter) not in wholes:
                parameter.grad = None
                whole = parameter.full_tensor().detach()
                own = parameter.to_local()
                if keep and whole.untyped_storage().data_ptr() == own.untyped_storage().data_ptr():
                    whole = whole.clone()  # one rank alone
                own.untyped_storage().resize_(0)
                whole = whole.to(device) if keep else whole.new_empty(0)
                wholes[id(parameter)] = nn.Parameter(whole, requires_grad=parameter.requires_grad)
                held.append(parameter)
            module._parameters[name] = wholes[id(parameter)]


def _forget(module: FSDPModule) -> None:
    """Takes back what ``fully_shard`` did to a module, but for its weights; torch has no way to."""
    state = module._get_fsdp_state()
    state._pre_forward_hook_handle.remove()
    state._post_forward_hook_handle.remove()
    for group in state._fsdp_param_groups:
        for handles in (
            group._module_to_pre_save_state_dict_hook_handle,
            group._module_to_pre_load_state_dict_hook_handle,
        ):
            for handle in handles.values():
                handle.remove()
        for parameter in group.fsdp_params:
            parameter._post_load_hook_handle.remove()
    module.__class__ = type(module).__mro__[module._orig_cls_mro_index]


@torch.no_grad()
def put(into: Tensor, whole: Tensor) -> None:
    """Writes a whole tensor into one that may be divided; each rank takes its own part of it."""
    own = divided_like(into, whole)
    if isinstance(own, DTensor):
        cast(DTensor, into).to_local().copy_(own.to_local())
    else:
        into.copy_(own)


def divided_like(like: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor, which each rank has, divided as another one is."""
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    # Without a source, nothing is sent: each rank cuts out its own part.
    return distribute_tensor(whole.to(mesh.device_type), mesh, like.placements, src_data_rank=None)
