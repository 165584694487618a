"""One source as it is read to be checked: every record, whatever is wrong with it.

Shape suffix: N records that can be read.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnitune.data.audit.findings import Findings, Problem
from omnitune.data.audit.text_checks import TextChecks
from omnitune.data.content_key import content_key
from omnitune.data.index import build_index
from omnitune.data.parts import Lenient
from omnitune.data.place import Place
from omnitune.data.reading import Located
from omnitune.data.reasons import field_of, reason_of
from omnitune.data.samples import IndexedSource, Samples
from omnitune.data.schema import rules
from omnitune.data.splits import clash, doubts
from omnitune.sample import Sample, UserError
from omnitune.sources import may_set_aside

MOST_ANSWERS = 1 << 16  # different answers of a source that are counted
RATE_KEYS = ("sampling_rate", "sample_rate")


@dataclass
class Checked:
    """A source, and what was noted of each record in one pass.

    Attributes:
        held: its records that can be read; None where there is none.
        asked_N, said_N: hash of what the user says, and of all that is said.
        answers: how often each answer is given. given: how many there are.
        rates: number of a record, and the sampling rate that it says its media have.
        asked_only: no record has an answer.
    """

    name: str
    located: Located
    held: Samples | None = None
    asked_N: array[int] = field(default_factory=lambda: array("q"))
    said_N: array[int] = field(default_factory=lambda: array("q"))
    answers: Counter[str] = field(default_factory=Counter)
    given: int = 0
    rates: list[tuple[int, int]] = field(default_factory=list)
    asked_only: bool = False

    @property
    def source(self) -> IndexedSource:
        """The files with their index."""
        assert self.held is not None
        return self.held.pieces[0][0]

    def problem(self, number: int, reason: str, what: str, **more: Any) -> Problem:
        """A problem of a record that can be read."""
        place = self.source.place(number)
        where = f"{place.file}: record {place.within + 1}"
        # Errors about media name the file of the medium, and not the record.
        what = what if what.startswith(where) else f"{where}: {what}"
        file, record = str(place.file), place.within + 1
        return Problem(self.name, reason, what, file, record, self.source.sample(number).id, **more)


def read_checked(
    name: str, located: Located, texts: TextChecks, findings: Findings, advance: Callable[..., None]
) -> Checked:
    """Reads all records of a source; tells of those that are wrong, and looks at their texts."""
    checked = Checked(name, located)
    count = 0

    def note(place: Place, values: Any) -> Sample:
        nonlocal count
        count += 1
        sample = located.parse(place, values)
        _note(checked, place.number, values, sample)
        for key, reason, what in texts(sample):
            told = f'{place.file}: record {place.within + 1}: "{key}" {what}'
            file, record = str(place.file), place.within + 1
            findings.add(Problem(name, reason, told, file, record, sample.id, key))
        return sample

    def wrong(place: Place, error: UserError) -> None:
        told = str(error)
        file, record = str(place.file), place.within + 1
        findings.add(Problem(name, reason_of(told), told, file, record, field=field_of(told)))

    def broken(path: Path, error: UserError | OSError) -> None:
        told = str(error) if isinstance(error, UserError) else f"{path}: {error.strerror or error}"
        told += "; the rest of the file was not looked at"
        findings.add(Problem(name, "broken-file", told, str(path)))

    files, source, parse, root, _ = located
    key = f"{name}-checked-{_key(located)}"
    lenient = Lenient(wrong, broken)
    index = build_index(files, key, note, advance, source.limit, lenient, may_set_aside(source))
    findings.records[name] = count
    for number in index.aside_A.tolist():
        position, within = index.place_N4[number, :2].tolist()
        file = str(files[position].path)
        told = f"{file}: record {within + 1} was set aside from train as validation"
        findings.add(Problem(name, "split", told, file, within + 1))
    for doubt in doubts(index.splits):
        findings.add(Problem(name, "split", f"{files[0].path}: {doubt}", str(files[0].path)))
    if two := clash(index.splits):
        told = f"{files[0].path}: the splits {two[0]} and {two[1]} differ by case alone"
        findings.add(Problem(name, "unknown-split", told, str(files[0].path)))
    if not count and not any(one.source == name for one in findings.problems):
        told = f"{files[0].path}: holds no records; the source {name} needs some"
        findings.add(Problem(name, "no-records", told, str(files[0].path)))
    if len(index.size_N):
        held = IndexedSource(files, index, parse, root)
        checked.held = Samples([(held, range(len(index.size_N)))])
    return checked


def _note(checked: Checked, number: int, values: Any, sample: Sample) -> None:
    """What is held against other records later."""
    said = [(message.role, message.text) for message in sample.messages]
    asked = [text for role, text in said if role == "user"]
    checked.asked_N.append(hash(tuple(asked)))
    checked.said_N.append(hash(tuple(said)))
    for message in sample.messages:
        if message.learnt:
            checked.given += 1
            text = message.text.strip()
            if text in checked.answers or len(checked.answers) < MOST_ANSWERS:
                checked.answers[text] += 1
    for key in RATE_KEYS if isinstance(values, dict) else ():
        rate = values.get(key)
        if isinstance(rate, int | float) and not isinstance(rate, bool) and sample.media:
            checked.rates.append((number, int(rate)))


def _key(located: Located) -> str:
    """Stands for the files and what they are read by."""
    source = located.source
    parts = [part for path, container in located.files for part in container.parts(path)]
    rule = hashlib.sha256(f"{rules(source)} {source}".encode()).hexdigest()[:12]
    return f"{content_key(parts)[:24]}-{rule}"
