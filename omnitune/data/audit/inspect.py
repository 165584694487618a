"""An account of a data folder: what it holds, what of it is broken, what its splits share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omnitune.console import progress_bar
from omnitune.data.audit.contamination import NEAR_TEXT, HeldOutText, overlap
from omnitune.data.audit.fingerprints import NOTHING, Finding, Fingerprints, Shared, decode, shared
from omnitune.data.audit.histograms import Spread, histograms_of
from omnitune.data.audit.truncation import ReadLimits, audit_truncation, count_tokens, summary
from omnitune.data.reading import DataPlace, join, read_available
from omnitune.data.remarks import remarks
from omnitune.data.samples import Samples
from omnitune.media.base import counted
from omnitune.media.registry import MEDIA
from omnitune.sample import Sample, UserError

NAMED = 20  # broken media, and pairs of each split, that are named
NAMED_ALIKE = 3  # remarks that say the same of several media
SHOWN_KINDS = 12
TEXT = "text"
LEAKS = ("same file", "same content", "changed copy", "same text", "near text")
# A picture holds more than the words about it: another one with the same caption is no leak.
ALIKE = "same words, another picture"


def inspect_folder(
    data_dir: Path | DataPlace,
    reading: ReadLimits | None = None,
    counting: ReadLimits | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Reads every record and decodes every medium of a folder, with progress bars.

    Args:
        reading: of a model, to count tokens and what would be lost.
        counting: what histograms count tokens and slots by without a ``reading``; None: words.
        names: of the sources; None: all that are there.

    Returns:
        ``sources``: by source and split ``records``, ``questions``, ``kinds``, ``media``,
        ``amounts`` and, with a reading, ``tokens`` of the texts; ``broken``: how many media, and
        the first by ``id``, ``file`` and ``problem``; ``remarks``: how many there are on media
        that can be used (frames that are not shown), the first by ``id``, ``file`` and
        ``remark``; ``leaks``: by held-out split and by modality
        (``text`` too) how many were ``compared`` and are found in training samples, by way (and of
        texts ``phrases``, the mean share of their word groups that any training sample holds);
        ``notes``: what was set aside as validation, and split names that may be slips;
        ``pairs``: the worst by name; ``leaking``: whether there are any; ``histograms`` by source
        and by what they count (see ``histograms.histogram``). With a reading also
        ``truncation``, as a run would write it, or ``refused``: why a run would not begin.

    Raises:
        UserError: there is no such folder, or a record of it is wrong.
    """
    samples = read_available(data_dir, names)
    spreads = {name: Spread(reading or counting) for name in samples}
    sources, pairs, leaks = read_texts(samples, reading, spreads)
    fingerprints, broken, remarked = decode(samples)
    for name, source in sources.items():
        for split, entry in source.items():
            entry |= _amounts(fingerprints.values(), list(samples).index(name), split)
    for split, entry in leaks.items():
        for name, found in fingerprints.items():
            compared = int((found.amount_M[found.shown(split)] > NOTHING).sum())
            if compared:
                ways = shared(found, split)
                entry[name] = {"compared": compared, **Counter(one.how for one in ways)}
                pairs.setdefault(split, []).extend(ways)
    result: dict[str, Any] = {
        "data_dir": str(data_dir),
        "sources": sources,
        "notes": remarks(samples.values()),
        "broken": _named(broken, "problem"),
        "remarks": _named(remarked, "remark"),
        "leaks": leaks,
        "pairs": _worst(pairs),
        "leaking": any(one.how in LEAKS for found in pairs.values() for one in found),
        "histograms": histograms_of(spreads, fingerprints),
    }
    if reading and not broken:
        try:
            result["truncation"] = audit_truncation(samples, reading, leave_out=True)[1]
        except UserError as error:
            result["refused"] = str(error)
    return result


def read_texts(
    samples: Mapping[str, Samples],
    reading: ReadLimits | None = None,
    spreads: Mapping[str, Spread] = MappingProxyType({}),
) -> tuple[dict[str, Any], dict[str, list[Shared]], dict[str, Any]]:
    """Account of each source, and what the held-out samples' texts share with training samples."""
    everything = join(samples.values())
    text, compared = HeldOutText(), []
    sources: dict[str, Any] = {name: {} for name in samples}
    with progress_bar("reading records", len(everything)) as advance:
        for number, sample in enumerate(everything):
            _count(sources[sample.source].setdefault(sample.split, {}), sample, reading)
            if sample.source in spreads:
                spreads[sample.source].add(sample)
            if sample.split != "train" and text.add(sample):
                compared.append(number)
            advance()
    with progress_bar("comparing texts", len(everything)) as advance:
        for number, sample in enumerate(everything):
            if sample.split == "train":
                text.meet(number, sample)
            advance()
    leaks: dict[str, Any] = {split: {} for split in sorted(everything.splits - {"train"})}
    pairs: dict[str, list[Shared]] = {}
    for number, (share, same, most) in zip(compared, text.found(), strict=True):
        held_out = everything[number]
        entry = leaks[held_out.split].setdefault(TEXT, {"compared": 0, "phrases": 0.0})
        entry["compared"] += 1
        entry["phrases"] += (share - entry["phrases"]) / entry["compared"]
        if share < NEAR_TEXT:
            continue
        pair = _text_pair(held_out, everything, same, most)
        if pair.similarity >= NEAR_TEXT:
            entry[pair.how] = entry.get(pair.how, 0) + 1
            pairs.setdefault(held_out.split, []).append(pair)
    return sources, pairs, leaks


