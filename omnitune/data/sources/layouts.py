"""From the path of a source to its files: one file, a pattern, a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from omnitune.containers.base import Container
from omnitune.containers.registry import suffixes
from omnitune.data.sources.base import Dialect
from omnitune.sample import UserError
from omnitune.sources import Source


@dataclass(frozen=True)
class Layout:
    """The files of a source, and what their names say.

    Attributes:
        files: in order.
        dialect: of their records, or its name; "" where their records tell.
        container: of all of them; None where each one tells.
        media_dir: that media's paths are relative to; "": each to its file's folder.
        splits: by file, where its name says.
    """

    files: list[Path]
    dialect: str | Dialect = ""
    container: Container | None = None
    media_dir: str = ""
    splits: Mapping[Path, str] = field(default_factory=dict)


def layout_of(source: Source) -> Layout:
    """The files of a run's own source.

    Raises:
        UserError: there are none.
    """
    path = Path(source.path)
    if path.is_file():
        return Layout([path])
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes())
        if not files:
            raise UserError(f"{path}: holds no file of records ({', '.join(suffixes())})")
        return Layout(files)
    files = sorted(Path(found) for found in glob(source.path, recursive=True))
    if not files:
        raise UserError(
            f"{path}: no such file or folder (the path of the source {source.name}); check the "
            "name, or the folder that the command is started in"
        )
    return Layout(files)
