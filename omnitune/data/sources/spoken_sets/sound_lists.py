"""Texts that name sounds, in a table or a list: which of a folder's are some, and their layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from omnitune.data.sources.base import Values
from omnitune.data.sources.file_splits import split_in, splits_of
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.spoken_sets.joined import joined
from omnitune.data.sources.spoken_sets.name_lists import NameList, list_of_names, records_of_list
from omnitune.data.sources.spoken_sets.sound_tables import (
    SoundTable,
    records_of_table,
    table_of_sounds,
)
from omnitune.sample import UserError

SHOWN = 8
Form = NameList | SoundTable


def layout_of_list(path: Path) -> Layout | None:
    """The layout of a text that names sounds and says what is learnt of them; None if it is none.

    Raises:
        UserError: it is one, and has to be put right.
    """
    form = _form(path, None)
    return _layout({path: form}, form.sounds.folder) if form else None


def layout_of_lists(folder: Path, paths: Iterable[Path]) -> Layout | None:
    """The layout of such texts in a folder; None if there are none.

    Raises:
        UserError: several lie in one folder, and their names are not those of splits.
    """
    found = {path: form for path in paths if (form := _form(path, folder))}
    if not found:
        return None
    by_folder: dict[Path, list[Path]] = {}
    for path in found:
        by_folder.setdefault(path.parent, []).append(path)
    for each in by_folder.values():
        splits = [split_in(path.name.partition(".")[0]) for path in each]
        if len(each) > 1 and ("" in splits or len(set(splits)) < len(splits)):
            told = ", ".join(path.name for path in each[:SHOWN])
            raise UserError(
                f"{each[0].parent}: holds several lists ({told}); name one of them as the path"
            )
    places = list(dict.fromkeys(form.sounds.folder for form in found.values()))
    common = Path(os.path.commonpath([os.path.abspath(place) for place in places]))
    media_dir = places[0] if len(places) == 1 else common
    return _layout(found, media_dir, splits_of(list(found), folder))


def _form(path: Path, root: Path | None) -> Form | None:
    return table_of_sounds(path, root) or list_of_names(path, root)


def _layout(
    forms: Mapping[Path, Form], media_dir: Path, splits: Mapping[Path, str] | None = None
) -> Layout:
    titles = dict.fromkeys(form.title for form in forms.values())
    parts = {path: [each.sounds.folder] for path, each in forms.items()}
    join = partial(_records, forms, media_dir)
    return joined(", ".join(titles), parts, media_dir, join, splits)


def _records(forms: Mapping[Path, Form], media_dir: Path, path: Path) -> Iterator[Values]:
    form = forms[path]
    folder = os.path.relpath(form.sounds.folder, media_dir)
    if isinstance(form, SoundTable):
        return records_of_table(form, folder, path)
    return records_of_list(form, folder, path)
