"""What other people's records hold: media under whatever name, words, and what is passed over."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from omnitune.config.settings import as_found, quoted
from omnitune.containers.address import INSIDE, inside
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.kinds import modality_of
from omnitune.data.splits import MEANT, mistaken
from omnitune.media.base import Medium
from omnitune.media.registry import MEDIA
from omnitune.sample import LANGUAGE_CODE
from omnitune.tasks import ANY_QUESTION, TASKS

BYTES = "bytes"  # of a struct that holds a medium
_PATHS = ("path", "url", "file_name", "filename", "src")  # of a struct that names one
_DECODED = ("array", "sampling_rate")
_VIDEOS = ("video", "videos", "video_path", "video_url", "input_video")
# Keys that are no medium, and that may still be what somebody wants to be learnt.
_MATTERS = frozenset({"rejected", "rejected_response", "rejected_messages", "tools", "objects"})
# No path is so long without a dot, nor is one of such a beginning: JPEG, PNG, GIF, RIFF.
_BASE64 = re.compile(
    r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|(?=.{1000}))[A-Za-z0-9+/\s]{60,}={0,2}\s*", re.DOTALL
)
_WEB = re.compile(r"https?://")
_FILE = "file://"


@lru_cache(maxsize=32)
def keys_of(medium: Medium) -> tuple[str, ...]:
    """Names that a record may have for media of a kind; the usual ones first."""
    name = medium.name
    return (name, f"{name}s", f"{name}_filepath", f"{name}_file", *medium.aliases)


def beside(medium: Medium) -> str:
    """What most formats call a record's list of such media, as ours is called by the singular."""
    return f"{medium.name}s"


def is_blank(value: Any) -> bool:
    """Whether a field holds nothing: tables write that in many ways."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def as_text(value: Any) -> Any:
    """A number as text, as answers in tables often are; anything else as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number and math.isfinite(value) else value


def first_filled(record: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first of some keys that the record has something under; "" if there is none."""
    return next((key for key in keys if not is_blank(record.get(key))), "")


def located(value: Any, keys: Sequence[str], origin: Origin) -> str:
    """The path of one medium, or its address in the record.

    Args:
        keys: under which it stands in the record.

    Raises:
        UserError: it is neither, or is decoded already.
    """
    if isinstance(value, str) and value.strip():
        if value.startswith("data:") or _is_base64(value):
            return inside(keys)
        return value.removeprefix(_FILE)
    at = ".".join(keys)
    if isinstance(value, dict):
        if not is_blank(value.get(BYTES)):
            return inside([*keys, BYTES])
        if key := first_filled(value, _PATHS):
            return located(value[key], [*keys, key], origin)
        if any(key in value for key in _DECODED):
            raise origin.wrong(
                f'"{at}" is decoded sound ({" and ".join(value)}), expected the bytes of its file; '
                "save the data set with decode=False, as in "
                "cast_column(NAME, Audio(decode=False))"
            )
    raise origin.wrong(
        f'"{at}" is {as_found(_told(value))}, expected a path, or an object with "bytes" or "path"'
    )


def _is_base64(text: str) -> bool:
    return len(text) > 64 and bool(_BASE64.fullmatch(text))


def located_all(value: Any, keys: Sequence[str], origin: Origin) -> list[str]:
    """The paths of one medium, a list of them, or none."""
    if is_blank(value):
        return []
    if isinstance(value, list):
        return [
            located(item, [*keys, str(n)], origin)
            for n, item in enumerate(value)
            if item is not None
        ]
    return [located(value, keys, origin)]


def _told(value: Any) -> Any:
    """A value short enough for an error."""
    return list(value) if isinstance(value, dict) else value


def media_in(record: Values, origin: Origin) -> dict[str, list[str]]:
    """By kind, the media that a record lists under a key of its own.

    Raises:
        UserError: one is in no form that is known, or is a video.
    """
    refuse_videos(record, origin)
    found = {}
    for medium in MEDIA.values():
        if key := media_key(record, medium):
            found[medium.name] = located_all(record[key], [key], origin)
    return {name: paths for name, paths in found.items() if paths}


def media_key(record: Mapping[str, Any], medium: Medium) -> str:
    """The key that the media of a kind stand under; "" if there are none.

    An unusual name counts only where its value looks like a medium.
    """
    keys = keys_of(medium)
    for n, key in enumerate(keys if not record.keys().isdisjoint(keys) else ()):
        value = record.get(key)
        if not is_blank(value) and (n < 4 or holds_medium(value)):
            return key
    return ""


def holds_medium(value: Any) -> bool:
    """Whether a value looks like a medium, or a list of media."""
    if isinstance(value, list):
        return bool(value) and holds_medium(value[0])
    if isinstance(value, dict):
        return not is_blank(value.get(BYTES)) or holds_medium(value.get("path"))
    if not isinstance(value, str) or len(value) > 1 << 12:
        return isinstance(value, str) and value.startswith("data:")
    known = value.startswith(("data:", INSIDE)) or bool(modality_of(value))
    return known and "\n" not in value


def is_web(value: Any) -> bool:
    """Whether a value is a web address."""
    return isinstance(value, str) and bool(_WEB.match(value))


def refuse_videos(record: Values, origin: Origin) -> None:
    """Refuses a record with a video: it would be learnt without it."""
    if not record.keys().isdisjoint(_VIDEOS) and (key := first_filled(record, _VIDEOS)):
        raise origin.wrong(
            f'"{key}" is a video, and videos are not read; leave such records out, or give their '
            'pictures under "images" and their sound under "audios"'
        )


def kept(record: Values) -> Values:
    """What a record says of itself in the same words as ours do."""
    found: Values = {}
    for key in ("id", "kind"):
        value = as_text(record.get(key))
        if isinstance(value, str) and value.strip():
            found[key] = value
    split = record.get("split")
    if isinstance(split, str) and split.strip():
        found["split"] = mistaken(split) or _usual(split)
    language = record.get("language") or record.get("lang")
    if isinstance(language, str) and LANGUAGE_CODE.fullmatch(language):
        found["language"] = language
    task = record.get("task")
    if isinstance(task, str) and (task in TASKS or task == ANY_QUESTION):
        found["task"] = task
    hard = record.get("difficulty")
    if isinstance(hard, int | float) and not isinstance(hard, bool) and 0 <= hard <= 1:
        found["difficulty"] = hard
    return found


def _usual(split: str) -> str:
    """A split by the name that it has here: val, dev and the like are validation."""
    return next((ours for ours, names in MEANT.items() if split.casefold() in names), split)


class ForeignDialect(Dialect):
    """A dialect of others: what it has no use for is passed over, and named once.

    Attributes:
        reads: keys of a record that it reads, beside those of media.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    def unread(self, record: Values) -> list[str]:
        """Names of keys that are not read and hold a medium, or text that somebody may miss."""
        used = {key for medium in MEDIA.values() if (key := media_key(record, medium))}
        read = {*used, *self.reads}
        known = [record[key] for key in read if key in record]
        return [
            key
            for key, value in record.items()
            if not (key in read or is_blank(value) or (isinstance(value, str) and value in known))
            and not (used and is_web(value))  # where it once was
            and (key in _MATTERS or holds_medium(value))
        ]


def one_of(names: Iterable[str]) -> str:
    """Names for an error."""
    return ", ".join(map(quoted, names))
