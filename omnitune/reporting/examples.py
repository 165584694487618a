"""Three questions to try: held out, answered rightly, of different tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnitune.evaluation.runs import find_again
from omnitune.media.registry import MEDIA
from omnitune.media.segments import file_of
from omnitune.reporting.gallery import Example, in_turn, shuffled
from omnitune.sample import Media
from omnitune.storage import write_json

EXAMPLES_FILE = "examples.json"
COUNT = 3
LONGEST_QUESTION = 200  # characters; a longer one is no invitation to type it


@dataclass(frozen=True)
class Suggestion:
    """A question about media that the model has answered rightly.

    Attributes:
        question: in writing; may be empty, where a medium asks it.
    """

    question: str
    media: tuple[Media, ...]


def choose_examples(examples: Sequence[Example]) -> list[Suggestion]:
    """Chosen blindly among the right ones, of the largest tasks first, each of other media."""
    right = [
        e for e in shuffled(examples) if e.right and e.media and len(e.question) <= LONGEST_QUESTION
    ]
    counts = Counter(e.prediction.task for e in right)
    # Written questions first; then tasks in turn, and the kinds of each task in turn.
    right = sorted(in_turn(right, lambda e: e.prediction.kind), key=lambda e: not e.question)
    rank = {task: n for n, (task, _) in enumerate(counts.most_common())}
    right = in_turn(right, lambda e: f"{rank[e.prediction.task]:09}")
    by_media: dict[tuple[Media, ...], Suggestion] = {}
    for example in right:
        by_media.setdefault(example.media, Suggestion(example.question, example.media))
    return list(by_media.values())[:COUNT]


def write_examples(folder: Path, examples: Sequence[Example]) -> None:
    """Keeps examples with a run."""
    rows = [
        {"question": e.question, "media": [[m.modality, str(m.path)] for m in e.media]}
        for e in choose_examples(examples)
    ]
    write_json(folder / EXAMPLES_FILE, rows)


def read_examples(folder: Path) -> list[Suggestion]:
    """Those of a run whose media are still there; nothing of a damaged or missing file."""
    try:
        rows = json.loads((folder / EXAMPLES_FILE).read_text(encoding="utf-8"))
        found = list(_suggestions(rows, folder))
        return [e for e in found if all(file_of(m.path).is_file() for m in e.media)][:COUNT]
    except (OSError, ValueError, RecursionError):
        return []


def _suggestions(rows: Any, folder: Path) -> Iterator[Suggestion]:
    for row in rows if isinstance(rows, list) else []:
        try:
            media = tuple(
                Media(name, find_again(Path(path), folder)) for name, path in row["media"]
            )
            question = row["question"]
        except (KeyError, TypeError, ValueError):
            continue
        if media and isinstance(question, str) and all(m.modality in MEDIA for m in media):
            yield Suggestion(question, media)
