"""What shows only when records are held against each other, and against their media.

Shape suffixes: N records of a source, M distinct media of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from omnitune.data.audit.checked import Checked
from omnitune.data.audit.findings import Problem
from omnitune.data.audit.fingerprints import NOTHING, Finding, Fingerprints, Shared, shared
from omnitune.data.audit.inspect import LEAKS, read_texts
from omnitune.data.reasons import media_reason
from omnitune.data.splits import TRAIN
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, UserError

ONE_ANSWER = 0.95  # of a source's answers: more of one text are told of
FEWEST_ANSWERS = 20


def media_problems(
    checked: Sequence[Checked], broken: Sequence[Finding], remarks: Sequence[Finding]
) -> Iterator[Problem]:
    """Each record that shows a medium which cannot be used, or is odd."""
    by_name = {one.name: one for one in checked}
    for found in [*broken, *remarks]:
        own = by_name[found.sample.source]
        reason = media_reason(found.what, usable=found in remarks)
        for number in own.source.showing([found.place]).tolist():
            sample = own.source.sample(number)
            yield own.problem(number, reason, found.what, field=_field(sample, found.medium))


def long_problems(
    checked: Sequence[Checked], fingerprints: Mapping[str, Fingerprints], seconds: float
) -> Iterator[Problem]:
    """Each record that shows a medium of more seconds."""
    for found in fingerprints.values():
        if MEDIA[found.name].unit != "seconds":
            continue
        for m in np.flatnonzero(found.amount_M > seconds).tolist():
            own, place = checked[int(found.source_M[m])], int(found.place_M[m])
            medium, _ = own.source.medium(place)
            told = f"{medium.path}: {found.amount_M[m]:.1f} s, the limit is {seconds:g} s"
            for number in own.source.showing([place]).tolist():
                field = _field(own.source.sample(number), medium)
                yield own.problem(number, "maybe-long-media", told, field=field)


def rate_problems(checked: Sequence[Checked]) -> Iterator[Problem]:
    """Each record whose media have another sampling rate than it says."""
    for own in checked:
        for number, rate in own.rates:
            sample = own.source.sample(number)
            for medium in sample.media:
                try:
                    header = MEDIA[medium.modality].header(medium.path)
                except UserError:
                    continue  # told of already
                there = header.get("sampling_rate", rate)
                if there != rate:
                    told = (
                        f"says {rate:,} samples a second, and {medium.path} has {there:,.0f}; "
                        "correct the record, or get the file that is meant"
                    )
                    yield own.problem(number, "wrong-rate", told, field=_field(sample, medium))


def repeated(
    checked: Sequence[Checked], fingerprints: Mapping[str, Fingerprints]
) -> Iterator[Problem]:
    """Records that say the same about the same media as another one of their source."""
    for position, own in enumerate(checked):
        index = own.source.index
        content_M = _contents(position, len(index.media_M3), fingerprints)
        first: dict[tuple[object, ...], int] = {}
        questions: dict[tuple[object, ...], tuple[int, int]] = {}
        for number in range(len(index.size_N)):
            media = tuple(content_M[index.shown_R[slice(*index.show_N[number : number + 2])]])
            said, asked = own.said_N[number], own.asked_N[number]
            other = first.setdefault((said, *media), number)
            if other != number:
                yield _repeat(own, other, number)
                continue
            before, words = questions.setdefault((asked, *media), (number, said))
            if words != said and media:
                told = f"asks the same as record {_within(own, before)}, and answers otherwise"
                yield own.problem(number, "other-answer", told)


def _repeat(own: Checked, first: int, number: int) -> Problem:
    """Within a split the later record goes; between two, that of the training."""
    index = own.source.index
    splits = [index.splits[int(index.split_N[n])] for n in (first, number)]
    if TRAIN not in splits or splits[0] == splits[1]:
        told = f"says the same as record {_within(own, first)}; leave one of them out"
        return own.problem(number, "duplicate", told)
    if splits[1] == TRAIN:
        first, number, splits = number, first, splits[::-1]
    told = (
        f"is in {splits[0]}, and record {_within(own, number)}, which says the same, is in "
        f"{splits[1]}; leave this one out"
    )
    return own.problem(first, "overlap", told)


def _within(own: Checked, number: int) -> int:
    return own.source.place(number).within + 1


def _contents(position: int, count: int, fingerprints: Mapping[str, Fingerprints]) -> np.ndarray:
    """Of a source's media, what stands for the content of each; of a broken one for its path."""
    content_M = np.arange(count, dtype=np.uint64)
    for found in fingerprints.values():
        own = np.flatnonzero((found.source_M == position) & (found.amount_M > NOTHING))
        content_M[found.place_M[own]] = found.content_M[own]
    return content_M


def constant_answers(checked: Sequence[Checked]) -> Iterator[Problem]:
    """Sources nearly all of whose answers are one."""
    for own in checked:
        if own.given < FEWEST_ANSWERS:
            continue
        [(answer, times)] = own.answers.most_common(1)
        if times > ONE_ANSWER * own.given:
            share = f"{times:,} of {own.given:,}"
            told = (
                f"{own.located.files[0].path}: {share} answers of the source {own.name} are "
                f"{answer[:60]!r}, so a model learns to say that; is the right field read?"
            )
            yield Problem(own.name, "one-answer", told, str(own.located.files[0].path))


def overlaps(
    checked: Sequence[Checked], fingerprints: Mapping[str, Fingerprints]
) -> Iterator[Problem]:
    """Training records that share a medium or their words with held-out ones."""
    held = {one.name: one.held for one in checked if one.held is not None}
    by_name = {one.name: one for one in checked}
    _, pairs, leaks = read_texts(held)
    for split in leaks:
        for found in fingerprints.values():
            pairs.setdefault(split, []).extend(shared(found, split))
    told: set[tuple[str, int, str]] = set()
    for split, some in pairs.items():
        for pair in some:
            training = pair.training
            name = (training.source, training.number, pair.how)
            if pair.how not in LEAKS or name in told:
                continue
            told.add(name)
            yield by_name[training.source].problem(
                training.number, "overlap", _overlap_text(pair, split)
            )


def _overlap_text(pair: Shared, split: str) -> str:
    return (
        f"is in {TRAIN}, and shares its content ({pair.how}, {pair.similarity:.0%} alike) with "
        f"{pair.held_out.id} ({pair.held_out.source}) in {split}; leave one of them out"
    )


def _field(sample: Sample, medium: Media) -> str:
    """What a record calls a medium: its kind, and which of several."""
    own = [one for one in sample.media if one.modality == medium.modality]
    own = list(dict.fromkeys(own))
    if len(own) < 2 or medium not in own:
        return medium.modality
    return f"{medium.modality} {own.index(medium) + 1}"
