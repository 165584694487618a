"""Padding-free batches: samples lie end to end in one row, with their own positions.

Shape suffixes: T tokens of the row, B segments, L longest segment, N supervised tokens,
R feature rows, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from omnitune.data.chat import Rendered
from omnitune.sample import UserError


@dataclass
class Segments:
    """Which tokens of the row belong together: attention never leaves a segment.

    Attributes:
        gather_BL: position in the row of each segment's tokens; padded with 0.
        scatter_T: position in the flattened ``[B * L]`` of each token of the row.
    """

    gather_BL: Tensor
    scatter_T: Tensor


@dataclass
class MediaRows:
    """One modality's media of a batch.

    Attributes:
        slots_R: row positions that the projected features are written to.
        features_RD: encoded rows, or None where ``inputs`` are still to be encoded.
        inputs: encoder inputs, one a medium, else empty.
    """

    slots_R: Tensor
    features_RD: Tensor | None
    inputs: list[Tensor]


@dataclass
class Batch:
    """What the model and the loop see of the data.

    Attributes:
        tokens_T: ids. positions_T: place within the segment.
        predict_N: row positions whose next token is supervised. labels_N: those tokens.
        group_N: score group (source) of each supervised token.
        turn_N: running number of the turn that each supervised token belongs to.
        num_groups: number of groups. ids: the samples. media: by modality.
    """

    tokens_T: Tensor
    positions_T: Tensor
    segments: Segments
    predict_N: Tensor
    labels_N: Tensor
    group_N: Tensor
    turn_N: Tensor
    num_groups: int
    ids: list[str]
    media: dict[str, MediaRows]

    @property
    def num_targets(self) -> int:
        """Supervised tokens."""
        return self.labels_N.numel()

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return _move(self, device)


@dataclass
class Item:
    """A rendered sample with its media, ready to be packed.

    Attributes:
        media: one tensor a medium, in the order of ``rendered.slots``: features ``[R, D]``
            or, of the modalities in ``raw``, encoder inputs.
        raw: modalities that are still to be encoded.
    """

    id: str
    rendered: Rendered
    media: Sequence[Tensor]
    group: int = 0
    raw: frozenset[str] = frozenset()


def pack(items: Sequence[Item], num_groups: int = 1, supervise_all: bool = False) -> Batch:
    """Packs samples into one row; labels are shifted here and nowhere else.

    Args:
        supervise_all: every token is a target (pretraining), not only the assistant's.

    Raises:
        UserError: a medium has another number of feature rows than slots; names the sample.
    """
    tokens: list[int] = []
    predict: list[int] = []
    groups: list[int] = []
    turns: list[int] = []
    lengths = [len(item.rendered.tokens) for item in items]
    turn = -1
    for item in items:
        start = len(tokens)
        rendered = item.rendered
        tokens.extend(rendered.tokens)
        opens = {first for _, first, _ in rendered.turns}
        for place in range(1, len(rendered.tokens)):
            turn += place in opens
            if supervise_all or rendered.supervised[place]:
                predict.append(start + place - 1)
                groups.append(item.group)
                turns.append(turn)
    predict_N = torch.tensor(predict, dtype=torch.long)
    tokens_T = torch.tensor(tokens, dtype=torch.long)
    return Batch(
        tokens_T=tokens_T,
        positions_T=torch.cat([torch.arange(n) for n in lengths]),
        segments=_segments(lengths),
        predict_N=predict_N,
        labels_N=tokens_T[predict_N + 1],
        group_N=torch.tensor(groups, dtype=torch.long),
        turn_N=torch.tensor(turns, dtype=torch.long),
        num_groups=num_groups,
        ids=[item.id for item in items],
        media=_collect_media(items, lengths),
    )


def _segments(lengths: list[int]) -> Segments:
    longest = max(lengths)
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    offsets_L = torch.arange(longest)
    inside_BL = offsets_L < torch.tensor(lengths)[:, None]
    gather_BL = torch.where(inside_BL, starts[:, None] + offsets_L, 0)
    return Segments(gather_BL, inside_BL.flatten().nonzero().squeeze(1))


def _collect_media(items: Sequence[Item], lengths: list[int]) -> dict[str, MediaRows]:
    slots: dict[str, list[Tensor]] = {}
    tensors: dict[str, list[Tensor]] = {}
    raw = frozenset().union(*(item.raw for item in items))
    start = 0
    for item, length in zip(items, lengths, strict=True):
        for slot, tensor in zip(item.rendered.slots, item.media, strict=True):
            if slot.media.modality not in raw and tensor.shape[0] != slot.count:
                raise UserError(
                    f"sample {item.id}: {slot.media.path} has {tensor.shape[0]} feature rows "
                    f"for {slot.count} slots"
                )
            name = slot.media.modality
            first = start + slot.start
            slots.setdefault(name, []).append(torch.arange(first, first + slot.count))
            tensors.setdefault(name, []).append(tensor)
        start += length
    return {
        name: MediaRows(
            torch.cat(slots[name]),
            None if name in raw else torch.cat(tensors[name]),
            tensors[name] if name in raw else [],
        )
        for name in slots
    }


def _move(value, device):  # type: ignore[no-untyped-def]
    """Moves every tensor of a nested batch."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _move(v, device) for key, v in value.items()}
    if isinstance(value, list):
        return [_move(v, device) for v in value]
    if isinstance(value, Segments | MediaRows | Batch):
        return type(value)(**{f.name: _move(getattr(value, f.name), device) for f in fields(value)})
    return value
