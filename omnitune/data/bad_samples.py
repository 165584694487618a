"""Samples that a run leaves out because something is wrong with them: counted, told, limited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from omnitune.data.audit.looking import Looker
from omnitune.data.reasons import media_reason
from omnitune.data.samples import IndexedSource, Samples
from omnitune.sample import Sample, UserError


class BadSamples:
    """Counts what is left out, by source and reason.

    Args:
        samples: by source, all of each.
        max_share: of all records; a run that would leave out more is stopped.

    Attributes:
        dropped: source, number and sentence of each that broke when it was to be trained on.
    """

    def __init__(self, samples: Mapping[str, Samples], max_share: float) -> None:
        self.max_share = max_share
        self.records: dict[str, int] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.told: dict[str, str] = {}
        self.dropped: list[tuple[str, int, str]] = []
        self._known: set[tuple[str, int]] = set()
        for name, held in samples.items():
            index = held.pieces[0][0].index
            self.records[name] = len(index.size_N) + len(index.wrong)
            self.counts[name] = Counter(index.wrong)
            for code, sentence in zip(dict.fromkeys(index.wrong), index.told, strict=True):
                self.told.setdefault(code, sentence)

    def leave_out(self, source: str, numbers: Iterable[int], sentence: str) -> None:
        """Notes records that show a medium which cannot be used; each counts once.

        Args:
            numbers: of the records among those that can be read.
        """
        new = {(source, int(number)) for number in numbers} - self._known
        self._known |= new
        code = media_reason(sentence)
        self.counts[source][code] += len(new)
        self.told.setdefault(code, sentence)

    def on_broken(self, source: IndexedSource, place: int, error: UserError) -> None:
        """Notes the records of a medium that cannot be used, by its place in the index."""
        numbers = source.showing([place]).tolist()
        self.leave_out(source.sample(numbers[0]).source, numbers, str(error))

    def drop(self, sample: Sample, error: UserError) -> None:
        """Notes a sample that broke when it was read to be trained on.

        Raises:
            UserError: there are too many now.
        """
        if (sample.source, sample.number) not in self._known:
            self.dropped.append((sample.source, sample.number, str(error)))
            self.leave_out(sample.source, [sample.number], str(error))
            self.check()

    def go_on(self, state: dict[str, Any]) -> None:
        """Notes what an earlier part of the run has dropped, and keeps it in the run's state."""
        for source, number, sentence in state.get("dropped", []):
            self.dropped.append((source, number, sentence))
            self.leave_out(source, [number], sentence)
        state["dropped"] = self.dropped

    @property
    def total(self) -> int:
        """How many are left out."""
        return sum(counts.total() for counts in self.counts.values())

    def check(self) -> None:
        """Raises a UserError if more is left out than the run allows."""
        whole = sum(self.records.values())
        if self.total <= self.max_share * whole:
            return
        every: Counter[str] = sum(self.counts.values(), Counter())
        [(code, times)] = every.most_common(1)
        raise UserError(
            f"{self.total:,} of {whole:,} records would be left out, and max_bad_samples is "
            f"{self.max_share:g}; the most common reason is {code} ({times:,}): "
            f"{self.told[code]}; `omnitune validate` lists them all"
        )

    def lines(self) -> list[str]:
        """A line for each source of which something is left out."""
        lines = []
        for name, counts in self.counts.items():
            reasons = ", ".join(f"{times:,} {code}" for code, times in counts.most_common())
            if reasons:
                share = f"{counts.total():,} of {self.records[name]:,} records"
                lines.append(f"left out of {name}: {share} ({reasons})")
        return lines

    @property
    def summary(self) -> str:
        """All of it, for the log."""
        return "\n".join(self.lines()) or "no sample is left out as wrong"

    def as_json(self) -> dict[str, Any]:
        """By source the records and the reasons; by reason an example."""
        sources = {
            name: {"records": self.records[name], "reasons": dict(counts.most_common())}
            for name, counts in self.counts.items()
        }
        return {"left_out": self.total, "sources": sources, "examples": self.told}


def without_broken(
    samples: Mapping[str, Samples], bad: BadSamples, splits: Iterable[str]
) -> dict[str, Samples]:
    """Decodes all media of some splits, and leaves out their records that show a broken one."""
    kept, splits = dict(samples), list(splits)
    names = "/".join(held.pieces[0][0].index.name for held in samples.values())
    look = Looker(f"{names}/{splits}")
    for name, held in samples.items():
        [(source, numbers)] = held.pieces
        index = source.index
        wanted_N = np.zeros(len(index.size_N), dtype=bool)
        for split in splits:
            wanted_N[source.of_split(split)] = True
        places = np.unique(index.shown_R[np.repeat(wanted_N, np.diff(index.show_N))]).tolist()
        out = set[int]()
        seen = look(source.medium(place)[0] for place in places)
        for place, found in zip(places, seen, strict=True):
            if isinstance(found, UserError):
                shown = source.showing([place])
                out |= set(shown[wanted_N[shown]].tolist())
                bad.leave_out(name, out, str(found))
        if out:
            kept[name] = Samples([(source.without(sorted(out)), numbers)])
    return kept
