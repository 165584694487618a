"""Data sets of the Hugging Face Hub: ``owner/name``, ``owner/name@revision:config/split``.

Their files are fetched as they are, and read in place: no code of theirs is executed, and no
medium is decoded and written again.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from omnitune.containers.media_folder import SUFFIXES
from omnitune.containers.registry import is_list, suffixes
from omnitune.data.sources.file_splits import split_in
from omnitune.data.sources.folders import layout_of_folder
from omnitune.data.sources.layout import Layout
from omnitune.hub import refusal, say
from omnitune.sample import UserError

_SET = re.compile(
    r"(?:hf://datasets/)?(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?"
    r"(?::(?:(?P<config>[\w.-]+)/)?(?P<split>[\w.-]+))?"
)


class SetName(NamedTuple):
    """What a data set's id says; "" where it says nothing."""

    name: str
    revision: str
    config: str
    split: str


def set_name(path: str) -> SetName | None:
    """The parts of a data set's id; None if a text has no such form."""
    found = None if path.startswith((".", "/")) else _SET.fullmatch(path)
    return SetName(*(found[group] or "" for group in SetName._fields)) if found else None


def layout_of_set(given: str, asked: SetName, source: str) -> Layout:
    """The files of a data set of the Hub, as its cache has them or is given them.

    Raises:
        UserError: it is neither cached nor to be had, or holds nothing of what was asked for.
    """
    folder = _fetched(given, asked)
    if asked.config and (folder / asked.config).is_dir():
        folder = folder / asked.config
    layout = layout_of_folder(folder, source)
    if not asked.split:
        return layout
    split = split_in(asked.split) or asked.split
    files = [file for file in layout.files if _is_of(file.relative_to(folder), asked.split)]
    if not files:
        there = ", ".join(file.relative_to(folder).as_posix() for file in layout.files[:8])
        raise UserError(f"{given}: none of its files is of the split {asked.split} ({there})")
    return replace(layout, files=files, splits=dict.fromkeys(files, split))


def _is_of(path: Path, split: str) -> bool:
    names = [path.name.partition(".")[0], *path.parts[:-1]]
    meant = split_in(split)
    return any(split in re.split(r"[-_]", name) or meant == split_in(name) != "" for name in names)


def _fetched(given: str, asked: SetName) -> Path:
    # Imported here: most runs read local files, and this takes a second.
    from huggingface_hub import snapshot_download

    middle = f"*{asked.config}*" if asked.config else "*"
    options: dict[str, Any] = {
        "revision": asked.revision or None,
        "repo_type": "dataset",
        "allow_patterns": [middle + ending for ending in (*suffixes(), *SUFFIXES)],
    }
    try:
        folder = Path(snapshot_download(asked.name, local_files_only=True, **options))
        if any(is_list(path) for path in folder.rglob("*")):
            return folder
    except Exception:  # not cached, or not whole
        pass
    say(f"fetching the data set {asked.name} from the Hugging Face Hub")
    try:
        return Path(snapshot_download(asked.name, **options))
    except Exception as error:  # the library's errors have many classes
        told = refusal(asked.name, asked.revision, error, data_set=True)
        raise UserError(f"{given}: {told}") from None
