"""Paths that stand for several files, and what is said where nothing is at a path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from glob import glob, has_magic
from itertools import product
from math import prod
from pathlib import Path

from omnitune.config.settings import nearest
from omnitune.containers.remote import address_of
from omnitune.data.sources.file_splits import splits_of
from omnitune.data.sources.layout import Layout
from omnitune.sample import UserError

MOST_FILES = 1_000_000  # that a pattern may stand for
_BRACES = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(path: Path) -> bool:
    """Whether a path stands for other files: several, or a remote one."""
    return any(sign in str(path) for sign in "*?[{") or bool(address_of(path))


def expand_braces(pattern: str) -> Iterator[str]:
    """The patterns that ``{000..099}`` and ``{a,b}`` stand for, as a shell writes them."""
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece) if n % 2 else [piece] for n, piece in enumerate(pieces)]
    if (count := prod(map(len, choices))) > MOST_FILES:
        raise UserError(f"{pattern}: stands for {count:,} files; at most {MOST_FILES:,} are read")
    return ("".join(each) for each in product(*choices))


def _choices(piece: str) -> list[str]:
    span = _RANGE.fullmatch(piece)
    if not span:
        return piece.split(",") if "," in piece else ["{" + piece + "}"]
    first, last = span.groups()
    numbers = range(int(first), min(int(last), int(first) + MOST_FILES) + 1)
    return [str(number).zfill(len(first)) for number in numbers]


def layout_of_pattern(pattern: str, source: str) -> Layout:
    """The files that a pattern stands for.

    Raises:
        UserError: there are none, or one that it names is missing.
    """
    files: dict[Path, None] = {}
    missing = []
    for each in expand_braces(pattern):
        found = sorted(glob(each, recursive=True)) if has_magic(each) else [each]
        files |= {Path(path): None for path in found if Path(path).is_file()}
        if not any(Path(path).is_file() for path in found):
            missing.append(each)
    if not files:
        raise UserError(no_such(Path(pattern), source))
    if missing:
        raise UserError(
            f"{pattern}: {len(missing):,} of its files are missing, the first is {missing[0]}; "
            "fetch them, or name those that are there"
        )
    paths = list(files)
    return Layout(paths, splits=splits_of(paths, paths[0].parent) if len(paths) > 1 else {})


def no_such(path: Path, source: str) -> str:
    """The error where nothing is at a path; names what is there and called alike."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        path, folder = folder, folder.parent
    try:
        there = [found.name for found in folder.iterdir()]
    except OSError:
        there = []
    close = nearest(path.name, there)
    hint = f"; did you mean {folder / close}, which is there" if close else ""
    return (
        f"{path}: no such file or folder (the path of the source {source}){hint}; check the name, "
        "or the folder that the command is started in"
    )
