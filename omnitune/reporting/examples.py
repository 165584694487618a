"""Three questions to try: held out, answered rightly, of different tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnitune.data.reading import source_file
from omnitune.media.registry import MEDIA
from omnitune.reporting.gallery import Example, in_turn, match_exhibits, shuffled
from omnitune.sample import Media
from omnitune.sources import SOURCES
from omnitune.storage import write_json

EXAMPLES_FILE = "examples.json"
COUNT = 3
LONGEST_QUESTION = 200  # characters; a longer one is no invitation to type it
# Where a run has no such file, its answers are looked up in its data if that is quickly read.
QUICK_DATA = 16 << 20  # bytes of a data file
WHOLE_ANSWERS = 1 << 20  # bytes of predictions.jsonl; of a longer one some places are read
PLACES, PLACE = 64, 1 << 14
CANDIDATES = 30  # right answers of each task


@dataclass(frozen=True)
class Suggestion:
    """A question about media that the model has answered rightly.

    Attributes:
        question: in writing; may be empty, where a sound asks it.
    """

    question: str
    media: tuple[Media, ...]


def choose_examples(exhibits: Sequence[Example]) -> list[Suggestion]:
    """Chosen blindly among the right ones, of the largest tasks first, each of other media."""
    right = [
        e for e in shuffled(exhibits) if e.right and e.media and len(e.question) <= LONGEST_QUESTION
    ]
    counts = Counter(e.prediction.task for e in right)
    # Written questions first; then tasks in turn, and the kinds of each task in turn.
    right = sorted(in_turn(right, lambda e: e.prediction.kind), key=lambda e: not e.question)
    rank = {task: n for n, (task, _) in enumerate(counts.most_common())}
    right = in_turn(right, lambda e: f"{rank[e.prediction.task]:09}")
    by_media: dict[tuple[Media, ...], Suggestion] = {}
    for exhibit in right:
        by_media.setdefault(exhibit.media, Suggestion(exhibit.question, exhibit.media))
    return list(by_media.values())[:COUNT]


def write_examples(folder: Path, exhibits: Sequence[Example]) -> None:
    """Keeps examples with a run."""
    rows = [
        {"question": e.question, "media": [[m.modality, str(m.path)] for m in e.media]}
        for e in choose_examples(exhibits)
    ]
    write_json(folder / EXAMPLES_FILE, rows)


def read_examples(folder: Path, data_dir: Path) -> list[Suggestion]:
    """Those of a run whose media are still there; nothing of a damaged or missing file.

    Args:
        folder: the run's.
        data_dir: its data, for a run that has kept no examples.
    """
    path = folder / EXAMPLES_FILE
    try:
        if path.is_file():
            found = list(_examples(json.loads(path.read_text(encoding="utf-8"))))
        else:
            found = _from_answers(folder / "predictions.jsonl", find_again(data_dir, folder))
    except (OSError, ValueError, RecursionError):
        return []
    moved = [
        Suggestion(
            e.question, tuple(Media(m.modality, find_again(m.path, folder)) for m in e.media)
        )
        for e in found
    ]
    return [e for e in moved if all(m.path.is_file() for m in e.media)][:COUNT]


def find_again(path: Path, folder: Path) -> Path:
    """A path that a run names, seen from here or from one of the folders around the run."""
    candidates = [path, *(parent / path for parent in folder.resolve().parents)]
    return next((p for p in candidates if p.exists()), path)


def _examples(rows: Any) -> Iterator[Suggestion]:
    for row in rows if isinstance(rows, list) else []:
        try:
            media = tuple(Media(name, Path(path)) for name, path in row["media"])
            question = row["question"]
        except (KeyError, TypeError, ValueError):
            continue
        if media and isinstance(question, str) and all(m.modality in MEDIA for m in media):
            yield Suggestion(question, media)


def _from_answers(path: Path, data_dir: Path) -> list[Suggestion]:
    """From what a run has answered and the data that its questions are in."""
    sizes = {name: _size(source_file(data_dir, name)) for name in SOURCES}
    quick = [name for name, size in sizes.items() if size in range(1, QUICK_DATA)]
    if not quick or not path.is_file():
        return []
    lines, taken = [], Counter[str]()
    for line in _some_lines(path):
        task = str(line.get("task"))
        if line.get("answer") == line.get("reference") and taken[task] < CANDIDATES:
            taken[task] += 1
            lines.append(line)
    return choose_examples(match_exhibits(lines, data_dir, quick)[0]) if lines else []


def _some_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file: all, or those of places that are spread evenly over it."""
    size = _size(path)
    step, length = (1, size) if size <= WHOLE_ANSWERS else (size // PLACES, PLACE)
    with path.open("rb") as file:
        for start in range(0, size, step) if size > WHOLE_ANSWERS else (0,):
            file.seek(start)
            for line in file.read(length).splitlines():
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):  # also the halves at both ends
                    continue
                if isinstance(entry, dict):
                    yield entry


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
