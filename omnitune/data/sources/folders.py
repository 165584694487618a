"""Folders as people and programs leave them: which files of them are records.

Each function looks whether a folder is of its kind; the first that knows it says what is in it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from omnitune.containers.compressed import COMPRESSIONS
from omnitune.containers.media_folder import media_below
from omnitune.containers.notes import note
from omnitune.containers.registry import CONTAINERS, HEAD, is_list
from omnitune.data.sources.file_splits import split_in, splits_of
from omnitune.data.sources.layout import Layout, entry_named
from omnitune.data.sources.llama_factory import dialect_of_entry
from omnitune.data.sources.registry import dialect_of
from omnitune.data.sources.rows import FILE_NAME, LabelledDialect
from omnitune.data.sources.spoken_sets.class_folders import check_unread, layout_of_split_lists
from omnitune.data.sources.spoken_sets.layouts import layout_of_spoken
from omnitune.data.splits import TRAIN
from omnitune.sample import UserError

LABELLED = LabelledDialect.name
INFO = "dataset_info.json"  # of LLaMA-Factory; ``datasets`` has a file of this name too
STATE, DICTIONARY = "state.json", "dataset_dict.json"  # of ``datasets``
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COMMON_VOICE = (("train.tsv", "dev.tsv", "test.tsv"), ("validated.tsv",), ("other.tsv",))
CLIPS = "clips"
# Files that describe others and hold no records.
ASIDE = frozenset(
    [
        *(INFO, "dataset_infos.json", STATE, DICTIONARY, "config.json", "package.json"),
        *("sizes.json", "index.json", "manifest.json", "results.json", "run.json"),
    ]
)
SHARDS = ("tar", "parquet", "arrow")  # kinds of files beside which lists describe and add nothing
PACKED = tuple(end for compression in COMPRESSIONS for end in compression.suffixes)
SHORT = tuple(end for compression in COMPRESSIONS for end in compression.short)
SHOWN = 8
LOOKED_AT = 20  # lines by which a text is known as a list


def layout_of_folder(
    folder: Path, source: str, given: str = "", unanswered: bool = False
) -> Layout:
    """The files of records in a folder.

    Args:
        given: the format that the user names, or anything where fields are named.
        unanswered: nothing is learnt of its records.

    Raises:
        UserError: there are none, or it has to be said which.
    """
    if given == LABELLED and media_below(folder):
        return _media_only(folder)
    for marked in (_llama_factory, _saved_to_disk, _with_metadata, _common_voice):
        if found := marked(folder):
            return found
    files = sorted(_below(folder))
    apart = () if given else (layout_of_spoken,)
    for of_files in (_librispeech, *apart, _vqa, _lists, _texts, layout_of_split_lists):
        if found := of_files(folder, files):
            return found
    if media_below(folder):
        if not unanswered:
            check_unread(folder, files)
        return _media_only(folder)
    few = [s for c in CONTAINERS.values() if len(c.suffixes) < 5 for s in c.suffixes]
    endings = ", ".join(dict.fromkeys(few))
    raise UserError(
        f"{folder}: holds no file of records ({endings}) and no media; the source {source} needs "
        "some"
    )


def _below(folder: Path) -> Iterable[Path]:
    """Files below a folder; hidden ones are passed over."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


# LLaMA-Factory


def layout_of_entry(file: Path, name: str) -> Layout:
    """The files of an entry of LLaMA-Factory's ``dataset_info.json``.

    Args:
        name: of the entry; "" where there is only one.

    Raises:
        UserError: there is no such entry, or it names no local file.
    """
    entries = _entries(file)
    name = entry_named(file, name, entries)
    entry, where = entries[name], f"{file}: {name}"
    given = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(given, str) or not given:
        raise UserError(
            f'{where}: has no "file_name"; data sets that are not in the folder are named by their '
            "Hub id (owner/name) as the path of a source"
        )
    path = file.parent / given
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, but {where} names it")
    files = [path] if path.is_file() else [p for p in sorted(_below(path)) if is_list(p)]
    if not files:
        raise UserError(f"{path}: holds no file of records, but {where} names it")
    return Layout(files, dialect_of_entry(entry, where), media_dir=str(file.parent))


def _entries(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); expected an object") from None
    if not isinstance(found, dict) or not found:
        raise UserError(f"{file}: expected an object with an entry for each data set")
    return found


def _llama_factory(folder: Path) -> Layout | None:
    file = folder / INFO
    if not file.is_file() or (folder / STATE).exists():
        return None
    entries = _entries(file)
    ours = all(isinstance(e, dict) and "features" not in e for e in entries.values())
    return layout_of_entry(file, "") if ours else None


# Hugging Face


def _saved_to_disk(folder: Path) -> Layout | None:
    """What ``Dataset.save_to_disk`` and that of several splits leave."""
    if (folder / STATE).is_file():
        return Layout(_state_files(folder), container=CONTAINERS["arrow"])
    if not (folder / DICTIONARY).is_file():
        return None
    given = _entries(folder / DICTIONARY).get("splits")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    files: dict[Path, str] = {}
    for name in names:
        if not (folder / name / STATE).is_file():
            raise UserError(
                f"{folder / name}: is missing or not whole, but {folder / DICTIONARY} names it; "
                "save the data set again"
            )
        files |= {path: split_in(name) or name for path in _state_files(folder / name)}
    if not files:
        raise UserError(f"{folder / DICTIONARY}: names no split; save the data set again")
    splits = {} if set(files.values()) == {TRAIN} else files
    return Layout(list(files), container=CONTAINERS["arrow"], splits=splits)


