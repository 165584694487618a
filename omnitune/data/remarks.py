"""What is to be said of the records of some files though nothing is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from omnitune.data.samples import IndexedSource, Samples
from omnitune.data.splits import VALIDATION_SHARE, doubts
from omnitune.media.base import counted


def remarks(samples: Iterable[Samples]) -> list[str]:
    """What is to be said of the splits of some files: what was set aside, and names like slips."""
    told = []
    for source, _ in (piece for found in samples for piece in found.pieces):
        for number in source.index.aside_A.tolist():
            place = source.place(number)
            told.append(
                f"{place.file}: names no validation records, and is too small for a share of "
                f"{VALIDATION_SHARE:.0%} to hold one: record {place.within + 1} "
                f"({source.sample(number).id}) was set aside from train as validation"
            )
        told += without_media(source)
        told += [f"{source.files[0].path}: {doubt}" for doubt in doubts(source.index.splits)]
    return told


def without_media(source: IndexedSource) -> list[str]:
    """A line on records that show no medium where others of the source do: some may be lost."""
    shown_N = np.diff(source.index.show_N)
    bare = int((shown_N == 0).sum())
    if not bare or bare == len(shown_N):
        return []
    first = source.where(int(np.argmin(shown_N)))
    return [
        f"{bare:,} of {counted(len(shown_N), 'record')} show no medium, though others beside them "
        f"do; the first: {first}"
    ]
