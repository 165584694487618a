"""Which tokens of a packed row see each other: segments, and trees of those that begin alike.

Shape suffixes: T tokens of the row, P of all segments (those that several begin with counted in
each), B segments or trees, L longest of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Numbers of tokens of a segment: those that it shares with the first of its tree, and its own.
Counts = tuple[int, int]

# A second attention call pays from this share of the work on.
WORTH_A_CALL = 0.85


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


def lay_out(shared_B: Sequence[int], rows: Sequence[np.ndarray]) -> Segments:
    """The segments of some items.

    Args:
        shared_B: of each item, the number of leading tokens that stand in the row already, as
            those of the last item before it that shares none.
        rows: of each item, the positions in the row that its tokens have.
    """
    trees = _trees(shared_B, rows)
    lengths = [sum(own for _, own in tree) for tree in trees]
    ends = list(itertools.accumulate(lengths))
    starts = [0, *ends[:-1]]
    gathers: list[Tensor] = []
    masks: list[Tensor | None] = []
    scatter_T = np.empty(ends[-1], dtype=np.int64)
    base = 0
    for group in _groups(trees, lengths):
        longest = max(lengths[n] for n in group)
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
    if any(shared_B):
        order_P = torch.from_numpy(np.concatenate(rows))
        ranges = zip(bounds, shared_B, rows, strict=False)
        place_T = torch.cat([torch.arange(b + n, b + len(row)) for b, n, row in ranges])
    bounds_B = torch.tensor(bounds, dtype=torch.int32)
    return Segments(gathers, masks, torch.from_numpy(scatter_T), bounds_B, order_P, place_T)


def _trees(shared_B: Sequence[int], rows: Sequence[np.ndarray]) -> list[list[Counts]]:
    """Segments that begin alike, together: each with those after it that share its beginning."""
    trees: list[list[Counts]] = []
    for shared, row in zip(shared_B, rows, strict=True):
        if not shared:
            trees.append([])
        trees[-1].append((shared, len(row) - shared))
    return trees


def _mask(trees: Sequence[Sequence[Counts]], longest: int) -> Tensor | None:
    """Minus infinity where a token does not see another of its tree, else 0: ``[B, 1, L, L]``.

    It sees what its segment begins with, and of the segment's own tokens those before it. What
    stands after a tree sees all of it, and is seen by none.
    """
    if all(len(tree) == 1 for tree in trees):
        return None
    shared_BL = np.zeros((len(trees), longest), dtype=np.int64)
    own_BL = np.zeros_like(shared_BL)
    for n, tree in enumerate(trees):
        counts = [own for _, own in tree]
        starts = [0, *itertools.accumulate(counts)]
        shared_BL[n, : starts[-1]] = np.repeat([shared for shared, _ in tree], counts)
        own_BL[n, : starts[-1]] = np.repeat(starts[:-1], counts)
    other_L = np.arange(longest)
    sees_BLL = (other_L < shared_BL[:, :, None]) | (other_L >= own_BL[:, :, None])
    sees_BLL &= other_L <= other_L[:, None]
    mask_BLL = np.where(sees_BLL, np.float32(0), np.float32(-np.inf))
    return torch.from_numpy(mask_BLL).unsqueeze(1)


def _groups(trees: list[list[Counts]], lengths: list[int]) -> list[list[int]]:
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
