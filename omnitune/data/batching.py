"""Padding-free batches: samples lie end to end in one row, with their own positions.

Shape suffixes: T tokens of the row, P of all segments (those that several begin with counted in
each), B segments, L longest segment, N supervised tokens, R feature rows, D feature width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from omnitune.data.chat import Rendered
from omnitune.sample import UserError

# A second attention call pays from this share of the work on.
WORTH_A_CALL = 0.85


class Part(NamedTuple):
    """What one of several processes takes of a micro-batch: about one in ``of``."""

    rank: int
    of: int


WHOLE = Part(0, 1)


@dataclass
class Segments:
    """Which tokens of the row belong together: attention never leaves a segment.

    A token may belong to several segments that begin alike (questions about one picture). For
    attention with padding such segments are one tree, in which each token stands once; for that
    without, each segment stands whole.

    Attributes:
        gathers: position in the row of each tree's tokens, ``[B, L]`` padded with 0; trees of one
            segment first, and short and long ones apart, as the work grows with the square of the
            longest.
        masks: of each of ``gathers`` what its tokens do not see, ``[B, 1, L, L]``, to be added to
            the scores; None for trees of one segment, where that is only what comes later.
        scatter_T: position in all of the flattened ``gathers``, end to end, of each token of the
            row; no two share one, but for tokens that no segment holds.
        bounds_B: where each segment begins if they follow each other without padding, and where
            the last ends (int32).
        order_P: position in the row of each token of the segments in that order; None where it
            is the order of the row, as no two segments share a token.
        place_T: position in ``order_P`` of each token of the row, in the first segment that it
            belongs to; None with it.
    """

    gathers: list[Tensor]
    masks: list[Tensor | None]
    scatter_T: Tensor
    bounds_B: Tensor
    order_P: Tensor | None
    place_T: Tensor | None


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
        weight_N: how much each counts in the loss.
        group_N: score group (source) of each supervised token.
        turn_N: running number of the turn that each supervised token belongs to.
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
    """

    id: str
    rendered: Rendered
    media: Sequence[Tensor]
    group: int = 0
    raw: frozenset[str] = frozenset()
    shared: int = 0
    opens: bool = True

    @property
    def row_tokens(self) -> int:
        """Tokens that it takes of the row."""
        return len(self.rendered.tokens) - self.shared


def pack(
    items: Sequence[Item],
    num_groups: int = 1,
    prompt_weight: float = 0.0,
    length_power: float = 0.0,
) -> Batch:
    """Packs samples into one row; labels are shifted here and nowhere else.

    Args:
        prompt_weight: of the tokens that are not the assistant's (pretraining); at 0 they are
            no targets.
        length_power: an answer of n tokens weighs n to the power of 1 less this, in all.

    Raises:
        UserError: a medium has another number of feature rows than slots; names the sample.
    """
    rows = _rows(items)
    each_B = np.array([len(row) for row in rows])
    row_P = np.concatenate(rows)
    place_P = np.concatenate([np.arange(count) for count in each_B])
    shared_P = np.repeat([item.shared for item in items], each_B)
    token_P = _flat(items, lambda rendered: rendered.tokens, np.int64)
    answer_P = _flat(items, lambda rendered: rendered.supervised, np.bool_)
    own_P = place_P >= shared_P
    (target_N,) = np.nonzero(own_P & (place_P > 0) & (answer_P | (prompt_weight > 0)))
    starts_B = each_B.cumsum() - each_B
    opens_P = np.zeros(len(row_P), dtype=np.int64)
    opens = zip(starts_B, items, strict=True)
    opens_P[[start + first for start, i in opens for _, first, _ in i.rendered.turns]] = 1
    turn_N = torch.from_numpy(((opens_P * own_P).cumsum() - 1)[target_N])
    group_P = np.repeat([item.group for item in items], each_B)
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
        segments=_segments(items, rows),
        predict_N=torch.from_numpy(row_P[target_N - 1]),
        labels_N=torch.from_numpy(token_P[target_N]),
        weight_N=_weigh(answer_N, turn_N, prompt_weight, length_power),
        group_N=torch.from_numpy(group_P[target_N]),
        turn_N=turn_N,
        num_groups=num_groups,
        ids=[item.id for item in items],
        media=_collect_media(items, rows),
        added_M=torch.tensor([token for token, _ in added], dtype=torch.long),
        at_M=torch.tensor([place for _, place in added], dtype=torch.long),
        shown_2G=_shown(items, num_groups),
    )


def of_like_length(lengths: Sequence[int], at_most: int, positions: int) -> Iterator[list[int]]:
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


def _flat(
    items: Sequence[Item], column: Callable[[Rendered], Sequence[int]], kind: Any
) -> np.ndarray:
    """A value of each token of all segments, end to end."""
    values = itertools.chain.from_iterable(column(item.rendered) for item in items)
    return np.fromiter(values, kind)


def _weigh(answer_N: Tensor, turn_N: Tensor, prompt_weight: float, length_power: float) -> Tensor:
    """Weights in the loss: of the tokens of answers by their lengths, of the rest alike."""
    if not len(answer_N):
        return torch.zeros(0)
    turn_N = turn_N - turn_N.min()
    length_N = torch.bincount(turn_N, weights=answer_N.float())[turn_N]
    return torch.where(answer_N, length_N**-length_power, prompt_weight)


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


