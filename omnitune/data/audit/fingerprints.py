"""Fingerprints of a data folder's media, and which of them held-out and training samples share.

Shape suffixes: M media of a modality in all sources, W words of a look, R places in records that
show a medium.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import NamedTuple

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.audit.contamination import alike
from omnitune.data.audit.looking import Looker
from omnitune.data.samples import IndexedSource, Samples
from omnitune.media.base import Fingerprint
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, UserError

NOTHING = 0.0  # the amount of a broken medium


class Finding(NamedTuple):
    """A medium, the first sample that shows it, and what is wrong with it or odd about it.

    Attributes:
        place: of the medium in its source's index.
    """

    medium: Media
    sample: Sample
    what: str
    place: int


class Shared(NamedTuple):
    """A held-out medium that training samples show too: ``how``, and how alike (1: the same)."""

    how: str
    training: Sample
    held_out: Sample
    similarity: float


@dataclass(frozen=True)
class Fingerprints:
    """One modality's fingerprints, in the order of the sources and of their media.

    Attributes:
        name: of the modality.
        sources: all of them.
        source_M: place in ``sources``. place_M: place in the index of that.
        content_M: hash of the content. hash_MW: words of the look. amount_M: in the modality's
            unit; 0 for a broken one.
    """

    name: str
    sources: list[IndexedSource]
    source_M: np.ndarray
    place_M: np.ndarray
    content_M: np.ndarray
    hash_MW: np.ndarray
    amount_M: np.ndarray

    def shown(self, split: str, source: int | None = None) -> np.ndarray:
        """Which media the samples of a split show, in order; of all sources or of one."""
        shown_M = np.zeros(len(self.place_M), dtype=bool)
        for number, index in enumerate(file.index for file in self.sources):
            if source in (None, number) and split in index.splits:
                split_R = np.repeat(index.split_N, np.diff(index.show_N))
                places = np.unique(index.shown_R[split_R == index.splits.index(split)])
                shown_M |= (self.source_M == number) & np.isin(self.place_M, places)
        return np.flatnonzero(shown_M)

    def sample(self, medium: int, split: str) -> Sample:
        """The first sample of a split that shows a medium."""
        source = self.sources[self.source_M[medium]]
        shown = np.flatnonzero(source.index.shown_R == self.place_M[medium])
        records = np.searchsorted(source.index.show_N, shown, side="right") - 1
        code = source.index.splits.index(split)
        return source.sample(int(records[source.index.split_N[records] == code][0]))

    def path(self, medium: int) -> Path:
        """The file of a medium."""
        return self.sources[self.source_M[medium]].medium(int(self.place_M[medium]))[0].path


def decode(
    samples: Mapping[str, Samples], look: Looker | None = None
) -> tuple[dict[str, Fingerprints], list[Finding], list[Finding]]:
    """Decodes every distinct medium once, with a bar.

    Args:
        look: what decodes them; it may know some already.

    Returns:
        the fingerprints by modality; the broken media; remarks on those that can be used.
    """
    sources = [held.pieces[0][0] for held in samples.values()]
    total = sum(len(source.index.media_M3) for source in sources)
    broken: list[Finding] = []
    remarks: list[Finding] = []
    rows: dict[str, list[tuple[int, int, Fingerprint]]] = {name: [] for name in MEDIA}
    look = look or Looker()
    with progress_bar("decoding media", total) as advance:
        for number, source in enumerate(sources):
            places = range(len(source.index.media_M3))
            media, again = tee(map(source.medium, places))
            seen = look(medium for medium, _ in again)
            for place, (medium, sample), found in zip(places, media, seen, strict=True):
                if isinstance(found, UserError):
                    broken.append(Finding(medium, sample, str(found), place))
                    words = MEDIA[medium.modality].hash_words
                    found = Fingerprint(0, NOTHING, (0,) * words)
                remarks += [Finding(medium, sample, told, place) for told in found.remarks]
                rows[medium.modality].append((number, place, found))
                advance()
    fingerprints = {
        name: Fingerprints(
            name,
            sources,
            source_M=np.array([number for number, _, _ in found]),
            place_M=np.array([place for _, place, _ in found]),
            content_M=np.array([one.content for _, _, one in found], dtype=np.uint64),
            hash_MW=np.array([one.perceptual_hash for _, _, one in found], dtype=np.uint64),
            amount_M=np.array([one.amount for _, _, one in found]),
        )
        for name, found in rows.items()
        if found
    }
    return fingerprints, broken, remarks


def shared(fingerprints: Fingerprints, split: str) -> list[Shared]:
    """The media of a held-out split that training samples show too, each once.

    As the same file, else with the same content, else as a changed copy: of like look, and so
    alike that the modality takes it for one.
    """
    held, train = fingerprints.shown(split), fingerprints.shown("train")
    same_file = np.isin(held, train)
    found = [("same file", n, n, 1.0) for n in held[same_file].tolist()]
    held, train = (
        some[fingerprints.amount_M[some] > NOTHING] for some in (held[~same_file], train)
    )
    if len(train):
        order = train[np.argsort(fingerprints.content_M[train], kind="stable")]
        places = np.searchsorted(fingerprints.content_M[order], fingerprints.content_M[held])
        twins = order[places.clip(max=len(order) - 1)]
        same = fingerprints.content_M[twins] == fingerprints.content_M[held]
        pairs = zip(twins[same].tolist(), held[same].tolist(), strict=True)
        found += [("same content", twin, n, 1.0) for twin, n in pairs]
        found += _copies(fingerprints, train, held[~same])
    return [
        Shared(how, fingerprints.sample(a, "train"), fingerprints.sample(b, split), similarity)
        for how, a, b, similarity in found
    ]


def _copies(
    fingerprints: Fingerprints, train: np.ndarray, held: np.ndarray
) -> list[tuple[str, int, int, float]]:
    """Changed copies: medium in train, medium held out and how alike they are."""
    modality = MEDIA[fingerprints.name]
    if not fingerprints.hash_MW.shape[1]:
        return []
    found = []
    near = alike(fingerprints.hash_MW[train], fingerprints.hash_MW[held], modality.hash_distance)
    for medium, candidates in zip(held.tolist(), near, strict=True):
        own = fingerprints.path(medium) if candidates else Path()
        others = [int(train[place]) for _, place in candidates]
        scores = [modality.similarity(fingerprints.path(n), own) for n in others]
        best = max(scores, default=0.0)
        if best > 0:
            found.append(("changed copy", others[scores.index(best)], medium, best))
    return found
