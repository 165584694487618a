"""Dialects in dialects: fields under other names, and records within a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import quoted
from omnitune.containers.address import INSIDE
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.parts import beside, first_filled, is_blank, keys_of, refuse_videos
from omnitune.data.sources.rows import ANSWERS, QUESTIONS, WORDS, RowsDialect, of_row
from omnitune.media.registry import MEDIA

KEY, JSON = "__key__", "json"
_READ = RowsDialect.reads


class RenamedDialect(Dialect):
    """A dialect whose fields have other names in these records.

    Args:
        inner: the dialect.
        names: by the dialect's name for a field, that of these records.
    """

    name = "renamed"

    def __init__(self, inner: Dialect, names: Mapping[str, str]) -> None:
        self.inner, self.names = inner, dict(names)
        self.title = f"{inner.title}, by the names in columns"  # type: ignore[misc]

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Never: the user says so."""
        return False

    def _renamed(self, record: Values) -> Values:
        taken = set(self.names.values())
        found = {key: value for key, value in record.items() if key not in taken}
        return found | {key: record[name] for key, name in self.names.items() if name in record}

    def native(self, record: Values, origin: Origin) -> Values:
        """As the inner dialect reads it; media inside are named by their true fields."""

        def true_name(path: str) -> str:
            first, slash, rest = path.partition("/")
            return self.names.get(first, first) + slash + rest

        return readdressed(self.inner.native(self._renamed(record), origin), true_name)

    def passes_over(self, record: Any) -> bool:
        """As the inner dialect."""
        return self.inner.passes_over(record)

    def unread(self, record: Values) -> list[str]:
        """As the inner dialect."""
        return [self.names.get(key, key) for key in self.inner.unread(self._renamed(record))]


def readdressed(value: Any, change: Callable[[str], str]) -> Any:
    """A record in which the addresses of media inside are changed.

    Args:
        change: gets what follows ``::/``.
    """
    if isinstance(value, str) and value.startswith(INSIDE):
        return INSIDE + change(value.removeprefix(INSIDE))
    if isinstance(value, list):
        return [readdressed(item, change) for item in value]
    if isinstance(value, dict):
        return {key: readdressed(item, change) for key, item in value.items()}
    return value


class WebDatasetDialect(Dialect):
    """A sample of a shard: its members by their suffixes.

    A member ``json`` is a record of any dialect, which is looked up for it.

    Args:
        known: the dialects, by name.
    """

    name = "webdataset"
    title = "WebDataset samples"

    def __init__(self, known: Mapping[str, Dialect]) -> None:
        self.known = known

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have a key of their own."""
        return all(KEY in record for record in records)

    def native(self, record: Values, origin: Origin) -> Values:
        """What the json member says of the other members, or a text or class beside them."""
        self._refuse_videos(record, origin)
        media = _members(record)
        inner = record.get(JSON)
        if isinstance(inner, dict):
            found = self._described(inner, record, media, origin)
        else:
            rest = {name: _line(record[key]) for key in record if (name := _meaning(key))}
            if not (rest and media) and not first_filled(rest, (*QUESTIONS, *ANSWERS)):
                _refuse_alone(record, origin)
            found = of_row(rest, media, origin)
        key = record.get(KEY)
        return {"id": key, **found} if isinstance(key, str) and key.strip() else found

    def _described(
        self, inner: Values, record: Values, media: dict[str, list[str]], origin: Origin
    ) -> Values:
        """A json member's record; media that are members take the place of those that it names."""
        whole = dict(inner)
        for name, paths in media.items():
            for key in keys_of(MEDIA[name]):
                whole.pop(key, None)
            whole[name if len(paths) == 1 else beside(MEDIA[name])] = paths
        for key, value in record.items():
            if _last(key) in WORDS["image"][0] and isinstance(value, str):
                whole.setdefault("text", value)
        own = {path for paths in media.values() for path in paths}
        dialects = [d for d in self.known.values() if d is not self]
        dialect = next((d for d in dialects if d.recognises([whole], origin.file)), None)
        found = dialect.native(whole, origin) if dialect else of_row(whole, media, origin)

        def below(path: str) -> str:
            return path if INSIDE + path in own else f"{JSON}/{path}"

        return readdressed(found, below)

    def _refuse_videos(self, record: Values, origin: Origin) -> None:
        for end in ("mp4", "avi", "mov", "mkv", "webm"):
            key = next((key for key in record if _last(key) == end), "")
            refuse_videos({"video": record.get(key)} if key else {}, origin)

    def unread(self, record: Values) -> list[str]:
        """Members that hold no medium that is known."""
        read = {KEY, "__url__", "__local_path__"}
        read |= {JSON} if isinstance(record.get(JSON), dict) else set()
        return [
            key
            for key, value in record.items()
            if not (
                _last(key) in read or _meaning(key) or modality_of(f"a.{key}") or is_blank(value)
            )
        ]


def _line(value: Any) -> Any:
    """A text without the line break that ends its file."""
    return value.rstrip("\r\n") if isinstance(value, str) else value


def _refuse_alone(record: Values, origin: Origin) -> None:
    """Refuses a sample that is a medium alone, or a text alone."""
    members = ", ".join(key for key in record if not key.startswith("__"))
    raise origin.wrong(
        f"has only {members or 'nothing'} under the name {quoted(record.get(KEY))}; in a tar file "
        "of samples a text (txt, json, cls) lies beside each medium, under the same name. If this "
        "is a packed folder, unpack it and name the folder"
    )


def _meaning(key: str) -> str:
    """What a member holds as its suffixes tell: ``question.txt`` is a question; "" for none."""
    return next((part for part in key.lower().split(".") if part in _READ), "")


def _last(key: str) -> str:
    """The last suffix of a member's name."""
    return key.rpartition(".")[2].lower()


def _members(record: Values) -> dict[str, list[str]]:
    """By kind, the members that are media."""
    found: dict[str, list[str]] = {}
    for key, value in record.items():
        kind = modality_of(f"a.{key}")
        if kind and isinstance(value, str) and value:
            found.setdefault(kind, []).append(value)
    return found
