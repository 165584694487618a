"""The split that the name of a file or folder stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from omnitune.data.splits import MEANT, MEANT_TRAIN, TEST, TRAIN, VALIDATION

_WORDS = {TRAIN: (TRAIN, *MEANT_TRAIN), VALIDATION: (VALIDATION, *MEANT[VALIDATION])}
_WORDS |= {TEST: (TEST, *MEANT[TEST])}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_WORD = re.compile(r"[a-z]+")


def split_in(name: str) -> str:
    """The split that a name holds as a word, such as ``train-00000-of-00010`` or ``val2014``.

    Empty where there is none, or several.
    """
    found = {_SPLITS[word] for word in _WORD.findall(name.lower()) if word in _SPLITS}
    return found.pop() if len(found) == 1 else ""


def split_of_path(path: Path, root: Path) -> str:
    """The split that a file's name stands for, else that of a folder it lies in, up to a root."""
    relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    names = [relative.name.partition(".")[0], *(part.name for part in relative.parents)]
    return next((split for name in names if (split := split_in(name))), "")


def splits_of(files: Sequence[Path], root: Path) -> Mapping[Path, str]:
    """The splits that names of files stand for.

    Where all of them are of the training split, nothing is known: some of their records have to
    be held out.
    """
    found = {path: split for path in files if (split := split_of_path(path, root))}
    return {} if set(found.values()) == {TRAIN} else found
