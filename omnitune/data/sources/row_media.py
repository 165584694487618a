"""Where the media of a flat row are, however its columns name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.parts import (
    BYTES,
    as_text,
    first_filled,
    holds_medium,
    is_blank,
    is_web,
    keys_of,
    located,
    located_all,
    media_in,
    media_key,
    refuse_videos,
)
from omnitune.media.base import Medium
from omnitune.media.registry import MEDIA

PICTURE = "image"
# Columns that name a file of a medium; its suffix tells of which kind.
FILES = (
    *("imgname", "imageName", "img_name", "image_name", "image_filename", "image_local_name"),
    *("image_file_name", "file_path", "filename"),
)
# Columns with the number or name of a picture, which is called so, with the suffix of a photo.
IDS = ("image_id", "imageId", "img_id")
_FOLDER, _NAME = "filepath", "filename"  # Karpathy's
_DIGITS = 12  # of a picture's number in COCO's names


def has_bytes(record: Values) -> bool:
    """Whether a row holds a medium itself, and does not only name one."""
    held = (record[key] for m in MEDIA.values() for key in keys_of(m) if key in record)
    return any(isinstance(value, dict) and not is_blank(value.get(BYTES)) for value in held)


def names_precisely(record: Values) -> bool:
    """Whether a row tells where its file is, and not only what it is called."""
    whole, name = record.get("file_path"), record.get("file_name")
    return isinstance(whole, str) and isinstance(name, str) and whole.endswith(f"/{name}")


def shows_media(record: Values) -> bool:
    """Whether a row has media under names that say so."""
    named = any(map(record.get, IDS)) or bool(_file(record)) or bool(_of_seed(record))
    return named or any(
        media_key(record, m) or _numbered(record, m) or _by_suffix(record, m.name)
        for m in MEDIA.values()
    )


def media_of(record: Values, origin: Origin) -> dict[str, list[str]]:
    """By kind, the media of a row.

    They stand under a key of their own; in numbered columns; in one that names a file; or nothing
    but the picture's number is there.

    Raises:
        UserError: one is in no form that is known, or is a video.
    """
    refuse_videos(record, origin)
    found: dict[str, list[str]] = {}
    for name, medium in MEDIA.items():
        keys = [key] if holds_medium(record.get(key := f"decoded_{name}")) else []
        if keys := keys or _numbered(record, medium) or _by_suffix(record, name):
            found[name] = [located(record[key], [key], origin) for key in keys]
    file = _file(record)
    found = {**media_in(record, origin), **found}
    if file and all(is_web(path) for paths in found.values() for path in paths):
        found = {modality_of(file): [file]}
    if record.keys() >= {"lecture", "split", "id"} and found.get(PICTURE) == ["image.png"]:
        found[PICTURE] = [f"{record['split']}/{record['id']}/image.png"]  # ScienceQA
    if not found and (path := _of_seed(record) or _by_id(record)):
        found[PICTURE] = located_all(path, [PICTURE], origin)
    return found


def media_keys(record: Values) -> set[str]:
    """The fields of a row that its media are told by."""
    numbered = (key for medium in MEDIA.values() for key in _numbered(record, medium))
    decoded = {f"decoded_{name}" for name in MEDIA}
    suffixes = (key for name in MEDIA for key in _by_suffix(record, name))
    return {*numbered, *suffixes, *decoded, *FILES, *IDS, _FOLDER, "file_name", "data_id"}


@lru_cache(maxsize=32)
def _number(medium: Medium) -> re.Pattern[str]:
    names = [name for name in (medium.name, *medium.aliases) if "_" not in name]
    return re.compile(rf"(?:{'|'.join(names)})_?(\d{{1,2}})")


def _numbered(record: Mapping[str, Any], medium: Medium) -> list[str]:
    """The filled ones of the columns ``image_1``, ``image_2``, ..., by their numbers."""
    found = {}
    for key, value in record.items():
        number = _number(medium).fullmatch(key)
        if number and holds_medium(value):
            found[int(number[1])] = key
    return [found[number] for number in sorted(found)]


def _by_suffix(record: Values, kind: str) -> list[str]:
    """The column that is called by a suffix and holds a medium, such as img2dataset's ``jpg``."""
    held = (k for k, v in record.items() if isinstance(v, dict) and not is_blank(v.get(BYTES)))
    return [key for key in held if modality_of(f"a.{key}") == kind][:1]


def _file(record: Values) -> str:
    """The path of a row's medium that a column names by its file; "" if none does."""
    folder, name = record.get(_FOLDER), record.get(_NAME)
    if isinstance(folder, str) and isinstance(name, str) and modality_of(name):
        return f"{folder}/{name}"
    texts = (record[key] for key in FILES if isinstance(record.get(key), str))
    return next((text for text in texts if modality_of(text)), "")


def _of_seed(record: Values) -> str:
    """SEED's picture, which has no suffix."""
    return str(record.get("data_id") or "") if record.get("data_type") == PICTURE else ""


def _by_id(record: Values) -> str:
    """What a picture of this number or name is usually called: COCO's, GQA's, Open Images'."""
    given = as_text(record.get(first_filled(record, IDS)))
    if not isinstance(given, str) or modality_of(given):
        return given if isinstance(given, str) else ""
    number = isinstance(record[first_filled(record, IDS)], int)
    return f"{given.zfill(_DIGITS) if number else given}.jpg"
