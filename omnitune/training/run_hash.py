"""The run hash: what a run read, step by step, as one number that can be computed again.

Each step's hash covers the hash of the step before it. So the hash of a run stands for every record
that it read, in order: source, record number, the record's checksum, the questions that were
drawn, and the tokens of the packed row with their loss mask. Two runs with one hash read the same.
It does not cover weights, rounding, or what a media file holds besides its number of slots.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack
from typing import Any

from omnitune.data.packing import Item, Origin
from omnitune.data.samples import IndexedSource, Samples
from omnitune.sample import Sample

FORMAT = "omnitune run hash 1"  # rises when something else is hashed
SIZE = 16  # bytes of a hash
SHORT = 12  # letters of a hash where it is only to be told from others
STEP_LETTERS = 8  # of the hash after each step, in metrics.jsonl


@dataclass(frozen=True)
class Read:
    """One sample as a step read it.

    Attributes:
        tokens: that it took of the row. supervised: of those the ones to be learnt.
    """

    origin: Origin
    tokens: int
    supervised: int


class RunHash:
    """Follows what the batches of a run are made of.

    Args:
        samples: training samples by source, for the checksums of their records.
        state: of the run. ``run_hash`` in it is the hash after the last whole step, and
            ``step_hashes`` the first letters of the hashes of the steps since the last log line.
        per_step: micro-batches of a step.
    """

    def __init__(
        self, samples: Mapping[str, Sequence[Sample]], state: dict[str, Any], per_step: int
    ) -> None:
        self.samples, self.state, self.per_step = samples, state, per_step
        self._made: dict[int, tuple[bytes, list[Read]]] = {}

    @property
    def value(self) -> str:
        """The hash after the last whole step, in hexadecimal; "" where none was kept."""
        return str(self.state.get("run_hash", ""))

    def note(self, number: int, samples: Sequence[Sequence[Item]]) -> None:
        """Takes in a micro-batch that was made; it counts once its step is whole."""
        digest = blake2b(pack("<q", number), digest_size=SIZE)
        reads = []
        for items in samples:
            origin = items[0].origin
            assert origin is not None
            self._add(digest, origin, items)
            tokens = sum(item.row_tokens for item in items)
            supervised = sum(sum(item.rendered.supervised) for item in items)
            reads.append(Read(origin, tokens, supervised))
        self._made[number] = digest.digest(), reads

    def _add(self, digest: blake2b, origin: Origin, items: Sequence[Item]) -> None:
        """Hashes one sample; every piece of unknown length comes after its length."""
        source, asked = origin.source.encode(), array("q", origin.asked).tobytes()
        checksum = checksum_of(self.samples[origin.source], origin.place)
        counts = (origin.k, origin.number, checksum, len(source), len(asked), len(items))
        digest.update(pack("<qqIIII", *counts) + source + asked)
        for item in items:
            tokens = item.rendered.tokens
            digest.update(pack("<III", item.shared, len(tokens), len(item.rendered.added)))
            digest.update(array("i", tokens))
            digest.update(bytes(item.rendered.supervised))
            for pair in item.rendered.added:
                digest.update(pack("<qq", *pair))

    def end_step(self, step: int) -> list[list[Read]]:
        """Chains the hash on by step ``step`` (counted from 1); returns its micro-batches."""
        first = (step - 1) * self.per_step
        # Batches that were only looked at. A thread may add others meanwhile.
        for number in list(self._made):
            if number < first:
                del self._made[number]
        before = bytes.fromhex(self.value) if step > 1 else FORMAT.encode()
        chain = blake2b(before, digest_size=SIZE)
        found = []
        for number in range(first, first + self.per_step):
            digest, reads = self._made.pop(number)
            chain.update(digest)
            found.append(reads)
        if not before:  # a run that began without a hash cannot get one
            return found
        self.state["run_hash"] = chain.hexdigest()
        letters = self.state.get("step_hashes", "") + chain.hexdigest()[:STEP_LETTERS]
        self.state["step_hashes"] = letters
        return found

    def notes(self) -> dict[str, str]:
        """For a line of ``metrics.jsonl``; the next line begins anew."""
        return {"run_hash": self.value[:SHORT], "step_hashes": self.state.pop("step_hashes", "")}


def checksum_of(samples: Sequence[Sample], place: int) -> int:
    """CRC-32 of the record at a place among some samples; 0 where they are of no file."""
    found = _locate(samples, place)
    return int(found[0].index.print_N[found[1]]) if found else 0


def file_of(samples: Sequence[Sample], place: int) -> str:
    """The file that the record at a place among some samples lies in; "" where there is none."""
    found = _locate(samples, place)
    return str(found[0].place(found[1]).file) if found else ""


def _locate(samples: Sequence[Sample], place: int) -> tuple[IndexedSource, int] | None:
    for file, numbers in samples.pieces if isinstance(samples, Samples) else ():
        if place < len(numbers):
            return file, int(numbers[place])
        place -= len(numbers)
    return None


def step_hashes(entries: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The first letters of the hash after each step, from the lines of ``metrics.jsonl``."""
    found: dict[int, str] = {}
    for entry in entries:
        letters, step = entry.get("step_hashes"), entry.get("step")
        if not isinstance(letters, str) or not isinstance(step, int):
            continue
        pieces = [letters[n : n + STEP_LETTERS] for n in range(0, len(letters), STEP_LETTERS)]
        found |= {step - len(pieces) + n: piece for n, piece in enumerate(pieces, start=1)}
    return found
