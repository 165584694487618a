"""Pictures and their captions in one JSON object, as COCO and NoCaps have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnitune.containers.base import without_lead
from omnitune.containers.derived import JoinedLines
from omnitune.containers.json_object import scan_list
from omnitune.containers.notes import note
from omnitune.sample import UserError

FILES, ANNOTATIONS = "images", "annotations"  # keys of the file's object
ID, OF, FILE, WORDS = "id", "image_id", "file_name", "caption"
_LISTS = re.compile(
    rb'"images"\s*:\s*\[\s*\{[^{}\[\]]*"file_name"|"annotations"\s*:\s*\[\s*\{[^{}\[\]]*"caption"'
)


class CaptionsContainer(JoinedLines):
    """Each picture with all of its captions. A joined copy, one record a line, is made once."""

    name = "captions"
    suffixes = ()

    def recognises(self, head: bytes) -> bool:
        """Whether an object with a list of pictures' files or of captions begins."""
        return without_lead(head).startswith(b"{") and bool(_LISTS.search(head))

    def join(self, path: Path) -> Iterator[dict[str, Any]]:
        """The two lists, joined."""
        words: dict[Any, list[Any]] = {}
        for number, (_, _, value) in enumerate(scan_list(path, ANNOTATIONS), 1):
            if not isinstance(value, dict) or not {OF, WORDS} <= value.keys():
                keys = ", ".join(value) if isinstance(value, dict) else "no object"
                raise UserError(
                    f'{path}: annotation {number} has no "{WORDS}" of an "{OF}" ({keys}); boxes, '
                    "masks and the like are not read"
                )
            words.setdefault(value[OF], []).append(value[WORDS])
        bare = 0
        for picture in _pictures(path):
            texts = words.pop(picture[ID], None)
            bare += not texts
            if texts:
                yield {FILE: picture[FILE], ID: str(picture[ID]), f"{WORDS}s": texts}
        if bare:
            note(f"{path}: {bare:,} of its pictures have no caption and are passed over")
        if words:
            raise UserError(
                f'{path}: {len(words):,} pictures have captions, and "{FILES}" does not name them, '
                f'such as that of the "{OF}" {next(iter(words))}'
            )


def _pictures(path: Path) -> Iterator[dict[str, Any]]:
    for number, (_, _, value) in enumerate(scan_list(path, FILES), 1):
        if not isinstance(value, dict) or not {ID, FILE} <= value.keys():
            raise UserError(f'{path}: item {number} of "{FILES}" has no "{ID}" and "{FILE}"')
        yield value
