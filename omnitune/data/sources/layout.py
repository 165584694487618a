"""What a source's path leads to: the files of its records, and what their names say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omnitune.config.settings import nearest, quoted
from omnitune.containers.base import Container
from omnitune.data.sources.base import Dialect
from omnitune.sample import UserError

SHOWN = 8  # names in an error


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


def entry_named(file: Path, name: str, entries: Mapping[str, object]) -> str:
    """The name of an entry of a file that describes data sets.

    Args:
        name: as the user gives it; "" where there is only one.

    Raises:
        UserError: there is no such entry, or several and no name.
    """
    known = ", ".join([*entries][:SHOWN]) + (", ..." if len(entries) > SHOWN else "")
    if not name and len(entries) != 1:
        raise UserError(
            f"{file}: describes {len(entries)} data sets ({known}); name one, such as "
            f"{file}::{next(iter(entries), 'NAME')}"
        )
    name = name or next(iter(entries))
    if name not in entries:
        close = nearest(name, entries)
        meant = f"; did you mean {close}?" if close else "."
        raise UserError(f"{file}: describes no data set {quoted(name)}{meant} It has {known}")
    return name
