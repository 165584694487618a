"""How much of each medium is encoded, by its header: whole, lost, least and most feature rows.

Shape suffix: M distinct media of a source.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.samples import MANY_MEDIA, IndexedSource
from omnitune.encoders.base import Encoder
from omnitune.sample import UserError

WHOLE, LOST, LEAST, MOST = range(4)  # columns of extents: those of MediaStats


def measure_media(
    source: IndexedSource,
    modalities: Mapping[str, Encoder],
    go_on: bool,
    places: range | None = None,
) -> np.ndarray:
    """Extents of the media of one source: ``[M, 4]``.

    Args:
        places: of those that are wanted; None for all.
        go_on: one that is unusable has no numbers; otherwise a UserError names it.
    """
    rows = array("d")
    places = range(len(source.index.media_M3)) if places is None else places
    with bar_of_many("looking at media", len(places)) as advance:
        for place in places:
            advance()
            try:
                rows.extend(_measure(source, place, modalities))
            except UserError as error:
                if not go_on:
                    raise at_record(source, place, error) from None
                rows.extend((np.nan,) * 4)
    return np.array(rows).reshape(-1, 4)


def _measure(
    source: IndexedSource, place: int, modalities: Mapping[str, Encoder]
) -> tuple[float, float, float, float]:
    """Extents of a medium; a UserError names it."""
    medium, sample = source.medium(place)
    try:
        if medium.modality not in modalities:
            raise UserError(f"this model has no encoder for {medium.modality}")
        found = modalities[medium.modality].measure(medium.path)
    except UserError as error:
        raise UserError(f"sample {sample.id} ({sample.source}): {error}") from None
    return found.whole, found.lost, found.least, found.most


def at_record(source: IndexedSource, place: int, error: UserError) -> UserError:
    """The error of a medium, by its place in the index, that ends a run: names its record."""
    at = source.place(source.medium(place)[1].number)
    return UserError(
        f"{at.file}: record {at.within + 1}: {error}; `omnitune validate` lists all media that "
        "cannot be used"
    )


def set_aside_broken(
    source: IndexedSource, modalities: Mapping[str, Encoder], extents_M4: np.ndarray
) -> tuple[np.ndarray, dict[int, UserError]]:
    """Extents with numbers for each medium, and by place what is wrong with those that have none.

    One that had none when it was first measured is measured again: it may be there now.
    """
    places = np.flatnonzero(np.isnan(extents_M4[:, WHOLE])).tolist()
    broken: dict[int, UserError] = {}
    if not places:
        return extents_M4, broken
    extents_M4 = np.array(extents_M4)
    for place in places:
        try:
            extents_M4[place] = _measure(source, place, modalities)
        except UserError as error:
            extents_M4[place], broken[place] = 0.0, error
    return extents_M4, broken


def slots_of(
    source: IndexedSource, modalities: Mapping[str, Encoder], extents_M4: np.ndarray
) -> np.ndarray:
    """Least and most slots of each medium, behind its projector: ``[M, 2]``."""
    slots_M2 = np.array(extents_M4[:, [LEAST, MOST]])
    for code, name in enumerate(source.index.modalities):
        if name in modalities and not modalities[name].keeps_rows:
            own_M = source.index.media_M3[:, 2] == code
            slots = [modalities[name].slots_for(int(rows)) for rows in slots_M2[own_M].flat]
            slots_M2[own_M] = np.array(slots).reshape(-1, 2)
    return slots_M2


def bar_of_many(title: str, count: int) -> AbstractContextManager[Callable[..., None]]:
    """A progress bar where there are very many; else nothing is shown."""
    return progress_bar(title, count) if count > MANY_MEDIA else nullcontext(lambda: None)
