"""Padding-free batches: samples lie end to end in one row, with their own positions.

Shape suffixes: T tokens of the row, B segments, L longest segment, N supervised tokens,
R feature rows, D feature width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from omnitune.data.chat import Rendered
from omnitune.sample import UserError

# A second attention call pays from this share of the work on.
WORTH_A_CALL = 0.7


class Part(NamedTuple):
    """What one of several processes takes of a micro-batch: about one in ``of``."""

    rank: int
    of: int


WHOLE = Part(0, 1)


@dataclass
class Segments:
    """Which tokens of the row belong together: attention never leaves a segment.

    A token may belong to several segments that begin alike (questions about one picture).

    Attributes:
        gathers: position in the row of each segment's tokens, ``[B, L]`` padded with 0; short and
            long segments apart, as the work grows with the square of the longest.
        scatter_T: position in all of the flattened ``gathers``, end to end, of each token of the
            row, in the first segment that it belongs to.
        order_P: the same without padding: position in the row of each segment's tokens.
        bounds_B: where in ``order_P`` each segment begins, and where the last ends (int32).
        place_T: as ``scatter_T``, in ``order_P``.
    """

    gathers: list[Tensor]
    scatter_T: Tensor
    order_P: Tensor
    bounds_B: Tensor
    place_T: Tensor


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
    tokens: list[int] = []
    positions: list[Tensor] = []
    predict: list[int] = []
    labels: list[int] = []
    groups: list[int] = []
    turns: list[int] = []
    answers: list[bool] = []
    added: list[tuple[int, int]] = []
    turn = -1
    for item, row in zip(items, rows, strict=True):
        rendered = item.rendered
        tokens.extend(rendered.tokens[item.shared :])
        positions.append(torch.arange(item.shared, len(row)))
        opens = {first for _, first, _ in rendered.turns}
        for place in range(max(1, item.shared), len(row)):
            turn += place in opens
            if rendered.supervised[place] or prompt_weight:
                answers.append(rendered.supervised[place])
                predict.append(row[place - 1])
                labels.append(rendered.tokens[place])
                groups.append(item.group)
                turns.append(turn)
        added += [(token, row[place]) for token, place in rendered.added if place >= item.shared]
    turn_N = torch.tensor(turns, dtype=torch.long)
    return Batch(
        tokens_T=torch.tensor(tokens, dtype=torch.long),
        positions_T=torch.cat(positions),
        segments=_segments(items, rows),
        predict_N=torch.tensor(predict, dtype=torch.long),
        labels_N=torch.tensor(labels, dtype=torch.long),
        weight_N=_weigh(torch.tensor(answers), turn_N, prompt_weight, length_power),
        group_N=torch.tensor(groups, dtype=torch.long),
        turn_N=turn_N,
        num_groups=num_groups,
        ids=[item.id for item in items],
        media=_collect_media(items, rows),
        added_M=torch.tensor([token for token, _ in added], dtype=torch.long),
        at_M=torch.tensor([place for _, place in added], dtype=torch.long),
        shown_2G=_shown(items, num_groups),
    )


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


def _rows(items: Sequence[Item]) -> list[list[int]]:
    """Position in the row of each of an item's tokens."""
    rows: list[list[int]] = []
    root: list[int] = []
    total = 0
    for item in items:
        end = total + item.row_tokens
        rows.append([*root[: item.shared], *range(total, end)])
        root = root if item.shared else rows[-1]
        total = end
    return rows


def _segments(items: Sequence[Item], rows: list[list[int]]) -> Segments:
    gathers: list[Tensor] = []
    scatter_T = torch.empty(sum(len(row) - i.shared for i, row in zip(items, rows, strict=True)))
    scatter_T = scatter_T.long()
    start = 0
    for group in _by_length([len(row) for row in rows]):
        longest = max(len(rows[n]) for n in group)
        gathers.append(torch.tensor([rows[n] + [0] * (longest - len(rows[n])) for n in group]))
        for place, n in enumerate(group):
            own = torch.tensor(rows[n][items[n].shared :])
            first = start + place * longest
            scatter_T[own] = torch.arange(first + items[n].shared, first + len(rows[n]))
        start += len(group) * longest
    bounds = [0, *itertools.accumulate(map(len, rows))]
    places = [
        torch.arange(first + item.shared, first + len(row))
        for first, item, row in zip(bounds, items, rows, strict=False)
    ]
    return Segments(
        gathers,
        scatter_T,
        order_P=torch.tensor([place for row in rows for place in row]),
        bounds_B=torch.tensor(bounds, dtype=torch.int32),
        place_T=torch.cat(places),
    )


def _by_length(lengths: list[int]) -> list[list[int]]:
    """The segments' numbers in one group or two, whichever costs attention less work."""
    order = sorted(range(len(lengths)), key=lambda n: lengths[n])
    whole = len(order) * lengths[order[-1]] ** 2
    cuts = range(1, len(order))
    works = [n * lengths[order[n - 1]] ** 2 + whole * (len(order) - n) // len(order) for n in cuts]
    if not works or min(works) > WORTH_A_CALL * whole:
        return [order]
    cut = works.index(min(works)) + 1
    return [order[:cut], order[cut:]]


def _collect_media(items: Sequence[Item], rows: list[list[int]]) -> dict[str, MediaRows]:
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
            slots.setdefault(name, []).append(torch.tensor(places))
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
