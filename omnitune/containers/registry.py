"""Which containers of records there are, by name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from omnitune.containers.arrow import ArrowContainer
from omnitune.containers.base import Container
from omnitune.containers.captions import CaptionsContainer
from omnitune.containers.compressed import COMPRESSIONS, CompressedContainer
from omnitune.containers.delimited import CsvContainer, TsvContainer
from omnitune.containers.json_list import JsonListContainer
from omnitune.containers.json_object import JsonObjectContainer
from omnitune.containers.jsonl import JsonLinesContainer
from omnitune.containers.lines import LinesContainer
from omnitune.containers.media_folder import MediaFolderContainer
from omnitune.containers.parquet import ParquetContainer
from omnitune.containers.tar import TarContainer
from omnitune.containers.vqa_pair import VqaPairContainer
from omnitune.sample import UserError

HEAD = 1 << 16  # bytes that a container is recognised by


def container_of(path: Path) -> Container:
    """The container that a file is: as its content shows, else as its name says.

    Raises:
        OSError: the file cannot be read.
        UserError: it is none that is known.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    for container in CONTAINERS.values():
        if container.recognises(head):
            return container
    for container in CONTAINERS.values():
        if path.name.lower().endswith(container.suffixes) and container.fits(head):
            return container
    raise UserError(f"{path}: is in none of the known formats ({', '.join(CONTAINERS)})")


@lru_cache(maxsize=4096)
def known_container(path: Path) -> Container:
    """:func:`container_of` of a file that records are read from again and again."""
    return container_of(path)


def suffixes() -> list[str]:
    """Those of all containers' files."""
    return list(dict.fromkeys(s for c in CONTAINERS.values() for s in c.suffixes))


def is_list(path: Path) -> bool:
    """Whether the name of a file is that of a file of records."""
    return path.name.lower().endswith(tuple(suffixes()))


_PLAIN: tuple[Container, ...] = (
    VqaPairContainer(),
    CaptionsContainer(),
    JsonListContainer(),
    JsonObjectContainer(),
    JsonLinesContainer(),
    CsvContainer(),
    TsvContainer(),
    LinesContainer(),
    ParquetContainer(),
    ArrowContainer(),
    TarContainer(),
    MediaFolderContainer(),
)
_ENDINGS = list(dict.fromkeys(s for c in _PLAIN for s in c.suffixes))
_PACKED = tuple(CompressedContainer(kind, container_of, _ENDINGS) for kind in COMPRESSIONS)
CONTAINERS: dict[str, Container] = {c.name: c for c in (*_PLAIN, *_PACKED)}
