"""Which containers of records there are, by name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from omnitune.containers.base import Container
from omnitune.containers.json_list import JsonListContainer
from omnitune.containers.jsonl import JsonLinesContainer
from omnitune.sample import UserError

CONTAINERS: dict[str, Container] = {
    container.name: container for container in (JsonListContainer(), JsonLinesContainer())
}
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
        if path.suffix.lower() in container.suffixes:
            return container
    raise UserError(f"{path}: is in none of the known formats ({', '.join(CONTAINERS)})")


@lru_cache(maxsize=4096)
def known_container(path: Path) -> Container:
    """:func:`container_of` of a file that records are read from again and again."""
    return container_of(path)


def suffixes() -> list[str]:
    """Those of all containers' files."""
    return [suffix for container in CONTAINERS.values() for suffix in container.suffixes]
