"""From the path of a source to its files: one file, a pattern, a folder, an address."""

from __future__ import annotations

from pathlib import Path

from omnitune.data.sources.folders import INFO, STATE, layout_of_entry, layout_of_folder
from omnitune.data.sources.hub_sets import layout_of_set, set_name
from omnitune.data.sources.layout import Layout as Layout
from omnitune.data.sources.patterns import is_pattern, layout_of_pattern, no_such
from omnitune.sample import UserError
from omnitune.sources import Source


def layout_of(source: Source) -> Layout:
    """The files of a run's own source.

    Raises:
        UserError: there are none, or it has to be said which.
    """
    path = Path(source.path)
    file, _, entry = source.path.partition("::")
    if Path(file).name == INFO and Path(file).is_file() and not path.with_name(STATE).exists():
        return layout_of_entry(Path(file), entry)
    if path.is_dir():
        return layout_of_folder(path, source.name)
    if path.exists():
        return Layout([path])
    if is_pattern(path):
        return layout_of_pattern(source.path, source.name)
    if asked := set_name(source.path):
        return layout_of_set(source.path, asked, source.name)
    raise UserError(no_such(path, source.name))
