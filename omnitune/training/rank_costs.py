"""What a plan says of several ranks: memory on each, bytes that each sends, the largest model.

Bytes are those that leave a rank by the usual ring algorithms: to gather or to reduce and divide
b bytes among n ranks takes (n - 1) / n of b, to add them up everywhere twice that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from omnitune.config.sft import SftConfig
from omnitune.media.base import counted
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.training.devices import HERE
from omnitune.training.memory import divided, weight_bytes

# Bytes a second that a GPU is assumed to send: to one of its machine (NVLink of Hopper, 450e9 at
# its peak), to another machine (one port of 400 Gbit/s each). Of either a share is reached.
WITHIN, BETWEEN = 450e9, 50e9
REACHED = 0.7
# Bytes of a weight that is trained: itself, its gradient, two moments.
TRAINED = 16
READ = 4  # bytes of a weight where rank 0 holds the whole in its machine's memory, to hand it out
ROOM = 0.9  # of a device's memory that may be planned with


def share_out(
    plan: Mapping[str, Any],
    config: SftConfig,
    model: OmniModel,
    ranks: int,
    per_machine: int,
) -> dict[str, Any]:
    """A plan's figures on each of several ranks, as JSON-able values.

    Args:
        per_machine: ranks of a machine.

    Raises:
        UserError: the settings do not fit that many ranks.
    """
    terms = _batch_divided(plan["memory"], ranks)
    shards, copies = config.parallel.grid(ranks)
    if shards * copies != ranks:
        raise UserError(f"parallel.shard times parallel.replicate is not --ranks {ranks}")
    whole = terms | {"buckets": terms["gradients"]}
    apart = divided(terms, shards) | {"gathered": gathered_bytes(model)}
    memory = {"ddp": whole, "fsdp": apart}
    # A GPU is a rank's own; a machine's cores and memory are those of all its ranks.
    together = min(ranks, per_machine) if plan["device"] == HERE else 1
    room = ROOM * plan["device_memory"] / together
    asked = config.parallel.mode
    if asked not in memory:
        asked = "ddp" if sum(whole.values()) <= room else "fsdp"
    in_group, in_copies = sent_bytes(config, model, asked, shards, copies)
    sent = in_group + in_copies
    # Ranks that share the weights once lie next to each other.
    inside = (shards if asked == "fsdp" else ranks) <= per_machine
    seconds = in_group / (REACHED * (WITHIN if inside else BETWEEN))
    seconds += in_copies / (REACHED * (WITHIN if ranks <= per_machine else BETWEEN))
    computing = plan["step_seconds"] * together / ranks
    return {
        "count": ranks,
        "machines": -(-ranks // per_machine),
        "mode": asked,
        "memory": memory[asked],
        "memory_total": sum(memory[asked].values()),
        "bytes_sent_per_step": sent,
        "computing_seconds": computing,
        "sending_seconds": seconds,
        "hours": [
            max(computing, seconds) * plan["steps"] / 3600,
            (computing + seconds) * plan["steps"] / 3600,
        ],
        "reading": weight_bytes(model),
        "largest": _largest(terms, room, shards, gathered_bytes(model), together),
    }


def _batch_divided(terms: Mapping[str, int], ranks: int) -> dict[str, int]:
    """The terms of a rank that computes its share of a batch."""
    of_batch = ("activations", "logits", "allocator")
    return {name: n // ranks if name in of_batch else n for name, n in terms.items()}


def gathered_bytes(model: OmniModel) -> int:
    """What a rank of a divided model holds whole at a time: two layers, and all else but layers."""
    layers = list(model.thinker.get_decoder().layers)
    largest = max(weight_bytes(layer) for layer in layers)
    rest = weight_bytes(model) - sum(weight_bytes(layer) for layer in layers)
    return 2 * largest + rest


def sent_bytes(
    config: SftConfig, model: OmniModel, mode: str, shards: int, copies: int
) -> tuple[float, float]:
    """Bytes that leave a rank in a step: to those that share the weights with it, and to copies."""
    gradients = _trained_bytes(model)
    if mode == "ddp":
        return 2 * _all_but_one(shards * copies) * gradients, 0.0  # once a step
    layers = sum(weight_bytes(layer) for layer in model.thinker.get_decoder().layers)
    # Layers are gathered again for the backward pass.
    gathered = weight_bytes(model) + layers
    times = config.gradient_accumulation
    in_group = _all_but_one(shards) * (gathered + gradients)
    return times * in_group, times * 2 * _all_but_one(copies) * gradients / shards


def _all_but_one(count: int) -> float:
    return (count - 1) / count


def _trained_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _largest(
    terms: Mapping[str, int], room: float, shards: int, gathered: int, together: int
) -> dict[str, float]:
    """Weights of the largest model that could be trained whole, with batches as they are.

    Args:
        room: bytes of a rank. gathered: what it holds whole at a time; of this model.
        together: ranks that share their memory with the one that reads the model; 1 if their own.
    """
    left = room - sum(terms.get(name, 0) for name in ("activations", "logits", "allocator"))
    divided = max(0.0, left - gathered) * shards / TRAINED
    if together > 1:  # where it is read, the whole lies beside their shares
        divided = min(divided, room * together / READ / (1 + together / shards))
    return {"ddp": max(0.0, left) / (TRAINED + 4), "fsdp": divided}


def rank_lines(found: Mapping[str, Any]) -> list[str]:
    """The figures in words."""
    gib = 2**30
    terms = ", ".join(f"{name} {size / gib:.3f}" for name, size in found["memory"].items())
    low, high = (f"{hours:.2f}" for hours in found["hours"])
    spread = f" if all sending is hidden behind computing, {high} if none is"
    return [
        f"{found['count']} ranks on {counted(found['machines'], 'machine')}, {found['mode']}: each "
        "takes "
        f"{found['memory_total'] / gib:.3f} GiB ({terms})",
        f"  each sends {found['bytes_sent_per_step'] / 1e9:.3g} GB a step: "
        f"{found['sending_seconds']:.2g} s, beside {found['computing_seconds']:.2g} s of computing",
        f"  {low} hours{spread if high != low else ''}",
        f"  largest model that would fit, trained whole: {found['largest']['ddp'] / 1e9:.2f} "
        f"billion weights under ddp, {found['largest']['fsdp'] / 1e9:.2f} under fsdp",
        "  rank 0 reads the model for all: its machine's memory holds "
        f"{found['reading'] / gib:.3f} GiB of weights at the start, and under fsdp at the end",
    ]
