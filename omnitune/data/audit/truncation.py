"""The truncation ledger: what of the data a model is never shown, and of which samples.

Media are measured by their headers. Of very many the measures are kept beside the index, as is the
list of samples that are too long, so that a later start reads neither media nor records for them.

Shape suffixes: N records, M distinct media, R places in records that show a medium.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from omnitune.data.audit.extents import (
    LOST,
    MOST,
    WHOLE,
    at_record,
    bar_of_many,
    measure_media,
    set_aside_broken,
    slots_of,
)
from omnitune.data.samples import MANY_MEDIA, IndexedSource, Samples
from omnitune.data.template import ChatRenderer
from omnitune.encoders.base import Encoder
from omnitune.media.base import counted
from omnitune.sample import Sample, UserError
from omnitune.storage import replacing

TRUNCATION_FILE = "truncation.json"
NAMED = 20  # samples that lost most
PROBED = 200  # records of a source from which the number of all its tokens is estimated
# Bytes of text that a tokenizer with a normaliser may see in place of one (NFC: at most 3).
NORMALISED = 3

# Told of a medium that cannot be used: its source, its place in the index, what is wrong.
OnBroken = Callable[[IndexedSource, int, UserError], None]


@dataclass(frozen=True)
class ReadLimits:
    """How samples will be read: what decides what is lost.

    Attributes:
        renderer: of the thinker.
        modalities: of the model.
        max_tokens: longest sample.
        conversations: whether training shows the questions of a record as one conversation.
    """

    renderer: ChatRenderer
    modalities: Mapping[str, Encoder]
    max_tokens: int
    conversations: bool = True

    @property
    def media_key(self) -> str:
        """Stands for all that measuring media depends on."""
        return media_key(self.modalities)

    @property
    def key(self) -> str:
        """Stands for all that the length of a sample depends on."""
        tokenizer = self.renderer.tokenizer.to_str()
        projectors = {n: m.projector for n, m in self.modalities.items() if not m.keeps_rows}
        known = [projectors] if projectors else []
        return _key([self.media_key, self.max_tokens, self.conversations, tokenizer, *known])


def media_key(modalities: Mapping[str, Encoder]) -> str:
    """Stands for all that measuring media depends on."""
    return _key({name: [m.medium.reader_version, m.config] for name, m in modalities.items()})


def kept_extents(source: IndexedSource, modalities: Mapping[str, Encoder]) -> Path | None:
    """The file of the extents of a source's media; None of so few that none is kept."""
    many = len(source.index.media_M3) > MANY_MEDIA
    return source.folder / f"extents-{media_key(modalities)}.npy" if many else None


@dataclass(frozen=True)
class SourceAudit:
    """One source as it will be read.

    Attributes:
        samples: all of the source's.
        extents_M4: of each medium: whole, lost, least and most feature rows.
        long_K2: numbers and tokens of the records that are too long.
        broken_B: numbers of the records that show a medium which cannot be used.
        tokens: of all records, to within one or two a clip of sound; ``estimated`` says whether
            they are counted in some records only.
    """

    samples: Samples
    extents_M4: np.ndarray
    long_K2: np.ndarray
    broken_B: np.ndarray
    tokens: int
    estimated: bool

    @property
    def source(self) -> IndexedSource:
        """The file."""
        return self.samples.pieces[0][0]

    @property
    def kept(self) -> Samples:
        """The samples, those that are too long or show a broken medium in no split."""
        out = np.union1d(self.long_K2[:, 0], self.broken_B)
        if not len(out):
            return self.samples
        return Samples([(self.source.without(out), self.samples.pieces[0][1])])


