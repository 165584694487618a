"""Fingerprints of a data folder's media, and which of them held-out and training samples share.

Shape suffixes: M media of a modality in all sources, W words of a look, R places in records that
show a medium.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.audit.contamination import alike
from omnitune.data.index import IndexedFile, Samples
from omnitune.media.base import Fingerprint
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, UserError

NOTHING = 0.0  # the amount of a broken medium


class Broken(NamedTuple):
    """A medium that cannot be used, the first sample that shows it, and what is wrong."""

    medium: Media
    sample: Sample
    problem: str


class Remark(NamedTuple):
    """A medium that can be used, the first sample that shows it, and what to know of it."""

    medium: Media
    sample: Sample
    remark: str


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
        content_M: hash of the content. look_MW: words of the look. amount_M: in the modality's
            unit. whole_M: False for a broken one, of which the rest is 0.
        sources: all of them. places: of each, where its media are in its index.
        remarks: on its media, in that order.
    """

    name: str
    content_M: np.ndarray
    hash_MW: np.ndarray
    amount_M: np.ndarray
    whole_M: np.ndarray
    sources: list[IndexedFile]
    places: list[np.ndarray]
    remarks: list[Remark]

    def shown(self, split: str, source: int | None = None) -> np.ndarray:
        """Which media the samples of a split show, in order; of all sources or of one."""
        some = range(len(self.sources)) if source is None else [source]
        return np.concatenate([self._shown(n, split) for n in some])

    def _shown(self, number: int, split: str) -> np.ndarray:
        """The same of one source."""
        index = self.sources[number].index
        if split not in index.splits:
            return np.zeros(0, dtype=np.int64)
        split_R = np.repeat(index.split_N, np.diff(index.show_N))
        places = np.unique(index.shown_R[split_R == index.splits.index(split)])
        own = np.isin(self.places[number], places)
        return np.flatnonzero(own) + self._first(number)

    def _first(self, number: int) -> int:
        return sum(len(places) for places in self.places[:number])

    def sample(self, medium: int, split: str) -> Sample:
        """The first sample of a split that shows a medium."""
        source, place = self._locate(medium)
        shown = np.flatnonzero(source.index.shown_R == place)
        records = np.searchsorted(source.index.show_N, shown, side="right") - 1
        code = source.index.splits.index(split)
        return source.sample(int(records[source.index.split_N[records] == code][0]))

    def path(self, medium: int) -> Path:
        """The file of a medium."""
        source, place = self._locate(medium)
        return source.medium(place)[0].path

    def _locate(self, medium: int) -> tuple[IndexedFile, int]:
        """The file whose records show a medium, and its place in the index of that."""
        number = 0
        while medium >= self._first(number + 1):
            number += 1
        return self.sources[number], int(self.places[number][medium - self._first(number)])


def decode(samples: Mapping[str, Samples]) -> tuple[dict[str, Fingerprints], list[Broken]]:
    """Decodes every distinct medium once, with a bar; also gives all that are broken."""
    sources = [held.pieces[0][0] for held in samples.values()]
    total = sum(len(source.index.media_M3) for source in sources)
    broken: list[Broken] = []
    remarks: dict[str, list[Remark]] = {name: [] for name in MEDIA}
    content, perceptual_hash = ({name: array("Q") for name in MEDIA} for _ in range(2))
    amount = {name: array("d") for name in MEDIA}
    with progress_bar("decoding media", total) as advance:
        for medium, sample in (pair for held in samples.values() for pair in held.media()):
            modality = MEDIA[medium.modality]
            try:
                found = modality.fingerprint(medium.path)
            except UserError as error:
                found = Fingerprint(0, NOTHING, (0,) * modality.hash_words)
                broken.append(Broken(medium, sample, str(error)))
            remarks[medium.modality] += [Remark(medium, sample, told) for told in found.remarks]
            content[medium.modality].append(found.content)
            perceptual_hash[medium.modality].extend(found.perceptual_hash)
            amount[medium.modality].append(found.amount)
            advance()
    fingerprints = {
        name: Fingerprints(
            name,
            content_M=np.array(content[name]),
            hash_MW=np.array(perceptual_hash[name]).reshape(
                len(content[name]), MEDIA[name].hash_words
            ),
            amount_M=np.array(amount[name]),
            whole_M=np.array(amount[name]) > NOTHING,
            sources=sources,
            places=[_places(name, source) for source in sources],
            remarks=remarks[name],
        )
        for name in MEDIA
        if content[name]
    }
    return fingerprints, broken


def shared(fingerprints: Fingerprints, split: str) -> list[Shared]:
    """The media of a held-out split that training samples show too, each once.

    As the same file, else with the same content, else as a changed copy: of like look, and so
    alike that the modality takes it for one.
    """
    held, train = fingerprints.shown(split), fingerprints.shown("train")
    same_file = np.isin(held, train)
    found = [("same file", n, n, 1.0) for n in held[same_file].tolist()]
    held, train = (some[fingerprints.whole_M[some]] for some in (held[~same_file], train))
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


def _places(name: str, source: IndexedFile) -> np.ndarray:
    """Where in its index the media of a modality are."""
    names = source.index.modalities
    code = names.index(name) if name in names else -1
    return np.flatnonzero(source.index.media_M3[:, 2] == code)
