"""Checks data before anything is trained on it: every record is read and every medium opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from omnitune.console import progress_bar
from omnitune.data.audit.checked import Checked, read_checked
from omnitune.data.audit.cross_checks import (
    constant_answers,
    long_problems,
    media_problems,
    overlaps,
    rate_problems,
    repeated,
)
from omnitune.data.audit.findings import Findings, Problem
from omnitune.data.audit.fingerprints import decode
from omnitune.data.audit.looking import Looker
from omnitune.data.audit.text_checks import TextChecks
from omnitune.data.audit.truncation import ReadLimits, audit_source
from omnitune.data.reading import DataPlace, Located, locate_source, read_available, source_file
from omnitune.data.reasons import media_reason, reason_of
from omnitune.data.samples import IndexedSource
from omnitune.sample import UserError
from omnitune.sources import SOURCES

# What means nothing where nothing is trained.
PASSED_OVER = frozenset({"split", "unknown-split", "empty-answer"})


@dataclass(frozen=True)
class Checks:
    """What is checked, and by what.

    Attributes:
        reading: of a model; None to check without one.
        max_seconds: of media, where no model says.
        ignored: codes that are passed over.
        languages: by source, of answers that do not say.
        workers: threads that decode media; as many as there are cores if None.
    """

    reading: ReadLimits | None = None
    max_seconds: float = 30.0
    ignored: frozenset[str] = frozenset()
    languages: Mapping[str, str] = field(default_factory=dict)
    workers: int | None = None


@dataclass
class Validation:
    """Data that was checked.

    Attributes:
        checked: its sources, with the records that can be read.
        look: what saw its media.
    """

    findings: Findings
    checked: list[Checked]
    look: Looker


def validate(
    data: DataPlace,
    checks: Checks,
    sources: Iterable[str] | None = None,
    look: Looker | None = None,
) -> Validation:
    """Reads every record, decodes every medium, and collects all that is wrong or odd.

    What was seen of the media is kept in the cache, so that a second start goes on where a first
    one was stopped.

    Args:
        sources: names of those to check; all that are there if None.
        look: knows media already; else one that the cache helps.

    Raises:
        UserError: there is no data at all.
    """
    findings = Findings(checks.ignored)
    every = _read(data, checks, findings, sources)
    held = [one for one in every if one.held is not None]
    look = look or Looker(_key(held), checks.workers)
    fingerprints, broken, remarks = decode({c.name: c.held for c in held if c.held}, look)
    findings.media = sum(len(one.source.index.media_M3) for one in held)
    trained = [one for one in held if not one.asked_only]
    rounds = [
        media_problems(held, broken, remarks),
        rate_problems(held),
        repeated(trained, fingerprints),
        constant_answers(trained),
        overlaps(trained, fingerprints),
    ]
    if not checks.reading:
        rounds.append(long_problems(held, fingerprints, checks.max_seconds))
    for problems in rounds:
        for problem in problems:
            findings.add(problem)
    if checks.reading:
        known = {(one.sample.source, one.place) for one in broken}
        for own in held:
            _check_lengths(own, checks.reading, findings, known)
    findings.sort()
    return Validation(findings, every, look)


def _read(
    data: DataPlace, checks: Checks, findings: Findings, sources: Iterable[str] | None
) -> list[Checked]:
    """Reads the sources one by one."""
    texts = TextChecks(checks.reading.renderer if checks.reading else None)
    located: dict[str, Located] = {}
    found: list[Checked] = []
    names = list(sources) if sources is not None else _present(data)
    if not names:
        read_available(data)  # says what is expected
    refused: dict[str, UserError] = {}
    for name in names:
        findings.records[name] = 0
        try:
            located[name] = _locate(data, checks, name)
        except UserError as error:
            refused[name] = error
    size = sum(file.path.stat().st_size for one in located.values() for file in one.files)
    with progress_bar("reading records (MB)", -(-size // 10**6)) as advance:
        for name in names:
            own = Findings(findings.ignored)
            one = None
            if name in located:
                try:
                    one = read_checked(name, located[name], texts, own, lambda n: advance(n / 1e6))
                except UserError as error:
                    refused[name] = error
            # A run's own sources are there to be trained, and answers that are empty were meant.
            empty = any(problem.reason == "empty-answer" for problem in own.problems)
            may_be_asked = sources is None and not (one and one.held) and not empty
            asked = _read_questions(data, checks, name, texts) if may_be_asked else None
            if asked:
                one, own = asked
            elif name in refused:
                told = str(refused[name])
                path = data.own[name].path if name in data.own else str(data.folder)
                own.add(Problem(name, _file_reason(told), told, path))
            findings.take(own)
            if one:
                found.append(one)
                if one.located.found:
                    findings.formats[name] = one.located.found.read_as
    return found


def _locate(data: DataPlace, checks: Checks, name: str, unanswered: bool = False) -> Located:
    own, language = data.own.get(name, name), checks.languages.get(name, "")
    return locate_source(data.folder, own, language=language, unanswered=unanswered)


def _read_questions(
    data: DataPlace, checks: Checks, name: str, texts: TextChecks
) -> tuple[Checked, Findings] | None:
    """A source as ``omnitune answer`` takes it, where no record that can be read has an answer."""
    own = Findings(checks.ignored | PASSED_OVER)
    try:
        located = _locate(data, checks, name, unanswered=True)
        found = read_checked(name, located, texts, own, lambda n: None)
    except UserError:
        return None
    if found.held is None or {*found.answers} - {""}:
        return None
    found.asked_only = True
    file = str(located.files[0].path)
    told = f"{file}: questions only: can be answered (`omnitune answer`), not trained"
    own.add(Problem(name, "questions-only", told, file))
    return found, own


def _file_reason(sentence: str) -> str:
    return "missing-file" if "no such" in sentence else reason_of(sentence)


def _present(data: DataPlace) -> list[str]:
    """Names of the sources that have a file."""
    folder = data.folder
    names = [name for name in SOURCES if name not in data.own] if folder else []
    return [n for n in names if folder and source_file(folder, n).exists()] + list(data.own)


def _key(held: Sequence[Checked]) -> str:
    """Stands for the records whose media are looked at."""
    names = "/".join(one.source.index.name for one in held)
    return hashlib.sha256(names.encode()).hexdigest()


def _check_lengths(
    own: Checked, reading: ReadLimits, findings: Findings, known: set[tuple[str, int]]
) -> None:
    """What a model would refuse: media that it cannot use, and samples over its context."""
    assert own.held is not None

    def tell(source: IndexedSource, place: int, error: UserError) -> None:
        if (own.name, place) in known:
            return
        medium, _ = source.medium(place)
        what = str(error).partition(": ")[2]
        reason = "no-encoder" if "no encoder" in what else media_reason(what)
        for number in source.showing([place]).tolist():
            findings.add(own.problem(number, reason, what, field=medium.modality))

    found = audit_source(own.held, reading, tell)
    for number, tokens in found.long_K2.tolist():
        told = (
            f"{tokens:,} tokens, the limit is {reading.max_tokens:,}; shorten it, or it is left out"
        )
        findings.add(own.problem(number, "over-context", told, tokens=tokens))
