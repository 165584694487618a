"""The mixture receipt: of each source what was asked for and what was got, by phase and in all.

Counted from what each step read, in whole samples and tokens; a step whose update was left out is
not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omnitune.training.run_hash import Read

COUNTS = ("samples", "tokens", "supervised")
ROW = ("asked", *COUNTS)  # ``asked`` in samples

Rows = dict[str, dict[str, float]]


def add_reads(
    phases: dict[str, Rows], phase: int, asked: Mapping[str, float], reads: Iterable[Read]
) -> None:
    """Adds what a step read.

    Args:
        phases: rows by source, by the number of the phase, counted from 1; changed.
        phase: that the step is of, counted from 0.
        asked: share of each source as configured there.
    """
    rows = phases.setdefault(str(phase + 1), {})
    total = 0
    for read in reads:
        row = rows.setdefault(read.origin.source, dict.fromkeys(ROW, 0))
        row["samples"] += 1
        row["tokens"] += read.tokens
        row["supervised"] += read.supervised
        total += 1
    for source, share in asked.items():
        rows.setdefault(source, dict.fromkeys(ROW, 0))["asked"] += share * total


def receipt_of(phases: Mapping[str, Rows], names: Sequence[str]) -> dict[str, Any]:
    """The receipt as ``results.json`` holds it.

    Args:
        phases: as ``add_reads`` makes them.
        names: of the sources, in the order of the configuration.

    Returns:
        ``total`` and ``phases`` (by number, where there are several): by source ``asked`` (share),
        and of each of ``COUNTS`` what was asked for, what was got, and its share of the whole.
    """
    whole: Rows = {}
    for rows in phases.values():
        for source, row in rows.items():
            sums = whole.setdefault(source, dict.fromkeys(ROW, 0))
            for key in ROW:
                sums[key] += row[key]
    found: dict[str, Any] = {"total": _written(whole, names)}
    if len(phases) > 1:
        found["phases"] = {number: _written(rows, names) for number, rows in phases.items()}
    return found


def _written(rows: Rows, names: Sequence[str]) -> dict[str, Any]:
    totals = {key: sum(row[key] for row in rows.values()) for key in ROW}
    written = {}
    for source in (name for name in names if name in rows):
        row = rows[source]
        share = row["asked"] / (totals["asked"] or 1)
        written[source] = {"asked": share} | {
            key: {
                "asked": round(share * totals[key]),
                "got": round(row[key]),
                "share": row[key] / (totals[key] or 1),
            }
            for key in COUNTS
        }
    return written
