"""Padding-free batches: samples lie end to end in one row, with their own positions.

Shape suffixes: T tokens of the row, P of all segments (those that several begin with counted in
each), B segments, L longest segment, N supervised tokens, R feature rows, D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from omnitune.data.segments import Segments, lay_out
from omnitune.data.template import Rendered
from omnitune.sample import UserError


class Shard(NamedTuple):
    """What one of several processes takes of a micro-batch: about one in ``of``."""

    rank: int
    of: int


WHOLE = Shard(0, 1)


class Origin(NamedTuple):
    """Which sample of a run an item is of, and what of its record is asked.

    Attributes:
        k: number of the sample. source: that it is drawn from.
        place: of the record among the source's training samples. number: of it in its file.
        asked: numbers of the record's questions, in the order in which they are shown; empty where
            the record is shown as it is.
    """

    k: int
    source: str
    place: int
    number: int
    asked: tuple[int, ...]


@dataclass
class MediaRows:
    """One modality's media of a batch.

    Attributes:
        slots_R: row positions that the projected features are written to.
        features_RD: encoded rows, or None where ``inputs`` are still to be encoded.
        inputs: encoder inputs, one a medium, else empty.
        rows_M: encoded rows of each medium, else empty. slots_M: slots of each.
    """

    slots_R: Tensor
    features_RD: Tensor | None
    inputs: list[Tensor]
    rows_M: list[int]
    slots_M: list[int]


@dataclass
class Batch:
    """What the model and the loop see of the data.

    Attributes:
        tokens_T: ids. positions_T: place within the segment.
        predict_N: row positions whose next token is supervised. labels_N: those tokens.
        weight_N: how much each counts in the loss.
        group_N: score group (source) of each supervised token.
        turn_N: running number of the turn that each supervised token belongs to.
        sample_N: place in the whole micro-batch of the sample that it belongs to.
        num_groups: number of groups. ids: the samples. media: by modality.
        shown_2G: number of samples and of tokens (media included), by group.
        added_M: ids that are heard along with those of the row, at the positions ``at_M``.
    """

    tokens_T: Tensor
    positions_T: Tensor
    segments: Segments
    predict_N: Tensor
    labels_N: Tensor
    weight_N: Tensor
    group_N: Tensor
    turn_N: Tensor
    sample_N: Tensor
    num_groups: int
    ids: list[str]
    media: dict[str, MediaRows]
    added_M: Tensor
    at_M: Tensor
    shown_2G: Tensor

    @property
    def num_targets(self) -> float:
        """Supervised tokens, by their weights."""
        return float(self.weight_N.sum())

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
        shared: number of leading tokens that stand in the row already, as those of the last
            item before it that shares none (see ``share_prefix``).
        opens: whether a sample begins here: one whose questions are asked alone is several items.
        resampled: modalities whose projector gives a number of slots of its own.
        origin: the sample of a run that it is of. place: of that in its micro-batch.
    """

    id: str
    rendered: Rendered
    media: Sequence[Tensor]
    group: int = 0
    raw: frozenset[str] = frozenset()
    shared: int = 0
    opens: bool = True
    resampled: frozenset[str] = frozenset()
    origin: Origin | None = None
    place: int = 0

    @property
    def row_tokens(self) -> int:
        """Tokens that it takes of the row."""
        return len(self.rendered.tokens) - self.shared


def pack(
    items: Sequence[Item],
    num_groups: int = 1,
    prompt_weight: float = 0.0,
    loss_length_exponent: float = 0.0,
) -> Batch:
    """Packs samples into one row; labels are shifted here and nowhere else.

    Args:
        prompt_weight: of the tokens that are not the assistant's (pretraining); at 0 they are
            no targets. An assistant's turn of weight 0 is none in either case.
        loss_length_exponent: an answer of n tokens weighs n to the power of 1 less this, in all.

    Raises:
        UserError: a medium has another number of feature rows than slots; names the sample.
    """
    rows = _rows(items)
    each_B = np.array([len(row) for row in rows])
    row_P = np.concatenate(rows)
    place_P = np.concatenate([np.arange(count) for count in each_B])
    shared_P = np.repeat([item.shared for item in items], each_B)
    token_P = np.concatenate([np.array(item.rendered.tokens) for item in items])
    answer_P = np.concatenate([np.array(item.rendered.supervised) for item in items])
    own_P = place_P >= shared_P
    starts_B = each_B.cumsum() - each_B
    wanted_P = own_P & (place_P > 0) & (answer_P | (prompt_weight > 0))
    for start, item in zip(starts_B, items, strict=True):
        for first, end in item.rendered.masked:  # the assistant's too, but not to be learnt
            wanted_P[start + first : start + end] = False
    (target_N,) = np.nonzero(wanted_P)
    opens_P = np.zeros(len(row_P), dtype=np.int64)
    opens = zip(starts_B, items, strict=True)
    opens_P[[start + first for start, i in opens for _, first, _ in i.rendered.turns]] = 1
    turn_N = torch.from_numpy(((opens_P * own_P).cumsum() - 1)[target_N])
    group_P = np.repeat([item.group for item in items], each_B)
    sample_P = np.repeat([item.place for item in items], each_B)
    added = [
        (token, int(row[place]))
        for item, row in zip(items, rows, strict=True)
        for token, place in item.rendered.added
        if place >= item.shared
    ]
    answer_N = torch.from_numpy(answer_P[target_N])
    return Batch(
        tokens_T=torch.from_numpy(token_P[own_P]),
        positions_T=torch.from_numpy(place_P[own_P]),
        segments=lay_out([item.shared for item in items], rows),
        predict_N=torch.from_numpy(row_P[target_N - 1]),
        labels_N=torch.from_numpy(token_P[target_N]),
        weight_N=_weigh(answer_N, turn_N, prompt_weight, loss_length_exponent),
        group_N=torch.from_numpy(group_P[target_N]),
        turn_N=turn_N,
        sample_N=torch.from_numpy(sample_P[target_N]),
        num_groups=num_groups,
        ids=[item.id for item in items],
        media=_collect_media(items, rows),
        added_M=torch.tensor([token for token, _ in added], dtype=torch.long),
        at_M=torch.tensor([place for _, place in added], dtype=torch.long),
        shown_2G=_shown(items, num_groups),
    )


