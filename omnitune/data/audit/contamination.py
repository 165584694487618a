"""What held-out samples have in common with training samples: words and decoded media.

Only the held-out side is held in memory with all its words; training samples pass by once. Changed
copies of media are compared by their looks: two looks that differ in d bits are equal in one of
d + 1 bands of bits, so only media with an equal band are compared.

Shape suffixes: W words of a look, A and B media.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from omnitune.sample import Sample

GROUP = 8  # words
FEWEST = 4  # words of a text that says anything by itself
NEAR_TEXT = 0.8  # share of a held-out sample's word groups that one training sample holds
COMMON = 1000  # held-out samples that share a word group: too many for it to tell of a copy
CLOSEST = 8  # looks that are held against a medium's own

# Each sign of a script that is written without spaces is a word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def statements(sample: Sample) -> list[list[str]]:
    """What a sample states, as words.

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
    found = (_WORDS.findall(text.lower()) for text in texts)
    return [words for words in found if len(words) >= FEWEST]


def word_groups(texts: Iterable[Sequence[str]]) -> set[int]:
    """Hashes of the groups of ``GROUP`` words that follow each other; a shorter text is one."""
    return {
        hash(tuple(words[n : n + GROUP]))
        for words in texts
        for n in range(max(1, len(words) - GROUP + 1))
    }


def overlap(held_out: Sample, training: Sample) -> float:
    """Share of the held-out sample's word groups that a training sample holds."""
    wanted = word_groups(statements(held_out))
    shared = wanted & word_groups(statements(training))
    return len(shared) / len(wanted) if wanted else 0.0


class HeldOutText:
    """Held-out samples' words, and the training samples that hold most of each one's."""

    def __init__(self) -> None:
        self._wholes: list[int] = []  # of each held-out sample, what it states
        self._holders: defaultdict[int, list[int]] = defaultdict(list)  # by word group
        self._seen: set[int] = set()  # word groups that training samples hold
        self._most: dict[int, tuple[int, int]] = {}  # groups in common, and with which sample
        self._training_of: dict[int, int] = {}  # by what it states

    def add(self, sample: Sample) -> bool:
        """Takes in a held-out sample; False if it states too little to be compared."""
        texts = statements(sample)
        for group in word_groups(texts):
            self._holders[group].append(len(self._wholes))
        if texts:
            self._wholes.append(_whole(texts))
        return bool(texts)

    def meet(self, number: int, sample: Sample) -> None:
        """Compares a training sample, known by its number, with all that were added."""
        texts = statements(sample)
        groups = word_groups(texts) & self._holders.keys()
        if not groups:
            return
        self._seen |= groups
        self._training_of.setdefault(_whole(texts), number)
        shared: Counter[int] = Counter()
        for group in groups:
            holders = self._holders[group]
            shared.update(holders if len(holders) <= COMMON else ())
        for held, count in shared.items():
            if count > self._most.get(held, (0, -1))[0]:
                self._most[held] = count, number

    def found(self) -> Iterator[tuple[float, int, int]]:
        """Of each held-out sample that was added.

        Yields:
            the share of its word groups that any training sample holds, the number of a training
            sample that states just the same, and of the one that holds most of its groups; -1 for
            none.
        """
        counts, seen = Counter[int](), Counter[int]()
        for group, holders in self._holders.items():
            counts.update(holders)
            seen.update(holders if group in self._seen else ())
        for n, whole in enumerate(self._wholes):
            same = self._training_of.get(whole, -1)
            yield seen[n] / counts[n], same, self._most.get(n, (0, -1))[1]


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


def _bands(looks_KW: np.ndarray, count: int) -> list[np.ndarray]:
    """For each band of bits, which are taken from all over the look, the places of equal ones."""
    bits_KB = np.unpackbits(np.ascontiguousarray(looks_KW).view(np.uint8), axis=1)
    order = np.random.default_rng(0).permutation(bits_KB.shape[1])
    bands = (np.packbits(bits_KB[:, order[place::count]], axis=1) for place in range(count))
    return [np.ascontiguousarray(band).view(f"V{band.shape[1]}").ravel() for band in bands]


def _whole(texts: list[list[str]]) -> int:
    return hash(tuple(map(tuple, texts)))
