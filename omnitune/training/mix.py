"""The realised mix: of samples, tokens, supervised tokens and loss, the share of each source.

Sums over the run so far, kept with it. What is asked are shares of samples; a source of long
answers has more of the tokens and of the loss than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

AMOUNTS = ("samples", "tokens", "supervised", "loss")  # of a step, by group
MEASURES = ("asked", *AMOUNTS)
NOTABLE = 0.05  # difference to what was asked that is worth a line


def add_step(
    sums: dict[str, dict[str, float]],
    asked: Mapping[str, float],
    groups: Sequence[str],
    amounts: Mapping[str, Sequence[float]],
) -> None:
    """Adds one step's amounts.

    Args:
        sums: by source and measure; changed.
        asked: share of each source as configured.
        amounts: by measure of ``AMOUNTS``, by group.
    """
    samples = sum(amounts["samples"])
    for n, name in enumerate(groups):
        row = sums.setdefault(name, dict.fromkeys(MEASURES, 0.0))
        row["asked"] += asked.get(name, 0.0) * samples
        for measure, by_group in amounts.items():
            row[measure] += by_group[n]


def shares(sums: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each source's share of each measure."""
    totals = {m: sum(row[m] for row in sums.values()) or 1.0 for m in MEASURES}
    return {name: {m: row[m] / totals[m] for m in MEASURES} for name, row in sums.items()}


def mix_lines(entry: Mapping[str, Any]) -> list[str]:
    """What to print of a line of ``metrics.jsonl``: at an epoch's end, where it is notable."""
    mix = entry.get("mix") or {}
    got = ("samples", "supervised", "loss")
    off = max((abs(row[m] - row["asked"]) for row in mix.values() for m in got), default=0.0)
    if not entry["epoch_ended"] or off < NOTABLE:
        return []
    cells = [
        f"{name} {row['asked']:.0%} → " + "/".join(f"{row[m]:.0%}" for m in got)
        for name, row in mix.items()
    ]
    return ["mix, asked → share of samples/supervised tokens/loss: " + "; ".join(cells)]
