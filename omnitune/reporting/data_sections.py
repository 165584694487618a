"""What a report says of the data of a run: what was asked and got, its hash, and what it taught."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.evaluation.runs import as_number, as_object
from omnitune.evaluation.scoring import Prediction
from omnitune.reporting.gallery import Example
from omnitune.reporting.page import Block, Section
from omnitune.reporting.previews import show_media
from omnitune.reporting.tables import write_score
from omnitune.sample import Media

COUNTS = ("samples", "tokens", "supervised")
CARDS = 8
SOUND = 600_000  # characters of base64 that the players of these cards may take


def receipt_rows(receipt: Mapping[str, Any]) -> list[list[Any]]:
    """By source the share asked for, and of each count what was got and its share."""
    rows = []
    for source in receipt:
        row: list[Any] = [source, as_number(receipt, source, "asked")]
        for key in COUNTS:
            row.append(write_score(as_number(receipt, source, key, "got"), "count"))
            row.append(as_number(receipt, source, key, "share"))
        if row[1] is not None:
            rows.append(row)
    return rows


def receipt_section(results: dict[str, Any], folder: Path) -> Section | None:
    """The mixture receipt with the run hash; None for a run that kept neither."""
    rows = receipt_rows(as_object(results, "receipt", "total"))
    proof = as_object(results, "run_hash")
    if not rows and not proof:
        return None
    heads = ["source", "asked", "samples", "share", "tokens", "share", "super\u00advised", "share"]
    blocks: list[Block] = []
    if rows:
        blocks.append(("table", {"name": "mixture receipt", "heads": heads, "rows": rows}))
    phases = as_object(results, "receipt", "phases")
    for number in phases:
        found = receipt_rows(as_object(phases, number))
        if found:
            data = {"summary": f"phase {number}", "heads": heads, "rows": found}
            blocks.append(("folded_table", data))
    if proof:
        values = [("run hash", str(proof.get("hash"))), ("steps", str(proof.get("steps")))]
        left_out = proof.get("left_out") or []
        values += [("updates left out", str(len(left_out)))] if isinstance(left_out, list) else []
        command = f"omnitune replay --ckpt_dir {shlex.quote(str(folder))}"
        lines = [("computes the hash again from the data", command)]
        blocks += [("pairs", {"values": values}), ("commands", {"lines": lines})]
    note = (
        "Weights ask for shares of samples. The receipt counts what the steps read: samples, "
        "tokens (those of media included) and supervised tokens. The run hash covers every record "
        "that was read, in order, with the questions drawn from it and its tokens."
    )
    return Section("Mixture receipt", note, blocks)


def left_out_section(results: dict[str, Any]) -> Section | None:
    """What was left out as wrong, by source and reason; None for a run that refuses it."""
    found = as_object(results, "bad_samples")
    if not found:
        return None
    rows: list[list[Any]] = []
    for source in as_object(found, "sources"):
        reasons = as_object(found, "sources", source, "reasons")
        records = as_number(found, "sources", source, "records") or 0
        for code in reasons:
            count = as_number(reasons, code) or 0
            share = write_score(count / records if records else None, "percent")
            rows.append([source, code, write_score(count, "count"), share])
    examples = as_object(found, "examples")
    note = (
        "Records that were wrong, or whose media could not be used, were left out of training and "
        "scores (bad_samples skip). `omnitune validate` lists every one of them."
        if rows
        else "No record was left out as wrong (bad_samples skip)."
    )
    blocks: list[Block] = []
    if rows:
        heads = ["source", "reason", "records", "share"]
        blocks.append(("table", {"name": "left out", "heads": heads, "rows": rows}))
        told = [[code, str(examples[code])] for code in examples]
        data = {"summary": "an example of each", "heads": ["reason", "example"], "rows": told}
        blocks.append(("folded_table", data))
    return Section("Left out", note, blocks)


def taught_section(results: dict[str, Any]) -> Section | None:
    """Losses by source, and the training records that stand out; None where they were not kept."""
    taught = as_object(results, "taught")
    rows, blocks = [], []
    for source in taught:
        entry = as_object(taught, source)
        start, end = as_number(entry, "start"), as_number(entry, "end")
        if start is None or end is None:
            continue
        keys = ("records", "seen", "seen_twice", "not_falling")
        counts = [write_score(as_number(entry, key), "count") for key in keys]
        rows.append([source, write_score(start, "loss"), write_score(end, "loss"), *counts])
        if as_number(entry, "followed") != as_number(entry, "records"):
            rows[-1][3] += f" ({write_score(as_number(entry, 'followed'), 'count')} followed)"
        blocks += _tables(source, entry)
    if not rows:
        return None
    heads = ["source", "loss at start", "at end", "records", "seen", "twice", "not falling"]
    table: Block = ("table", {"name": "what each source taught", "heads": heads, "rows": rows})
    cards = _cards(taught)
    if cards:
        blocks.append(("gallery", {"cards": cards}))
    note = (
        "Start and end are the mean training loss in the first and the last tenth of the run in "
        "which the source was seen. Not falling counts the records whose loss was no lower when "
        "last seen than at first, of those seen twice or more. A record may be shown with other "
        "questions each time. Those that stood out were asked again at the end: a record is never "
        "learnt if its loss did not fall and the finished model still gives a wrong answer. Such a "
        "record may be wrong itself."
    )
    return Section("Which data taught it", note, [table, *blocks])


def _tables(source: str, entry: Mapping[str, Any]) -> list[Block]:
    heads = ["record", "file", "seen", "loss at first", "last", "now"]
    heads += ["question", "reference", "answer"]
    found: list[Block] = []
    for key, words in (("never_learnt", "never learnt"), ("hardest", "hardest records")):
        rows = [_row(record) for record in _records(entry, key)]
        if rows:
            data = {"summary": f"{source}: {words}", "heads": heads, "rows": rows}
            found.append(("folded_table", data))
    return found


def _records(entry: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = entry.get(key)
    return [r for r in found if isinstance(r, dict)] if isinstance(found, list) else []


def _row(record: Mapping[str, Any]) -> list[str]:
    losses = [write_score(as_number(record, key), "loss") for key in ("first", "last", "loss")]
    answer = record.get("answer")
    return [
        f"{record.get('record')} ({record.get('id')})",
        str(record.get("file", "")),
        write_score(as_number(record, "seen"), "count"),
        *losses,
        str(record.get("question") or "–"),
        str(record.get("reference", "")),
        "–" if answer is None else str(answer) or "(nothing)",
    ]


def _cards(taught: Mapping[str, Any]) -> list[tuple[Example, Any, str]]:
    """Records to look at: never learnt, then the hardest that are answered wrongly, in turn."""
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    lists = [
        [
            record
            for record in _records(as_object(taught, source), key)
            if record.get("right") is False
        ]
        for key in ("never_learnt", "hardest")
        for source in taught
    ]
    for place in range(max(map(len, lists), default=0)):
        for found in lists:
            for record in found[place : place + 1]:
                chosen.setdefault((str(record.get("file")), str(record.get("record"))), record)
    records = list(chosen.values())[:CARDS]
    examples = [_example(record) for record in records]
    media = show_media([example.media for example in examples], SOUND)
    reasons = [
        f"training record: loss {write_score(as_number(record, 'loss'), 'loss')}, seen "
        f"{write_score(as_number(record, 'seen'), 'count')} times"
        for record in records
    ]
    return list(zip(examples, media, reasons, strict=True))


def _example(record: Mapping[str, Any]) -> Example:
    names = ("id", "task", "kind", "reference", "answer")
    texts: dict[str, Any] = {name: str(record.get(name, "")) for name in names}
    return Example(
        Prediction(**texts),
        False,
        question=str(record.get("question", "")),
        media=_media(record.get("media")),
        split="train",
        place=f"{record.get('file')}, record {record.get('record')}",
    )


def _media(found: Any) -> tuple[Media, ...]:
    pairs: Sequence[Any] = found if isinstance(found, list) else []
    good = (pair for pair in pairs if isinstance(pair, list) and len(pair) == 2)
    return tuple(Media(str(name), Path(str(path))) for name, path in good)
