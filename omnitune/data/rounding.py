"""Batches brought to few shapes: each new shape costs a compilation or the building of a kernel.

Shape suffixes: T tokens of the row, B segments, L longest segment, N supervised tokens,
R feature rows, D feature width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnitune.data.packing import Batch, MediaRows
from omnitune.data.segments import Segments

STEP = 16  # smallest distance between two sizes
SIZES = 32  # between two powers of two, where these are far enough apart


def bucket(size: int) -> int:
    """The next size up: what is added is computed for nothing, but is a 32nd at most from 512 on.

    Of sizes four times as many cost a processor more in kernels than they save (docs/log.md).
    """
    step = max(STEP, (1 << (size - 1).bit_length()) // (2 * SIZES))
    return -(-size // step) * step


def round_up(batch: Batch, views: bool = True) -> Batch:
    """The batch with its lengths rounded up; losses, counts and gradients are the same.

    Args:
        views: those of attention too. That takes up to twice the work, so it is for a compiler
            only; attention on a CPU builds nothing for a shape.

    The row ends in tokens that no segment holds, so no other token sees them. Added supervised
    tokens stand there and weigh nothing; added feature rows are written over them.
    """
    length = bucket(len(batch.tokens_T) + 1)  # at least one, for the others to stand on
    added = length - len(batch.tokens_T)
    last = length - 1
    more = bucket(len(batch.labels_N)) - len(batch.labels_N) if len(batch.labels_N) else 0
    return replace(
        batch,
        tokens_T=pad(batch.tokens_T, (0, added)),
        positions_T=pad(batch.positions_T, (0, added)),
        segments=(_round_segments if views else _lengthen)(batch.segments, added),
        predict_N=pad(batch.predict_N, (0, more), value=last),
        labels_N=_repeat_first(batch.labels_N, more),
        weight_N=pad(batch.weight_N, (0, more)),
        group_N=_repeat_first(batch.group_N, more),
        turn_N=_repeat_first(batch.turn_N, more),
        sample_N=_repeat_first(batch.sample_N, more),
        media={name: _round_rows(rows, last) for name, rows in batch.media.items()},
    )


def _repeat_first(x_N: Tensor, more: int) -> Tensor:
    """Another of the first, so that it is of a label, group and turn that there are."""
    return pad(x_N, (0, more), value=int(x_N[0])) if more else x_N


def _round_segments(segments: Segments, added: int) -> Segments:
    """Two views of each kind always, of two trees at least: others would be compiled apart.

    What is added to the row stands in the last place of the last view, where nothing else does.
    Where segments are read off the row itself, it becomes segments too.
    """
    views = _two_of_each(segments)
    gathers: list[Tensor] = []
    masks: list[Tensor | None] = []
    scatter_T = segments.scatter_T.clone()
    start = shift = 0
    for number, (gather_BL, mask) in enumerate(views, start=1):
        count, longest = gather_BL.shape
        more = bucket(longest) - longest
        inside = (segments.scatter_T >= start) & (segments.scatter_T < start + gather_BL.numel())
        row = (segments.scatter_T - start) // longest
        scatter_T += inside * (shift + row * more)
        rows = max(2 - count, int(number == len(views)))
        gathers.append(pad(gather_BL, (0, more, 0, rows)))
        if mask is not None:  # nobody sees what is added, and it sees what it may
            mask = pad(pad(mask, (0, more), value=-torch.inf), (0, 0, 0, more, 0, 0, 0, rows))
        masks.append(mask)
        start += gather_BL.numel()
        shift += gathers[-1].numel() - gather_BL.numel()
    return _with_added(replace(segments, gathers=gathers, masks=masks, scatter_T=scatter_T), added)


def _lengthen(segments: Segments, added: int) -> Segments:
    """One more view, of one place, for what is added to the row; the others stay as they are."""
    gathers = [*segments.gathers, segments.scatter_T.new_zeros(1, 1)]
    return _with_added(replace(segments, gathers=gathers, masks=[*segments.masks, None]), added)


def _with_added(segments: Segments, added: int) -> Segments:
    """What is added to the row stands in the last place of the views."""
    bounds_B, place_T = segments.bounds_B, segments.place_T
    if place_T is not None:
        place_T = pad(place_T, (0, added))
    else:
        end = int(bounds_B[-1]) + added
        longest = max(gather_BL.shape[1] for gather_BL in segments.gathers)
        ends_B = torch.arange(end, int(bounds_B[-1]), -longest, dtype=bounds_B.dtype)
        bounds_B = torch.cat([bounds_B, ends_B.flip(0)])
    last = sum(gather_BL.numel() for gather_BL in segments.gathers) - 1
    scatter_T = pad(segments.scatter_T, (0, added), value=last)
    return replace(segments, scatter_T=scatter_T, bounds_B=bounds_B, place_T=place_T)


def _two_of_each(segments: Segments) -> list[tuple[Tensor, Tensor | None]]:
    """Two views of trees of one segment, then two of others: some of them of no trees."""
    views = list(zip(segments.gathers, segments.masks, strict=True))
    single = [view for view in views if view[1] is None]
    branched = [view for view in views if view[1] is not None]
    none_BL = segments.scatter_T.new_zeros(0, STEP)
    single += [(none_BL, None)] * (2 - len(single))
    branched += [(none_BL, torch.zeros(0, 1, STEP, STEP))] * (2 - len(branched))
    return single + branched


def _round_rows(rows: MediaRows, last: int) -> MediaRows:
    if rows.features_RD is None:
        return rows
    more_slots, more_rows = (bucket(n) - n for n in (len(rows.slots_R), len(rows.features_RD)))
    return replace(
        rows,
        slots_R=pad(rows.slots_R, (0, more_slots), value=last),
        features_RD=pad(rows.features_RD, (0, 0, 0, more_rows)),
    )
