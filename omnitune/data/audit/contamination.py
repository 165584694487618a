"""What held-out samples have in common with training samples: words and decoded media.

Only the held-out side is held in memory with all its words; training samples pass by once. Words
and media are compared by 64-bit hashes, changed copies of media by their looks: two looks that
differ in d bits are equal in one of d + 1 bands of bits, so only media with an equal band are
compared.

Shape suffixes: H held-out samples, G word groups of all of them, U different ones, W words of a
look, A and B media.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from omnitune.sample import Sample

GROUP = 8  # words
FEWEST = 4  # words of a text that says anything by itself
NEAR_TEXT = 0.8  # share of a held-out sample's word groups that one training sample holds
COMMON = 1000  # held-out samples that share a word group: too many for it to tell of a copy
CLOSEST = 8  # looks that are held against a medium's own

# Each sign of a script that is written without spaces is a word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_FACTORS = np.cumprod(np.full(GROUP, 0x9E3779B97F4A7C15, dtype=np.uint64))


def statements(sample: Sample) -> list[list[int]]:
    """What a sample states, as hashed words.

    That is the whole conversation of a sample without media; of one with media its caption, its
    transcript and its answers, without the questions, which many share. Texts of fewer than
    ``FEWEST`` words are left aside: "yes" is nobody's own.
    """
    if sample.media:
        answers = [m.text for m in sample.messages if m.role == "assistant"]
        captions = [medium.caption for medium in sample.media]
        texts = list(dict.fromkeys([*captions, *answers]))
    else:
        texts = [" ".join(m.text for m in sample.messages if m.role != "system")]
    found = ([_hash(word) for word in _WORDS.findall(text.lower())] for text in texts)
    return [words for words in found if len(words) >= FEWEST]


def word_groups(texts: Iterable[Sequence[int]]) -> np.ndarray:
    """The different groups of ``GROUP`` words that follow each other; a shorter text is one."""
    groups = [np.zeros(0, np.uint64)]
    for text in texts:
        words = np.array(text, dtype=np.uint64)
        size = min(GROUP, len(words))
        windows = np.lib.stride_tricks.sliding_window_view(words, size)
        groups.append((windows * _FACTORS[:size]).sum(axis=1, dtype=np.uint64))
    return np.unique(np.concatenate(groups))


def overlap(held_out: Sample, training: Sample) -> float:
    """Share of the held-out sample's word groups that a training sample holds."""
    wanted = word_groups(statements(held_out))
    return float(np.isin(wanted, word_groups(statements(training))).mean()) if len(wanted) else 0.0


class HeldOutText:
    """Held-out samples' words, and the training samples that hold most of each one's."""

    def __init__(self) -> None:
        self._groups, self._ends, self._wholes = array("Q"), array("q", [0]), array("Q")

    def add(self, sample: Sample) -> bool:
        """Takes in a held-out sample; False if it states too little to be compared."""
        texts = statements(sample)
        if not texts:
            return False
        self._groups.extend(word_groups(texts).tolist())
        self._ends.append(len(self._groups))
        self._wholes.append(_whole(texts))
        return True

    def close(self) -> None:
        """All held-out samples are there; training samples follow."""
        count = len(self._wholes)
        self._sizes_H = np.diff(np.array(self._ends))
        self._known_U, self._place_G = np.unique(
            np.array(self._groups, dtype=np.uint64), return_inverse=True
        )
        holder_G = np.repeat(np.arange(count), self._sizes_H)
        self._holders = holder_G[np.argsort(self._place_G, kind="stable")]
        counts_U = np.bincount(self._place_G, minlength=len(self._known_U))
        self._start_U = np.concatenate([[0], np.cumsum(counts_U)])
        self._seen_U = np.zeros(len(self._known_U), dtype=bool)
        self._most_H, self._training_H = np.zeros(count), np.full(count, -1)
        self._whole_of: dict[int, int] = dict.fromkeys(self._wholes, -1)

    def meet(self, number: int, sample: Sample) -> None:
        """Compares a training sample, known by its number."""
        texts = statements(sample)
        if not texts or not len(self._known_U):
            return
        if self._whole_of.get(_whole(texts), 0) < 0:
            self._whole_of[_whole(texts)] = number
        groups = word_groups(texts)
        places = np.searchsorted(self._known_U, groups).clip(max=len(self._known_U) - 1)
        places = places[self._known_U[places] == groups]
        self._seen_U[places] = True
        spans = zip(self._start_U[places], self._start_U[places + 1], strict=True)
        holders = [self._holders[a:b] for a, b in spans if b - a <= COMMON]
        if not holders:
            return
        held, shared = np.unique(np.concatenate(holders), return_counts=True)
        better = held[shared > self._most_H[held]]
        self._most_H[better] = shared[shared > self._most_H[held]]
        self._training_H[better] = number

    def found(self) -> Iterator[tuple[float, int, int]]:
        """Of each held-out sample that was added.

        Yields:
            the share of its word groups that any training sample holds, the number of a training
            sample that states just the same, and of the one that holds most of its groups; -1 for
            none.
        """
        for n, (start, end) in enumerate(pairwise(self._ends)):
            share = float(self._seen_U[self._place_G[start:end]].mean())
            yield share, self._whole_of[self._wholes[n]], int(self._training_H[n])


def alike(looks_AW: np.ndarray, looks_BW: np.ndarray, distance: int) -> list[list[tuple[int, int]]]:
    """For each look of B the ``CLOSEST`` of A within a distance, closest first.

    Returns:
        a list of (bits that differ, place in A) for each of B.
    """
    found: list[dict[int, int]] = [{} for _ in looks_BW]
    keys_A, keys_B = _bands(looks_AW, distance + 1), _bands(looks_BW, distance + 1)
    for band_A, band_B in zip(keys_A, keys_B, strict=True):
        order = np.argsort(band_A)
        ranges = (np.searchsorted(band_A, band_B, side, sorter=order) for side in ("left", "right"))
        for place, (first, last) in enumerate(zip(*ranges, strict=True)):
            near = order[first:last]
            bits = np.bitwise_count(looks_AW[near] ^ looks_BW[place]).sum(axis=1)
            close = np.flatnonzero(bits <= distance)
            close = close[np.argsort(bits[close], kind="stable")[:CLOSEST]]
            found[place].update(zip(near[close].tolist(), bits[close].tolist(), strict=True))
    return [sorted((bits, a) for a, bits in near.items())[:CLOSEST] for near in found]


def _bands(looks_KW: np.ndarray, count: int) -> np.ndarray:
    """A key for every band of bits, which are taken from all over the look: ``[count, K]``."""
    keys = np.zeros((count, len(looks_KW)), dtype=np.uint64)
    order = np.random.default_rng(0).permutation(64 * looks_KW.shape[1])
    for place, bit in enumerate(order.tolist()):
        word, shift = divmod(bit, 64)
        value_K = (looks_KW[:, word] >> np.uint64(shift)) & np.uint64(1)
        keys[place % count] = keys[place % count] * np.uint64(2) + value_K
    return keys


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _whole(texts: list[list[int]]) -> int:
    return _hash(repr(texts))
