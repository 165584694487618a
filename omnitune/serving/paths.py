"""Paths as people type, paste and drop them into a chat."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from omnitune.media.registry import MEDIA
from omnitune.sample import Media

# A word as a shell reads it: quotes and escapes hold it together.
_WORD = r"""((?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+)"""
_FIRST, _LAST = re.compile(rf"\s*{_WORD}\s+"), re.compile(rf"(?<!\S){_WORD}\s*$")
_LAST_WORD = re.compile(r"(?:\\.|[^\s\\])*$")
_LONGEST = 8192  # letters of a line's end in which its last word is looked for
_AROUND = "'\"`()[]{}<>.,;:!?"  # what stands around a name within a sentence


def path_of(typed: str) -> Path:
    """A path as people type or drop it: ``~``, quotes around it, blanks escaped, a file's URI."""
    typed = typed.strip()
    if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "'\"":
        typed = typed[1:-1]
    if typed.lower().startswith("file:/"):
        return Path(_of_uri(typed) or typed)
    path = os.path.expanduser(typed)
    return Path(path if os.path.exists(path) else re.sub(r"\\(.)", r"\1", path))


def are_several(typed: str) -> bool:
    """Whether what was typed for a path is several words as a shell reads them."""
    try:
        return len(shlex.split(typed)) > 1
    except ValueError:  # a quote without its other
        return False


def dropped_files(line: str) -> list[Path]:
    """The existing regular files that a line is made of; none if it holds anything else.

    A bare word is never taken for a file, even if one of that name is there: a path has a
    separator or a dot in it.
    """
    if _names_a_file(line.strip()):
        return [path_of(line)]
    try:
        words = shlex.split(line)
    except ValueError:  # a quote without its other
        return []
    return [path_of(word) for word in words] if all(map(_names_a_file, words)) else []


def as_medium(path: Path, kinds: Iterable[str]) -> Media | None:
    """The file as a medium of the first of some kinds whose reader takes it; None if none does."""
    for name in kinds:
        try:
            MEDIA[name].check(path)
        except Exception:  # whatever a decoder makes of it: it is no medium of this kind
            continue
        return Media(name, path)
    return None


def mentioned(text: str, kinds: Collection[str]) -> list[Media]:
    """Files of some kinds of media that a sentence names, such as "what is in photo.png?"."""
    found = []
    for word in text.split():
        word = word.strip(_AROUND)
        if _names_a_file(word) and (medium := as_medium(path_of(word), kinds)):
            found.append(medium)
    return list(dict.fromkeys(found))


def beside_words(line: str, kinds: Collection[str]) -> tuple[list[Media], str]:
    """Files before and after the words of a line, as a terminal pastes and drops them.

    That is: with their whole path, quotes, escapes, or as a URI. A name that is typed as a part of
    the sentence stays one.

    Args:
        kinds: of media that are taken.

    Returns:
        the media in their order, and the words without them.
    """
    before: list[Media] = []
    after: list[Media] = []
    while (found := _FIRST.match(line)) and (medium := _pasted(found[1], kinds)):
        before.append(medium)
        line = line[found.end() :]
    while (found := _LAST.search(line, max(0, len(line) - _LONGEST))) and (
        medium := _pasted(found[1], kinds)
    ):
        after.insert(0, medium)
        line = line[: found.start()]
    return [*before, *after], line.strip()


def _pasted(word: str, kinds: Collection[str]) -> Media | None:
    whole = word.startswith((os.sep, "~" + os.sep, "file:/")) or set(word) & set("'\"\\")
    try:
        words = shlex.split(word) if whole else []
    except ValueError:  # a quote or an escape without what it is for
        return None
    if len(words) != 1 or not _names_a_file(words[0]):
        return None
    return as_medium(path_of(words[0]), kinds)


def completions(line: str, names: Collection[str], take_files: Collection[str]) -> list[str]:
    """What a line may become by Tab: commands, and file names after those that take one.

    In a line of words a path is completed where it shows that it is one: ``/``, ``~/``, ``./``.

    Args:
        names: of all commands.
        take_files: of the commands that are followed by a path.
    """
    command, space, typed = line.partition(" ")
    if not space:
        found = [
            name + " " if name in take_files else name
            for name in names
            if line and name.startswith(line)
        ]
        return found or _with_last_word(line)
    if command in take_files:
        return [f"{command} {path}" for path in _files(typed)]
    return [] if command in names else _with_last_word(line)


def _files(typed: str) -> list[str]:
    """What a path may become."""
    if typed == "~":
        return ["~/"]
    start = typed.rpartition("/")[2]
    folder = typed.removesuffix(start)
    root = Path(os.path.expanduser(folder))
    found = sorted(glob.glob(glob.escape(start) + "*", root_dir=root))
    return [f"{folder}{name}" + "/" * (root / name).is_dir() for name in found]


def _with_last_word(line: str) -> list[str]:
    """What a line may become whose last word is a path, blanks in it escaped."""
    word = _LAST_WORD.search(line)[0]  # type: ignore[index]  # it matches any line
    if not word.startswith(("/", "~/", "./", "../")):
        return []
    found = _files(re.sub(r"\\(.)", r"\1", word))
    rest = line.removesuffix(word)
    return [rest + re.sub(r"""([\s'"\\()])""", r"\\\1", path) for path in found]


def _names_a_file(word: str) -> bool:
    looks_like_one = os.sep in word or "." in word.strip(".")
    # Nothing else than a regular file: a pipe or a device may never end.
    return looks_like_one and os.path.isfile(path_of(word))


def _of_uri(uri: str) -> str:
    """The path of a ``file:`` URI of this machine; "" for another one."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    return unquote(parts.path) if parts.netloc in ("", "localhost") else ""
