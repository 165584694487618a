"""Folders of sounds by class: lists of their splits, and texts that say more than folders do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

from omnitune.config.settings import quoted
from omnitune.containers.notes import note
from omnitune.data.sources.base import Values
from omnitune.data.sources.file_splits import split_in
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.manifest import AUDIO
from omnitune.data.sources.spoken_sets.joined import joined
from omnitune.data.sources.spoken_sets.name_lists import text_lines
from omnitune.data.sources.spoken_sets.sounds import Sounds, sounds_below
from omnitune.data.splits import SPLIT, TRAIN
from omnitune.media.base import counted
from omnitune.sample import UserError

LOOKED_AT = 20  # lines by which a text is known
MOST = 2_000  # texts that are looked at
# Ends of texts that may say what is heard, but for those that are records by their name.
TEXTS: tuple[str, ...] = (
    ".txt",
    ".trn",
    ".lab",
    ".mlf",
    ".ctm",
    ".stm",
    ".scp",
    ".lst",
    ".data",
    ".yaml",
    ".yml",
)
TEXTS += (".csv", ".tsv", ".eaf", ".textgrid", ".srt", ".vtt", ".list", ".done")
_BETWEEN = re.compile(r"[\s|,;:\"'()/\\]+")
_ASIDE = "_"  # begins the name of a folder that is no class: _background_noise_


def layout_of_split_lists(folder: Path, files: Iterable[Path]) -> Layout | None:
    """Sounds by class with lists of those of a split (Speech Commands); None without such lists."""
    sounds = sounds_below(folder)
    lists = {
        path: split
        for path in files
        if path.suffix == ".txt" and (split := split_in(path.stem)) and _lists_paths(path, sounds)
    }
    if not lists or set(lists.values()) == {TRAIN}:
        return None
    title = "a folder of sounds by class, with lists of its splits"
    join = partial(_by_class, sounds, lists)
    return joined(title, {folder: list(lists)}, folder, join)


def _lists_paths(path: Path, sounds: Sounds) -> bool:
    """Whether each line is the path of a sound, and no more."""
    try:
        lines = [line for _, line in islice(text_lines(path), LOOKED_AT)]
    except (OSError, UserError):
        return False
    return bool(lines) and all("/" in line and sounds.has(line) for line in lines)


def _by_class(sounds: Sounds, lists: Mapping[Path, str], folder: Path) -> Iterator[Values]:
    split_of: dict[str, str] = {}
    for path, split in lists.items():
        for number, line in text_lines(path):
            if not (found := sounds.find(line)):
                raise UserError(f"{path}: line {number} is {quoted(line)}, which is not there")
            split_of[found] = split
    passed = 0
    for sound in sounds.paths:
        label = PurePosixPath(sound).parent.name
        if not label or label.startswith(_ASIDE):
            passed += 1
            continue
        yield {AUDIO: sound, "answer": label, SPLIT: split_of.get(sound, TRAIN)}
    if passed:
        note(f"{folder}: {counted(passed, 'sound')} in no folder of a class are passed over")


def check_unread(folder: Path, files: Iterable[Path]) -> None:
    """Refuses to take folders for classes where a text says more of their sounds.

    Raises:
        UserError: a text names sounds and something of each, in no form that is known.
    """
    stems = {PurePosixPath(path).stem for path in sounds_below(folder).paths}
    texts = (path for path in files if stems and path.name.lower().endswith(TEXTS))
    for path in islice(texts, MOST):
        if path.name.partition(".")[0] in stems or _says_more(path, stems):
            raise UserError(
                f"{path}: seems to say what is heard in the sounds of {folder}, in a form that is "
                "not known; write a table (CSV with the columns file_name and text, or JSON Lines "
                "with audio_filepath and text), and name it as the path. If it is of no use, and "
                'the name of each folder is the answer, give the source "format": "labelled"'
            )


def _says_more(path: Path, stems: set[str]) -> bool:
    """Whether most of the first lines name a sound, and say something of it."""
    try:
        lines = [line for _, line in islice(text_lines(path), LOOKED_AT)]
    except (OSError, UserError):
        return False
    each = [[PurePosixPath(word).stem for word in _BETWEEN.split(line) if word] for line in lines]
    named = [words for words in each if not stems.isdisjoint(words)]
    more = [line for line in lines if re.search(r"\S[\s|,;]+\S", line)]
    return 2 * len(named) >= max(1, len(lines)) and 2 * len(more) >= len(lines)