def _segments(items: Sequence[Item], rows: list[np.ndarray]) -> Segments:
    trees = _trees(items)
    ends = list(itertools.accumulate(sum(i.row_tokens for i in tree) for tree in trees))
    starts = [0, *ends[:-1]]
    gathers: list[Tensor] = []
    masks: list[Tensor | None] = []
    scatter_T = np.empty(ends[-1], dtype=np.int64)
    base = 0
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    for group in _groups(trees, lengths):
        longest = max(ends[n] - starts[n] for n in group)
        gather_BL = np.zeros((len(group), longest), dtype=np.int64)
        for place, n in enumerate(group):
            row = np.arange(starts[n], ends[n])
            gather_BL[place, : len(row)] = row
            scatter_T[row] = row + (base + place * longest - starts[n])
        gathers.append(torch.from_numpy(gather_BL))
        masks.append(_mask([trees[n] for n in group], longest))
        base += gather_BL.size
    bounds = [0, *itertools.accumulate(map(len, rows))]
    order_P = place_T = None
    if any(item.shared for item in items):
        order_P = torch.from_numpy(np.concatenate(rows))
        ranges = zip(bounds, items, rows, strict=False)
        place_T = torch.cat([torch.arange(b + i.shared, b + len(row)) for b, i, row in ranges])
    bounds_B = torch.tensor(bounds, dtype=torch.int32)
    return Segments(gathers, masks, torch.from_numpy(scatter_T), bounds_B, order_P, place_T)


def _trees(items: Sequence[Item]) -> list[list[Item]]:
    """Items that begin alike, together: each with those after it that share its beginning."""
    trees: list[list[Item]] = []
    for item in items:
        if item.shared:
            trees[-1].append(item)
        else:
            trees.append([item])
    return trees


def _mask(trees: Sequence[Sequence[Item]], longest: int) -> Tensor | None:
    """Minus infinity where a token does not see another of its tree, else 0: ``[B, 1, L, L]``.

    It sees what its item begins with, and of the item's own tokens those before it. What stands
    after a tree sees all of it, and is seen by none.
    """
    if all(len(tree) == 1 for tree in trees):
        return None
    shared_BL = np.zeros((len(trees), longest), dtype=np.int64)
    own_BL = np.zeros_like(shared_BL)
    for n, tree in enumerate(trees):
        counts = [item.row_tokens for item in tree]
        starts = [0, *itertools.accumulate(counts)]
        shared_BL[n, : starts[-1]] = np.repeat([item.shared for item in tree], counts)
        own_BL[n, : starts[-1]] = np.repeat(starts[:-1], counts)
    other_L = np.arange(longest)
    sees_BLL = (other_L < shared_BL[:, :, None]) | (other_L >= own_BL[:, :, None])
    sees_BLL &= other_L <= other_L[:, None]
    mask_BLL = np.where(sees_BLL, np.float32(0), np.float32(-np.inf))
    return torch.from_numpy(mask_BLL).unsqueeze(1)


def _groups(trees: list[list[Item]], lengths: list[int]) -> list[list[int]]:
    """The trees' numbers: those of one segment, which take no mask, apart from the others."""
    single = [n for n, tree in enumerate(trees) if len(tree) == 1]
    branched = [n for n, tree in enumerate(trees) if len(tree) > 1]
    return [group for kind in (single, branched) if kind for group in _by_length(kind, lengths)]


def _by_length(trees: list[int], lengths: list[int]) -> list[list[int]]:
    """The trees' numbers in one group or two, whichever costs attention less work."""
    order = sorted(trees, key=lambda n: lengths[n])
    whole = len(order) * lengths[order[-1]] ** 2
    cuts = range(1, len(order))
    works = [n * lengths[order[n - 1]] ** 2 + whole * (len(order) - n) // len(order) for n in cuts]
    if not works or min(works) > WORTH_A_CALL * whole:
        return [order]
    cut = works.index(min(works)) + 1
    return [order[:cut], order[cut:]]


def _collect_media(items: Sequence[Item], rows: list[np.ndarray]) -> dict[str, MediaRows]:
    slots: dict[str, list[Tensor]] = {}
    tensors: dict[str, list[Tensor]] = {}
    raw = frozenset().union(*(item.raw for item in items))
    for item, row in zip(items, rows, strict=True):
        for slot, tensor in zip(item.rendered.slots, item.media, strict=True):
            if slot.media.modality not in raw and tensor.shape[0] != slot.count:
                raise UserError(
                    f"sample {item.id}: {slot.media.path} has {tensor.shape[0]} feature rows "
                    f"for {slot.count} slots"
                )
            if slot.start < item.shared:
                continue
            name = slot.media.modality
            places = row[slot.start : slot.start + slot.count]
            slots.setdefault(name, []).append(torch.from_numpy(places))
            tensors.setdefault(name, []).append(tensor)
    return {
        name: MediaRows(
            torch.cat(slots[name]),
            None if name in raw else torch.cat(tensors[name]),
            tensors[name] if name in raw else [],
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