def _state_files(folder: Path) -> list[Path]:
    given = _entries(folder / STATE).get("_data_files")
    items = given if isinstance(given, list) else []
    files = [folder / str(i.get("filename")) for i in items if isinstance(i, dict)]
    if not files:
        raise UserError(f"{folder / STATE}: names no files; save the data set again")
    return files


def _with_metadata(folder: Path) -> Layout | None:
    """An imagefolder or audiofolder: a list beside the media, of all or of each split."""
    places = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]
    places += [p for place in places[1:] if split_in(place.name) for p in sorted(place.iterdir())]
    files = [place / name for place in places for name in METADATA if (place / name).is_file()]
    files = [path for path in files if path.suffix != ".csv" or FILE_NAME in _first_line(path)]
    if not files:
        return None
    return Layout(files, dialect="folder", splits=splits_of(files, folder))


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(HEAD).decode(errors="replace")


# Speech


def _common_voice(folder: Path) -> Layout | None:
    """A language of Common Voice, or a release with the folders of several."""
    below = [path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{CLIPS}")]
    places = [place for place in (folder, *sorted(below)) if (place / CLIPS).is_dir()]
    files = [path for place in places for path in _of_language(place)]
    return Layout(files, "common_voice", splits=splits_of(files, folder)) if files else None


def _of_language(folder: Path) -> list[Path]:
    """The lists of a language; those of splits where they have rows."""
    there = {path.name: path for path in folder.glob("*.tsv")}
    for names in COMMON_VOICE:
        files = [there[name] for name in names if name in there and _has_rows(there[name])]
        if not files:
            continue
        rest = [name for group in COMMON_VOICE for name in group if name in there]
        rest = [name for name in rest if there[name] not in files]
        used = ", ".join(path.name for path in files)
        if rest:
            note(f"{folder}: {used} is read; {', '.join(rest)} is passed over")
        return files
    return []


def _has_rows(path: Path) -> bool:
    with path.open("rb") as file:
        lines = [line for _, line in zip(range(2), file, strict=False) if line.strip()]
    if len(lines) < 2:
        note(f"{path}: has no rows and is passed over")
    return len(lines) == 2


def _librispeech(folder: Path, files: list[Path]) -> Layout | None:
    found = [path for path in files if path.name.endswith(".trans.txt")]
    if not found:
        return None
    return Layout(found, "librispeech", CONTAINERS["lines"], splits=splits_of(found, folder.parent))


# Any others


def _vqa(folder: Path, files: list[Path]) -> Layout | None:
    """Questions with annotations beside them."""
    found = [path for path in files if path.suffix == ".json" and "question" in path.name.lower()]
    found = [path for path in found if CONTAINERS["vqa"].recognises(_head(path))]
    if not found:
        return None
    return Layout(found, "vqa", CONTAINERS["vqa"], splits=splits_of(found, folder))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _lists(folder: Path, files: list[Path]) -> Layout | None:
    """Files of records in any container: shards if there are some, else lists."""
    found = [path for path in files if is_list(path) and path.name not in ASIDE]
    if not found:
        return None
    kinds = {path: _kind(path) for path in found}
    for kind in SHARDS:
        if kind in kinds.values():
            others = Counter(other for other in kinds.values() if other != kind)
            told = ", ".join(f"{count} {other}" for other, count in others.items())
            if told:
                note(f"{folder}: its {kind} files are read, and others are not ({told})")
            found = [path for path in found if kinds[path] == kind]
            break
    return Layout(found, splits=splits_of(found, folder))


def _texts(folder: Path, files: list[Path]) -> Layout | None:
    """A text beside media whose lines are records, such as ``name: words``."""
    lines = CONTAINERS["lines"]
    found = []
    for path in files:
        if path.parent != folder or path.suffix.lower() != ".txt":
            continue
        with suppress(UserError):  # a text of another encoding is no list
            first = [value for _, _, value in islice(lines.scan(path), LOOKED_AT)]
            dialect = dialect_of(first, path) if first else None
            if dialect is not None and dialect.container == lines.name:
                found.append(path)
    if len(found) > 1:
        told = ", ".join(path.name for path in found[:SHOWN])
        raise UserError(f"{folder}: holds several lists ({told}); name one of them as the path")
    return Layout(found, container=lines) if found else None


def _kind(path: Path) -> str:
    """The container that a name stands for, compressed or not."""
    name = path.name.lower()
    if name.endswith(SHORT):
        return "tar"
    name = name.removesuffix(next((end for end in PACKED if name.endswith(end)), ""))
    return next((c.name for c in CONTAINERS.values() if name.endswith(c.suffixes)), "")


def _media_only(folder: Path) -> Layout:
    """Media without a list; where all of them lie in one folder below, that one."""
    while len(tops := {file.partition("/")[0] for file in media_below(folder)}) == 1:
        [top] = tops
        if not (folder / top).is_dir():
            break
        folder = folder / top
    splits = {folder / top: split for top in tops if (split := split_in(top))}
    splits = splits if len(set(splits.values())) > 1 else {}
    container = CONTAINERS["media folder"]
    return Layout([folder], LABELLED, container, media_dir=str(folder), splits=splits)