def of_like_length(
    lengths: Sequence[float], at_most: int, positions: float = math.inf
) -> Iterator[list[int]]:
    """Numbers of what has these lengths, in batches from the shortest to the longest.

    Args:
        at_most: in a batch.
        positions: of a batch with all padded to its longest, at most; unless one alone has more.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        full = len(batch) == at_most or (len(batch) + 1) * lengths[number] > positions
        if batch and full:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _weigh(
    answer_N: Tensor, turn_N: Tensor, prompt_weight: float, loss_length_exponent: float
) -> Tensor:
    """Weights in the loss: of the tokens of answers by their lengths, of the rest alike."""
    if not len(answer_N):
        return torch.zeros(0)
    turn_N = turn_N - turn_N.min()
    length_N = torch.bincount(turn_N, weights=answer_N.float())[turn_N]
    return torch.where(answer_N, length_N**-loss_length_exponent, prompt_weight)


def _shown(items: Sequence[Item], num_groups: int) -> Tensor:
    group_B = torch.tensor([item.group for item in items])
    amounts_2B = torch.tensor([[i.opens for i in items], [i.row_tokens for i in items]])
    return torch.zeros(2, num_groups).index_add(1, group_B, amounts_2B.float())


def share_prefix(items: Sequence[Item]) -> None:
    """Lets items share the tokens and media that they begin with as the first of them does.

    Nothing changes but the work: what a token sees of those before it is the same in each.
    """
    first = items[0]
    for item in items[1:]:
        item.shared = _common_prefix(first, item)
        first = first if item.shared else item


def _common_prefix(first: Item, other: Item) -> int:
    """Number of leading tokens that two items have in common; no slots are cut, no answer lost."""
    a, b = first.rendered, other.rendered
    pairs = enumerate(zip(a.tokens, b.tokens, strict=False))
    ends = [next((n for n, (x, y) in pairs if x != y), min(len(a.tokens), len(b.tokens)) - 1)]
    ends += [place for _, place in set(a.added) ^ set(b.added)]
    ends += [rendered.supervised.index(True) for rendered in (a, b) if any(rendered.supervised)]
    same = [x for x, y in zip(a.slots, b.slots, strict=False) if x == y]
    ends += [slots.start for slots in (*a.slots, *b.slots) if slots not in same]
    end = min(ends)
    return min([end, *(s.start for s in same if s.start < end < s.start + s.count)])


def _rows(items: Sequence[Item]) -> list[np.ndarray]:
    """Position in the row of each of an item's tokens."""
    rows: list[np.ndarray] = []
    root = np.arange(0)
    total = 0
    for item in items:
        end = total + item.row_tokens
        own = np.arange(total, end)
        rows.append(np.concatenate([root[: item.shared], own]) if item.shared else own)
        root = root if item.shared else own
        total = end
    return rows


def _collect_media(items: Sequence[Item], rows: list[np.ndarray]) -> dict[str, MediaRows]:
    slots: dict[str, list[Tensor]] = {}
    tensors: dict[str, list[Tensor]] = {}
    raw = frozenset().union(*(item.raw for item in items))
    for item, row in zip(items, rows, strict=True):
        for slot, tensor in zip(item.rendered.slots, item.media, strict=True):
            name = slot.media.modality
            if name not in raw | item.resampled and tensor.shape[0] != slot.count:
                raise UserError(
                    f"sample {item.id}: {slot.media.path} has {tensor.shape[0]} feature rows "
                    f"for {slot.count} slots"
                )
            if slot.start < item.shared:
                continue
            places = row[slot.start : slot.start + slot.count]
            slots.setdefault(name, []).append(torch.from_numpy(places))
            tensors.setdefault(name, []).append(tensor)
    return {
        name: MediaRows(
            torch.cat(slots[name]),
            None if name in raw else torch.cat(tensors[name]),
            tensors[name] if name in raw else [],
            [] if name in raw else [len(tensor) for tensor in tensors[name]],
            [len(places) for places in slots[name]],
        )
        for name in slots
    }


def _move(value, device):  # type: ignore[no-untyped-def]
    """Moves every tensor of a nested batch; to a GPU from pinned memory, without waiting for it."""
    if isinstance(value, Tensor):
        value = value.pin_memory() if device.type == "cuda" and not value.is_cuda else value
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _move(v, device) for key, v in value.items()}
    if isinstance(value, list):
        return [_move(v, device) for v in value]
    if isinstance(value, Segments | MediaRows | Batch):
        return type(value)(**{f.name: _move(getattr(value, f.name), device) for f in fields(value)})
    return value
