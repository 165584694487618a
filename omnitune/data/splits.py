"""Which split a record is in: as it says, else by its content; and names that look like slips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from omnitune.config.settings import nearest, quoted

TRAIN, VALIDATION, TEST = "train", "validation", "test"
VALIDATION_SHARE = 0.05
SPLIT = "split"  # the key that names it
# What other data sets call these.
MEANT_TRAIN = ("training", "trn")
MEANT = {
    VALIDATION: ("val", "valid", "dev", "devel", "development", "eval", "evaluation", "holdout"),
    TEST: ("testing", "tst"),
}
SLIP = 0.75  # names as like as this are taken for a slip of the pen


def content_hash(values: Mapping[str, Any]) -> bytes:
    """Stands for what a record says, in whatever order its keys are."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()


def by_content(values: Mapping[str, Any]) -> str:
    """The split of a record that names none."""
    digest = content_hash(values)
    held_out = digest[0] * 256 + digest[1] < VALIDATION_SHARE * 65536
    return VALIDATION if held_out else TRAIN


def one_to_set_aside(records: Iterable[Mapping[str, Any]]) -> int | None:
    """Number of the record that is held out where the share of them gives none.

    Only records that name no split are taken, and one of them is left to train on. It is the one
    of the smallest hash: the same one wherever it stands in its file, and in every run.
    """
    free = ((content_hash(r), n) for n, r in enumerate(records) if SPLIT not in r)
    found = min(free, default=None)
    return found[1] if found else None


def mistaken(name: str) -> str:
    """The split that a name is a slip of, for certain; empty if it may be a name of its own.

    By case or blanks alone, or as others call the training split: such records would be held out
    without a word.
    """
    plain = name.strip().casefold()
    if plain in MEANT_TRAIN:
        return TRAIN
    if plain in (TRAIN, VALIDATION, TEST):
        return plain if plain != name else ""
    return name.strip() if name != name.strip() else ""


def likely(name: str) -> str:
    """The split that a name may stand for; empty if it is one, or like none."""
    if name in (TRAIN, VALIDATION, TEST):
        return ""
    for split, others in MEANT.items():
        if name.casefold() in others:
            return split
    return nearest(name.casefold(), (TRAIN, VALIDATION, TEST), SLIP)


def clash(names: Collection[str]) -> tuple[str, str] | None:
    """Two names that differ by case alone, if there are any."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return other, name
    return None


def doubts(names: Iterable[str]) -> list[str]:
    """A sentence for each name that may be meant as another."""
    return [
        f"the split {quoted(name)} is held out under a name of its own; "
        f"if {quoted(likely(name))} is meant, name it so"
        for name in sorted(names)
        if likely(name)
    ]
