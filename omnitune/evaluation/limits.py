"""How long an answer may be, and what is said of those that are longer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from omnitune.data.loader import SampleReader

# An answer may have so many times the tokens of the longest reference, and some more.
ANSWER_ROOM, MORE_ROOM = 1.5, 16


def answer_limit(reader: SampleReader, references: Iterable[str]) -> int:
    """Tokens that an answer may have: more than any of the references, and the same for all.

    A limit by each question's own reference would give away how long the answer is.
    """
    longest = max((len(reader.renderer.encode(text)) for text in references), default=0)
    return math.ceil(ANSWER_ROOM * longest) + MORE_ROOM


def cut_short(tasks: Mapping[str, Mapping[str, Any]], split: str) -> list[str]:
    """A warning for each task of a split, of which answers were cut at their limit."""
    return [
        f"{task} of {split}: {found['at_limit']:,} of {found['questions']:,} answers were cut and "
        f"are scored as far as they go: they had not ended after {found['answer_limit']:,} tokens, "
        "which is above the longest reference, or where the thinker's positions end"
        for task, found in tasks.items()
        if found.get("at_limit")
    ]
