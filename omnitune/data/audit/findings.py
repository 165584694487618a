"""What is found wrong or odd in data: where, by which code, and how people are told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omnitune.media.base import counted

SHOWN = 3  # places of each reason in the table
# Codes of what has only to be known. All others are errors.
REMARKS: Mapping[str, str] = {
    "one-answer": "nearly all answers of the source are one and the same",
    "other-answer": "the same question about the same medium has another answer elsewhere",
    "odd-media": "a medium that can be used has something its owner should know of",
    "maybe-long-media": "longer than --max-seconds; a model may refuse it",
    "other-script": "the answer has no letter of its language's script, only Latin ones",
    "empty-question": "the user says nothing and shows nothing",
    "questions-only": "no record has an answer: the source can be answered, not trained",
    "split": "a split was set aside, or its name looks like a slip",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong or odd.

    Attributes:
        reason: its code. what: the sentence.
        file: that the record lies in. record: its number there, from 1 on; 0: the whole file or
            source.
        id: of the record; "" where it is not known.
        field: of the record; "" for all of it.
        tokens: that a model would not be shown; 0 where that is not the point.
    """

    source: str
    reason: str
    what: str
    file: str = ""
    record: int = 0
    id: str = ""
    field: str = ""
    tokens: int = 0

    @property
    def is_remark(self) -> bool:
        """Whether the record can be used all the same."""
        return self.reason in REMARKS

    @property
    def where(self) -> tuple[str, str, int]:
        """Names the record: source, file, number."""
        return self.source, self.file, self.record

    def as_json(self) -> dict[str, Any]:
        """The attributes, without those that say nothing."""
        values = {**vars(self), "kind": "remark" if self.is_remark else "error"}
        return {name: value for name, value in values.items() if value}


@dataclass
class Findings:
    """All that is found.

    Attributes:
        records: by source, how many were read, the wrong ones among them.
        media: how many distinct ones were looked at, those that are missing too.
        formats: by source, what its records are read as.
        ignored: codes that are passed over.
    """

    ignored: frozenset[str] = frozenset()
    problems: list[Problem] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    media: int = 0
    formats: dict[str, str] = field(default_factory=dict)

    def add(self, problem: Problem) -> None:
        """Takes in a problem, unless it is passed over."""
        if problem.reason not in self.ignored:
            self.problems.append(problem)

    def take(self, other: Findings) -> None:
        """Takes in those of one source."""
        self.problems += other.problems
        self.records |= other.records

    @property
    def errors(self) -> list[Problem]:
        """Those that are no mere remarks."""
        return [one for one in self.problems if not one.is_remark]

    def sort(self) -> None:
        """By place, so that the order in which they were found is of no matter."""
        place = {name: n for n, name in enumerate(self.records)}
        self.problems.sort(
            key=lambda p: (place.get(p.source, -1), *p.where, p.reason, p.field, p.what)
        )

    def as_json(self) -> dict[str, Any]:
        """Everything, with counts by source and reason."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.records}
        for one in self.problems:
            counts.setdefault(one.source, Counter())[one.reason] += 1
        return {
            "records": self.records,
            "media": self.media,
            "formats": self.formats,
            "errors": len(self.errors),
            "remarks": len(self.problems) - len(self.errors),
            "counts": {name: dict(sorted(found.items())) for name, found in counts.items()},
            "findings": [one.as_json() for one in self.problems],
        }

    def lines(self) -> list[str]:
        """A table by source and reason, with the first places of each."""
        told = [counted(sum(self.records.values()), "record"), counted(self.media, "medium")]
        lines = [f"read {told[0]} and looked at {told[1].replace('mediums', 'media')}"]
        for source in dict.fromkeys([*self.records, *(one.source for one in self.problems)]):
            own = [one for one in self.problems if one.source == source]
            read_as = f", {self.formats[source]}" if source in self.formats else ""
            lines += ["", f"{source}: {counted(self.records.get(source, 0), 'record')}{read_as}"]
            lines += _source_lines(own) if own else ["  clean"]
        errors, remarks = len(self.errors), len(self.problems) - len(self.errors)
        return [*lines, "", f"{counted(errors, 'error')}, {counted(remarks, 'remark')}"]


def _source_lines(problems: Iterable[Problem]) -> list[str]:
    by_reason: dict[str, list[Problem]] = {}
    for one in problems:
        by_reason.setdefault(one.reason, []).append(one)
    lines = []
    for reason, found in sorted(by_reason.items(), key=lambda pair: pair[1][0].is_remark):
        lost = sum(one.tokens for one in found)
        more = f", {lost:,} tokens lost" if lost else ""
        kind = " (remark)" if found[0].is_remark else ""
        lines.append(f"  {reason}{kind}: {len(found):,}{more}")
        lines += [f"    {one.what}" for one in found[:SHOWN]]
        lines += [f"    and {len(found) - SHOWN:,} more"] * (len(found) > SHOWN)
    return lines
