"""What a source's path leads to: the files of its records, and what their names say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omnitune.containers.base import Container
from omnitune.data.sources.base import Dialect


@dataclass(frozen=True)
class Layout:
    """The files of a source, and what their names say.

    Attributes:
        files: in order.
        dialect: of their records, or its name; "" where their records tell.
        container: of all of them; None where each one tells.
        media_dir: that media's paths are relative to; "": each to its file's folder.
        splits: by file, where its name says. Of a folder of media without a list, by the folders
            in it.
    """

    files: list[Path]
    dialect: str | Dialect = ""
    container: Container | None = None
    media_dir: str = ""
    splits: Mapping[Path, str] = field(default_factory=dict)
