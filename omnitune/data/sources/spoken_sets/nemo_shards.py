"""NeMo's tarred sets: sounds in tar files, and manifests that name them by shard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from omnitune.containers.address import INSIDE, MARK
from omnitune.containers.jsonl import JsonLinesContainer
from omnitune.containers.registry import HEAD
from omnitune.containers.tar import KEY, TarContainer
from omnitune.data.sources.base import Values
from omnitune.data.sources.file_splits import splits_of
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.manifest import PATHS, ManifestDialect
from omnitune.data.sources.spoken_sets.joined import JoinedContainer
from omnitune.sample import UserError

SHARD = "shard_id"
_PART = re.compile(r"-sub\d+(?=\.\w+$)")  # of one file that several lines cut
_NUMBER = re.compile(r"\d+")


def layout_of_shards(folder: Path, files: Iterable[Path]) -> Layout | None:
    """The layout of tar files with NeMo's manifests; None if there are none."""
    files = list(files)
    tars = {
        int(numbers[-1]): path
        for path in files
        if path.suffix == ".tar" and (numbers := _NUMBER.findall(path.stem))
    }
    if not tars:
        return None
    manifests = [p for p in files if p.suffix in (".json", ".jsonl") and _is_manifest(p)]
    if not manifests:
        return None
    shallow = min(len(path.parts) for path in manifests)  # one of all, else those of each shard
    manifests = [path for path in manifests if len(path.parts) == shallow]
    parts = {path: list(tars.values()) for path in manifests}
    container = JoinedContainer("tarred", partial(_rows, folder, tars), parts)
    splits = splits_of(manifests, folder)
    return Layout(manifests, ManifestDialect.name, container, str(folder), splits)


def _is_manifest(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(HEAD)
    return head.startswith(b"{") and all(
        b'"%b"' % key.encode() in head for key in (PATHS[0], SHARD)
    )


def _rows(folder: Path, tars: dict[int, Path], path: Path) -> Iterator[Values]:
    for number, (_, _, row) in enumerate(JsonLinesContainer().scan(path), 1):
        at = f"{path}: record {number}"
        given = row if isinstance(row, dict) else {}
        name, shard = given.get(PATHS[0]), given.get(SHARD)
        tar = tars.get(shard) if isinstance(shard, int) else None
        if tar is None:
            raise UserError(f"{at}: there is no tar file of the shard {json.dumps(shard)}")
        there, whole = _members(tar), _PART.sub("", str(name))
        found = there.get(str(name)) or there.get(whole)
        if not found:
            raise UserError(f"{at}: {tar} holds no {name}")
        yield {**given, PATHS[0]: f"{tar.relative_to(folder)}{MARK}{found}"}


@lru_cache(maxsize=2)
def _members(tar: Path) -> dict[str, str]:
    """By name, where each sound of a tar file lies, as an address has it."""
    found = {}
    for start, length, sample in TarContainer().scan(tar):
        value: dict[str, Any] = sample
        for ending, inside in value.items():
            if isinstance(inside, str) and inside.startswith(INSIDE):
                name = f"{value[KEY]}.{ending}"
                found[name] = f"{start}+{length}/{inside.removeprefix(INSIDE)}"
    return found