def _text_pair(held_out: Sample, everything: Samples, same: int, most: int) -> Shared:
    """A held-out sample and the training sample whose words are most like its own."""
    training = everything[same if same >= 0 else most]
    seen = any(MEDIA[medium.modality].is_spatial for medium in held_out.media)
    how = ALIKE if seen else "same text" if same >= 0 else "near text"
    return Shared(how, training, held_out, 1.0 if same >= 0 else overlap(held_out, training))


def _count(entry: dict[str, Any], sample: Sample, reading: ReadLimits | None) -> None:
    answers = [message for message in sample.messages if message.learnt]
    entry["records"] = entry.get("records", 0) + 1
    entry["questions"] = entry.get("questions", 0) + len(answers)
    entry.setdefault("kinds", Counter()).update(answer.kind or answer.task for answer in answers)
    if reading:
        entry["tokens"] = entry.get("tokens", 0) + count_tokens(sample, reading.renderer)


def _amounts(fingerprints: Iterable[Fingerprints], source: int, split: str) -> dict[str, Any]:
    """Number of media that a source's split shows, and how much is in them."""
    shown = {found.name: found.amount_M[found.shown(split, source)] for found in fingerprints}
    shown = {name: amounts for name, amounts in shown.items() if len(amounts)}
    return {
        "media": {name: len(amounts) for name, amounts in shown.items()},
        "amounts": {name: round(float(amounts.sum()), 1) for name, amounts in shown.items()},
    }


def _named(findings: list[Finding], key: str) -> dict[str, Any]:
    """How many media there are, and the first of them with what is said of each under a key."""
    named = [
        {"id": one.sample.id, "file": str(one.medium.path), key: one.what}
        for one in findings[:NAMED]
    ]
    return {"count": len(findings), "media": named}


def _worst(pairs: Mapping[str, list[Shared]]) -> list[dict[str, Any]]:
    """The pairs of each split that are most alike."""
    return [
        {
            "split": split,
            "how": one.how,
            "train": one.training.id,
            "held_out": one.held_out.id,
            "likeness": round(one.similarity, 3),
        }
        for split, found in pairs.items()
        for one in sorted(found, key=lambda one: (one.how == ALIKE, -one.similarity))[:NAMED]
    ]


def account_lines(found: Mapping[str, Any]) -> list[str]:
    """The account as lines for the terminal."""
    lines = [f"{found['data_dir']}:"]
    for source, splits in found["sources"].items():
        lines += ["", source]
        for split, entry in splits.items():
            lines.append(f"  {split}: {_account(entry)}")
            kinds = sorted(entry["kinds"].items(), key=lambda pair: -pair[1])
            more = f", and {len(kinds) - SHOWN_KINDS} more" if len(kinds) > SHOWN_KINDS else ""
            told = ", ".join(f"{kind} {count}" for kind, count in kinds[:SHOWN_KINDS])
            lines.append(f"    kinds: {told}{more}")
    if found["notes"]:
        lines += ["", *found["notes"]]
    lines += ["", f"broken media: {found['broken']['count']}"]
    lines += [f"  {one['id']}: {one['problem']}" for one in found["broken"]["media"]]
    if found["remarks"]["count"]:
        lines.append(f"remarks on media that can be used: {found['remarks']['count']}")
        lines += _remark_lines(found["remarks"])
    lines += ["", *_leak_lines(found)]
    if "truncation" in found:
        lines += ["", summary(found["truncation"], "") or "all of it would be shown to the model"]
    if "refused" in found:
        lines += ["", f"a run would refuse it: {found['refused']}"]
    return lines


def _remark_lines(remarks: Mapping[str, Any]) -> list[str]:
    """The first of those that say the same, and how many more there are."""
    alike: Counter[str] = Counter()
    lines = []
    for one in remarks["media"]:
        what = one["remark"].removeprefix(one["file"])
        alike[what] += 1
        if alike[what] <= NAMED_ALIKE:
            lines.append(f"  {one['id']}: {one['remark']}")
    more = remarks["count"] - len(lines)
    return lines + [f"  and {more:,} more"] * (more > 0)


def _account(entry: Mapping[str, Any]) -> str:
    told = [counted(entry[f"{noun}s"], noun) for noun in ("record", "question")]
    for name, count in entry["media"].items():
        amount = f"{entry['amounts'][name]:,.0f} {MEDIA[name].unit}"
        told.append(f"{counted(count, MEDIA[name].noun)} ({amount})")
    if "tokens" in entry:
        told.append(f"{entry['tokens']:,} tokens of text")
    return ", ".join(told)


def _leak_lines(found: Mapping[str, Any]) -> list[str]:
    """What the held-out splits share with the training samples, and the worst pairs."""
    lines = [
        "found in training samples too (text: conversations, captions, transcripts and answers, "
        "not questions):"
    ]
    for split, entry in found["leaks"].items():
        for name, counts in entry.items():
            told = [f"{counts[way]} {way}" for way in LEAKS if counts.get(way)]
            total = sum(counts.get(way, 0) for way in LEAKS)
            told += [f"besides {counts[ALIKE]} {ALIKE}"] if ALIKE in counts else []
            told += [f"{counts['phrases']:.1%} of the phrases"] if name == TEXT else []
            share = f"{total / counts['compared']:.1%}"
            why = f" ({', '.join(told)})" if told else ""
            lines.append(f"  {split}, {name}: {total} of {counts['compared']:,}, {share}{why}")
    leaks = [pair for pair in found["pairs"] if pair["how"] in LEAKS]
    for pair in leaks[:NAMED]:
        names = f"{pair['held_out']} ({pair['split']}) and {pair['train']}"
        lines.append(f"    {names}: {pair['how']}, {pair['likeness']:.1%} alike")
    return lines
