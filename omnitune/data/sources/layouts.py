"""From the path of a source to its files: one file, a pattern, a folder, an address."""

from __future__ import annotations

from pathlib import Path

from omnitune.containers.registry import is_list
from omnitune.containers.remote import address_of, fetch_all, find, place_of
from omnitune.data.sources.file_splits import splits_of
from omnitune.data.sources.folders import INFO, STATE, layout_of_entry, layout_of_folder
from omnitune.data.sources.hub_sets import layout_of_set, set_name
from omnitune.data.sources.internvl import layout_of_meta
from omnitune.data.sources.layout import Layout as Layout
from omnitune.data.sources.patterns import (
    alike,
    expand_braces,
    is_pattern,
    layout_of_pattern,
    no_such,
)
from omnitune.data.sources.spoken_sets.layouts import layout_of_spoken_file
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
    said = source.format or ("columns" if source.columns else "")
    if found := layout_of_meta(Path(file), entry):
        return found
    if path.is_dir():
        return layout_of_folder(path, source.name, said, source.unanswered)
    if path.exists():
        return (None if said else layout_of_spoken_file(path)) or Layout([path])
    asked = set_name(source.path)
    if asked and not _is_slip(path):
        return layout_of_set(source.path, asked, source.name)
    if address := address_of(source.path):
        return _remote(address, source.name)
    if is_pattern(path):
        return layout_of_pattern(source.path, source.name)
    raise UserError(no_such(path, source.name))


def _is_slip(path: Path) -> bool:
    """Whether a path of two names is that of a local file, and not the id of a data set."""
    return is_list(path) or (path.parent.is_dir() and alike(path) is not None)


def _remote(address: str, source: str) -> Layout:
    """Remote files, fetched into the cache."""
    given = list(expand_braces(address))
    found = [file for each in given for file in find(each, is_list)]
    if not found:
        raise UserError(f"{address}: no file of records is there; the source {source} needs some")
    paths = fetch_all(found)
    if len(given) == 1 and place_of(address).is_dir():
        return layout_of_folder(place_of(address), source)
    return Layout(paths, splits=splits_of(paths, paths[0].parent) if len(paths) > 1 else {})
