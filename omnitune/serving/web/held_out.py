"""Examples to try on the page: questions kept from training, with their references."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.evaluation.runs import data_of, find_again
from omnitune.media.base import open_file
from omnitune.media.registry import MEDIA
from omnitune.reporting.examples import LONGEST_QUESTION, read_examples
from omnitune.reporting.gallery import Example, in_turn, read_gallery, shuffled
from omnitune.reporting.previews import preview
from omnitune.sample import Media, UserError

COUNT = 6
SIDE = 1024  # pixels of a picture that browsers cannot show as it is
BROWSERS_READ = {"image/png", "image/jpeg", "image/webp", "image/gif"}
BROWSERS_READ |= {"audio/wav", "audio/x-wav", "audio/mpeg"}
MOST_BYTES = 1 << 20


def examples_of(ckpt_dir: Path) -> list[dict[str, Any]]:
    """A few questions with media, as JSON: ``question``, ``reference`` and ``media``.

    They are drawn blindly from all that was scored, so the model may answer them wrongly.
    Where the answers or their data are not there any more, those that the run kept are given.
    """
    folder = ckpt_dir if ckpt_dir.is_dir() else ckpt_dir.parent
    try:
        found, _ = read_gallery(folder / "predictions.jsonl", data_of(ckpt_dir))
    except (UserError, OSError):
        found = []
    rows = (_row(e.question, e.media, e.prediction.reference) for e in _choose(found))
    examples = [row for row in rows if row is not None]
    if not examples:
        kept = (_row(e.question, e.media) for e in read_examples(folder))
        examples = [row for row in kept if row is not None]
    return examples[:COUNT]


def _choose(examples: Sequence[Example]) -> list[Example]:
    """One of each task and kind in turn, each of other media."""
    shown = [e for e in shuffled(examples) if e.media and len(e.question) <= LONGEST_QUESTION]
    mixed = in_turn(in_turn(shown, lambda e: e.prediction.kind), lambda e: e.prediction.task)
    by_media: dict[tuple[Media, ...], Example] = {}
    for example in mixed:
        by_media.setdefault(example.media, example)
    return list(by_media.values())[: 2 * COUNT]  # some may not be there any more


def _row(
    question: str, media: Sequence[Media], reference: str | None = None
) -> dict[str, Any] | None:
    """An example for the page; None where a medium cannot be shown."""
    shown = [as_data(medium) for medium in media]
    if not all(shown):
        return None
    row: dict[str, Any] = {"question": question, "media": shown}
    return row if reference is None else row | {"reference": reference}


def as_data(medium: Media) -> dict[str, str] | None:
    """A medium as the page holds it, ``{"kind", "name", "type", "uri"}``; None if unreadable.

    A file that browsers show goes as it is; of others a copy is made.
    """
    kind = MEDIA[medium.modality]
    path = find_again(medium.path, Path.cwd())
    found, _ = mimetypes.guess_type(path.name)
    try:
        if found in BROWSERS_READ:
            with open_file(path, kind.noun) as file:
                content = file.read(MOST_BYTES + 1)
            if len(content) <= MOST_BYTES:
                uri = f"data:{found};base64,{base64.b64encode(content).decode('ascii')}"
                return {"kind": kind.name, "name": path.name, "type": found, "uri": uri}
    except UserError:
        return None
    copy = preview(Media(kind.name, path), SIDE)
    uri = copy.sound or copy.picture
    if not uri:
        return None
    return {"kind": kind.name, "name": path.name, "type": uri[5:].partition(";")[0], "uri": uri}