def audit_truncation(
    samples: Mapping[str, Samples],
    reading: ReadLimits,
    leave_out: bool = False,
    on_broken: OnBroken | None = None,
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Checks every medium by its header and every sample's length before anything is trained.

    Args:
        samples: by source, all of each.
        leave_out: take samples that are too long out of their splits; otherwise they are refused.
        on_broken: told of each medium that cannot be used, whose samples are then left out; None:
            such a medium is an error.

    Returns:
        the samples, and the ledger by modality (``text`` for tokens): ``unit``, ``whole``,
        ``lost``, ``samples`` (how many lost something) and ``worst`` (``id``, ``file``, ``lost``);
        of media also ``slots`` and ``rows`` (feature rows, behind no projector), at most.

    Raises:
        UserError: a medium cannot be used, or a sample is too long; names it.
    """
    found = [audit_source(held, reading, on_broken) for held in samples.values()]
    long = [(held.source, *row) for held in found for row in held.long_K2.tolist()]
    long.sort(key=lambda row: -row[2])
    if long and not leave_out:
        source, number, tokens = long[0]
        raise UserError(
            f"sample {source.sample(number).id}: {tokens} tokens, the limit is "
            f"{reading.max_tokens}, and {len(long)} sample(s) in all are above it; shorten them, "
            "raise max_tokens, or leave them out with too_long leave_out"
        )
    kept = {name: held.kept for name, held in zip(samples, found, strict=True)}
    ledger = {
        name: _media_entry(found, name, modality)
        for name, modality in reading.modalities.items()
        if any(name in held.source.index.modalities for held in found)
    }
    return kept, {**ledger, "text": _text_entry(found, long)}


def summary(ledger: Mapping[str, Any], file: str = TRUNCATION_FILE) -> str:
    """One line on what is lost; "" if nothing is.

    Args:
        file: where more is told; "" for none.
    """
    told = [
        f"{entry['lost'] / entry['whole']:.1%} of all {entry['unit']} "
        f"({counted(entry['samples'], 'sample')})"
        for entry in ledger.values()
        if entry["lost"]
    ]
    more = f"; see {file}" * bool(file)
    return f"not shown to the model: {', '.join(told)}{more}" if told else ""


def count_tokens(sample: Sample, renderer: ChatRenderer) -> int:
    """Tokens of a sample without its media's slots."""
    return len(renderer.render(sample.messages, [0] * len(sample.media)).tokens)


def audit_source(
    samples: Samples, reading: ReadLimits, on_broken: OnBroken | None = None
) -> SourceAudit:
    """What a model is not shown of one source; the arguments are those of audit_truncation."""
    [(source, numbers)] = samples.pieces
    index = source.index
    folder = source.folder
    measure = partial(measure_media, source, reading.modalities, on_broken is not None)
    extents = kept_extents(source, reading.modalities)
    extents_M4 = keep_array(extents, measure) if extents else measure()
    extents_M4, broken = set_aside_broken(source, reading.modalities, extents_M4)
    slots_M2 = slots_of(source, reading.modalities, extents_M4)
    least_N, most_N = (_per_record(source, slots_M) for slots_M in slots_M2.T)
    slots_N = (least_N + most_N) / 2
    factor = 1 if reading.renderer.tokenizer.normalizer is None else NORMALISED
    # No token is shorter than a byte, and a turn's two own ones than what JSON writes around it.
    bound_N = most_N + factor * index.size_N
    some = np.linspace(0, len(numbers) - 1, min(PROBED, len(numbers))).astype(int)
    probed = sum(
        count_tokens(source.sample(n), reading.renderer) + float(slots_N[n]) for n in some.tolist()
    )
    candidates = np.flatnonzero(bound_N > reading.max_tokens)
    find = partial(_find_long, source, reading, slots_M2, candidates)
    long_K2 = keep_array(folder / f"long-{reading.key}.npy", find) if folder.is_dir() else find()
    for place, error in broken.items():
        if on_broken is None:
            raise at_record(source, place, error)
        on_broken(source, place, error)
    return SourceAudit(
        samples,
        extents_M4,
        long_K2,
        source.showing(list(broken)),
        tokens=round(probed * float(bound_N.sum()) / float(bound_N[some].sum())),
        estimated=len(some) < len(numbers),
    )


def _per_record(source: IndexedSource, values_M: np.ndarray) -> np.ndarray:
    """Sum of a value over each record's media: ``[N]``."""
    index = source.index
    total = np.concatenate([[0.0], np.cumsum(values_M[index.shown_R])])
    return np.diff(total[index.show_N])


def _find_long(
    source: IndexedSource, reading: ReadLimits, slots_M2: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Of records that may be too long, number and tokens of those that are: ``[K, 2]``."""
    index = source.index
    found = array("q")
    with bar_of_many("measuring samples", len(candidates)) as advance:
        for number in candidates.tolist():
            shown = index.shown_R[index.show_N[number] : index.show_N[number + 1]]
            slots = slots_M2[shown].sum(axis=0)
            tokens = _longest(source.sample(number), reading, *slots.astype(int).tolist())
            if tokens > reading.max_tokens:
                found.extend((number, tokens))
            advance()
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _longest(sample: Sample, reading: ReadLimits, least: int, most: int) -> int:
    """Tokens of the longest form that a sample is shown in; media are read if they decide."""
    whole = reading.conversations and sample.split == "train"
    forms = [sample] if whole else sample.split_turns()
    text = max(count_tokens(form, reading.renderer) for form in forms)
    if least == most or text + most <= reading.max_tokens or text + least > reading.max_tokens:
        return text + most
    modalities = [(reading.modalities[m.modality], m.path) for m in sample.media]
    return text + sum(m.slots_for(m.num_slots(m.read(path))) for m, path in modalities)


def _media_entry(found: Iterable[SourceAudit], name: str, modality: Encoder) -> dict[str, Any]:
    """The ledger of one modality: what is lost in encoding, and with samples that are left out."""
    totals = Counter[str]()
    losses: list[tuple[float, IndexedSource, int]] = []
    for held in found:
        index = held.source.index
        if name not in index.modalities:
            continue
        own_M = index.media_M3[:, 2] == index.modalities.index(name)
        lost_M = np.where(_gone(held), held.extents_M4[:, WHOLE], held.extents_M4[:, LOST]) * own_M
        totals["whole"] += held.extents_M4[own_M, WHOLE].sum()
        totals["lost"] += lost_M.sum()
        totals["samples"] += (_per_record(held.source, lost_M > 0) > 0).sum()
        totals["rows"] += held.extents_M4[own_M, MOST].sum()
        totals["slots"] += slots_of(held.source, {name: modality}, held.extents_M4)[own_M, 1].sum()
        most = np.argsort(-lost_M, kind="stable")[:NAMED].tolist()
        losses += [(float(lost_M[n]), held.source, n) for n in most if lost_M[n]]
    worst = []
    for amount, source, place in sorted(losses, key=lambda row: -row[0])[:NAMED]:
        medium, sample = source.medium(place)
        file = source.shown(medium.path)
        worst.append({"id": sample.id, "file": file, "lost": round(amount, 2)})
    return {
        "unit": modality.medium.unit,
        "whole": round(float(totals["whole"]), 2),
        "lost": round(float(totals["lost"]), 2),
        "samples": int(totals["samples"]),
        "slots": int(totals["slots"]),
        "rows": int(totals["rows"]),
        "worst": worst,
    }


def _gone(held: SourceAudit) -> np.ndarray:
    """Whether each medium is shown by samples only that are left out: ``[M]``."""
    index = held.source.index
    staying_N = np.ones(len(index.size_N))
    staying_N[held.long_K2[:, 0]] = 0
    staying_R = np.repeat(staying_N, np.diff(index.show_N))
    return np.bincount(index.shown_R, staying_R, minlength=len(index.media_M3)) == 0


def _text_entry(
    found: Iterable[SourceAudit], long: list[tuple[IndexedSource, int, int]]
) -> dict[str, Any]:
    """The tokens of samples that are left out, longest first, their media's slots included."""
    return {
        "unit": "tokens",
        "whole": sum(held.tokens for held in found),
        "estimated": any(held.estimated for held in found),
        "lost": sum(tokens for _, _, tokens in long),
        "samples": len(long),
        "worst": [
            {
                "id": source.sample(n).id,
                "file": source.shown(source.place(n).file),
                "lost": tokens,
            }
            for source, n, tokens in long[:NAMED]
        ],
    }


def _key(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def keep_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is kept in a file: made at the first start, mapped at later ones."""
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError):
        made = make()
    try:
        with replacing(path, f".{os.getpid()}.tmp") as file:
            np.save(file, made)
    except OSError:  # a read-only or full folder: it is made again
        pass
    return made
