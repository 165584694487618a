"""Tar files as WebDataset writes them: files that share a name up to the first dot are a record."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from omnitune.containers.base import RowContainer, inside
from omnitune.sample import UserError

KEY = "__key__"
# Endings of members that are text; the others are media.
TEXT = frozenset(
    [
        *("txt", "text", "caption", "captions", "transcript", "transcription", "trans"),
        *("cls", "cls2", "id", "index", "inx", "lab", "label", "labels", "lang", "language"),
        *("question", "answer", "prompt", "csv", "tsv", "md"),
    ]
)
JSON = frozenset({"json"})
_BLOCK = 512
_MEND = "write the shard again with the files of a sample next to each other (tar --sort=name)"


class Part(NamedTuple):
    """A file in a tar file: where its first header begins, and where its bytes are."""

    name: str
    start: int
    data: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it and what fills its last block."""
        return self.data + -(-self.size // _BLOCK) * _BLOCK

    @property
    def key(self) -> str:
        """The name up to the first dot of its last part."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def ending(self) -> str:
        """The rest of the name, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


class TarContainer(RowContainer):
    """Records of the files of a sample: ``__key__``, and each file under its ending.

    Texts and JSON are read; other files are media, and stay where they are. A place is the first
    byte of a sample's first header and the number of bytes up to the end of its last file.
    """

    name = "tar"
    suffixes = (".tar",)

    def recognises(self, head: bytes) -> bool:
        """Whether it begins with the header of a file."""
        if len(head) < _BLOCK:
            return False
        try:
            tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return False
        return True

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields place and value of each sample."""
        seen: set[int] = set()
        parts: list[Part] = []
        with path.open("rb") as file:
            for part in _parts(path, file, 0):
                if parts and part.key != parts[0].key:
                    yield self._sample(path, file, parts, seen)
                    parts = []
                parts.append(part)
            if parts:
                yield self._sample(path, file, parts, seen)

    def row(self, path: Path, start: int, length: int) -> Any:
        """The sample at a place."""
        with path.open("rb") as file:
            return _value(path, file, list(_between(path, file, start, length)))

    def stored(self, path: Path, start: int, length: int, keys: list[str]) -> Any:
        """The bytes of the file with an ending; or what stands in a JSON file under keys."""
        with path.open("rb") as file:
            for part in _between(path, file, start, length):
                if part.ending == keys[0] and len(keys) == 1:
                    return _bytes(file, part)
        return super().stored(path, start, length, keys)

    def _sample(
        self, path: Path, file: BinaryIO, parts: list[Part], seen: set[int]
    ) -> tuple[int, int, Any]:
        key = parts[0].key
        if hash(key) in seen:
            raise UserError(
                f"{path}: the files of the sample {key} do not lie next to each other, so that "
                f"some of them would be lost; {_MEND}"
            )
        seen.add(hash(key))
        return parts[0].start, parts[-1].end - parts[0].start, _value(path, file, parts)


def _between(path: Path, file: BinaryIO, start: int, length: int) -> Iterator[Part]:
    for part in _parts(path, file, start):
        if part.start >= start + length:
            return
        yield part


def _parts(path: Path, file: BinaryIO, start: int) -> Iterator[Part]:
    """The files of samples from a header on; raises UserError."""
    size = file.seek(0, 2)
    file.seek(start)
    at = start
    try:
        with tarfile.TarFile(fileobj=file, mode="r") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else all of them stay in memory
                at = tar.offset
                if part := _part(path, member, size):
                    yield part
            at = tar.offset
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise _damaged(path, at, str(error)) from None
    file.seek(at)
    if file.read(_BLOCK).strip(b"\0"):  # where a header is damaged, tarfile ends in silence
        raise _damaged(path, at, "no header of a file is there")


def _damaged(path: Path, at: int, said: str) -> UserError:
    return UserError(
        f"{path}: is no whole tar file ({said}, at byte {at}); it may be cut off: fetch or write "
        "it again"
    )


def _part(path: Path, member: tarfile.TarInfo, size: int) -> Part | None:
    """A file of a sample; None of folders, hidden files and those without an ending."""
    if member.isdir():
        return None
    if not member.isreg() or member.issparse():
        kind = "a link" if member.islnk() or member.issym() else "no regular file"
        raise UserError(
            f"{path}: {member.name} is {kind}, and only regular files are read; write the shard "
            "again with the files themselves (tar --dereference --hard-dereference)"
        )
    name = member.name.removeprefix("./")
    base = name.rpartition("/")[2]
    if base.startswith(".") or "." not in base or "__MACOSX/" in name:
        return None
    part = Part(name, member.offset, member.offset_data, member.size)
    if part.data + part.size > size:
        raise _damaged(path, part.start, f"{name} goes on after the end of the file")
    return part


def _value(path: Path, file: BinaryIO, parts: list[Part]) -> dict[str, Any]:
    """The record of a sample; raises LookupError where there is none."""
    value: dict[str, Any] = {KEY: parts[0].key}
    for part in parts:
        if part.ending in value:
            raise UserError(f"{path}: holds {part.name} twice; keep one of them")
        value[part.ending] = _read(path, file, part)
    return value


def _read(path: Path, file: BinaryIO, part: Part) -> Any:
    kind = part.ending.rpartition(".")[2]
    if kind not in TEXT and kind not in JSON:
        return inside([part.ending])
    try:
        text = _bytes(file, part).decode("utf-8-sig")
        return json.loads(text) if kind in JSON else text
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text ({error.reason})"
    except (ValueError, RecursionError) as error:
        what = f"is not valid JSON ({error})"
    raise UserError(f"{path}: {part.name} {what}; write the shard again without this fault")


def _bytes(file: BinaryIO, part: Part) -> bytes:
    file.seek(part.data)
    return file.read(part.size)
