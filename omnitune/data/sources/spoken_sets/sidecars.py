"""A text beside each sound, under its name: LibriTTS, VCTK, TIMIT, subtitles, TextGrids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from omnitune.containers.notes import note
from omnitune.data.sources.base import Values
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.manifest import TEXTS
from omnitune.data.sources.parts import kept
from omnitune.data.sources.spoken_sets.joined import joined, spoken
from omnitune.data.sources.spoken_sets.sounds import Sounds, sounds_below
from omnitune.data.sources.spoken_sets.timed_texts import READERS, read_text
from omnitune.media.base import counted
from omnitune.media.segments import with_time
from omnitune.sample import LANGUAGE_CODE, UserError

SHOWN = 8  # keys in an error
ENOUGH = 0.5  # share of the sounds that have to have a text
# Ends of their names, the best first.
ENDS = (".normalized.txt", ".txt", ".lab", ".wav.trn", ".trn", *READERS, ".json")
LARGEST = 1 << 20  # bytes of a text of one sound
_MICROPHONE = re.compile(r"_mic\d$")  # VCTK has one text for the sounds of two
_SAMPLES = re.compile(r"\d+ \d+ (.*)", re.DOTALL)  # TIMIT's texts begin with these
_LABEL = re.compile(r"[\d.]+\s+[\d.]+\s+\S+")  # a sound of a language, and no words


class Beside(NamedTuple):
    """A text, and the language that its name says."""

    path: Path
    language: str


def layout_of_sidecars(folder: Path, files: Iterable[Path]) -> Layout | None:
    """The layout of sounds with texts beside them; None if most have none."""
    sounds = sounds_below(folder)
    if not sounds.paths or not (texts := _texts(files)):
        return None
    found = _pairs(folder, sounds, texts)
    alone = len(sounds.paths) - len(found)
    if len(found) < ENOUGH * len(sounds.paths):
        # Several sounds may share a text, as those of several microphones do.
        shared = {_stem(path) for path in sounds.paths}
        if len(found) < ENOUGH * len(shared):
            return None
    if alone:
        note(
            f"{folder}: {counted(alone, 'sound')} of {len(sounds.paths):,} have no text of their "
            "own and are passed over"
        )
    kinds = sorted({_end(text.path.name) for text in found.values()})
    title = f"sounds with a text beside each ({', '.join(kinds)})"
    parts = {folder: [text.path for text in found.values()]}
    return joined(title, parts, folder, partial(_records, sounds, found))


def _end(name: str) -> str:
    return next((end for end in ENDS if name.lower().endswith(end)), "")


def _stem(path: str) -> str:
    return _MICROPHONE.sub("", PurePosixPath(path).stem)


def _texts(files: Iterable[Path]) -> dict[str, list[Path]]:
    """By the name of a sound that it may belong to, the texts; those of the best ending first."""
    found: dict[str, list[Path]] = {}
    for path in files:
        if end := _end(path.name):
            stem = path.name[: -len(end)]
            found.setdefault(stem, []).append(path)
            bare, dot, code = stem.rpartition(".")
            if dot and end in READERS and LANGUAGE_CODE.fullmatch(code):  # talk.en.srt
                found.setdefault(bare, []).append(path)
    for paths in found.values():
        paths.sort(key=lambda path: ENDS.index(_end(path.name)))
    return found


def _pairs(folder: Path, sounds: Sounds, texts: Mapping[str, list[Path]]) -> dict[str, Beside]:
    """By sound, its text; of several sounds that share one, the first, of a split if one is.

    Raises:
        UserError: a sound has texts of several languages.
    """
    taken: dict[Path, str] = {}
    found: dict[str, Beside] = {}
    for sound in sorted(sounds.paths, key=lambda path: (not sounds.splits.get(path), path)):
        stem = PurePosixPath(sound).stem
        there = texts.get(stem) or texts.get(_stem(sound)) or []
        own = [path for path in there if path.parent == (folder / sound).parent]
        if not (near := own or (there if len({path.parent for path in there}) == 1 else [])):
            continue
        best = [path for path in near if _end(path.name) == _end(near[0].name)]
        if len(best) > 1:
            told = ", ".join(path.name for path in best[:4])
            raise UserError(f"{folder / sound}: has several texts ({told}); keep one of them")
        text = _followed(best[0])
        if taken.setdefault(text.resolve(), sound) == sound:
            code = best[0].name[: -len(_end(best[0].name))].removeprefix(stem).strip(".")
            found[sound] = Beside(text, code if LANGUAGE_CODE.fullmatch(code) else "")
    return found


def _followed(path: Path) -> Path:
    """The text that a text of one path stands for, as THCHS-30 has them; else the text."""
    if path.suffix != ".trn" or path.stat().st_size > 1 << 10:
        return path
    target = path.parent / read_text(path).strip()
    return target if target.suffix == ".trn" and target.is_file() else path


def _records(sounds: Sounds, texts: Mapping[str, Beside], folder: Path) -> Iterator[Values]:
    for sound, (text, language) in sorted(texts.items()):
        split = sounds.splits.get(sound, "")
        if read := READERS.get(_end(text.name)):
            for cue in read(text):
                if cue.words and cue.stop > cue.start:
                    path = str(with_time(Path(sound), cue.start, cue.stop))
                    yield spoken(path, cue.words, split, language=language)
            continue
        name = PurePosixPath(sound).stem
        if text.suffix == ".json":
            words, language = _described(text)
            yield spoken(sound, words, split, name, language)
        else:
            yield spoken(sound, _words(text), split, name)


def _described(path: Path) -> tuple[str, str]:
    """The words that an object beside a sound holds, and their language.

    Raises:
        OSError: it cannot be read.
        UserError: it is no object with words, as of sounds that nobody has transcribed.
    """
    try:
        given = json.loads(read_text(path)) if path.stat().st_size <= LARGEST else None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    values = given if isinstance(given, dict) else {}
    key = next((key for key in TEXTS if isinstance(values.get(key), str)), "")
    if not key:
        told = ", ".join(list(values)[:SHOWN])
        raise UserError(
            f"{path}: has no words of its sound ({told}), expected one of {', '.join(TEXTS)}; "
            "sounds without words or answers are not trained on"
        )
    return values[key].strip(), str(kept(values).get("language", ""))


def _words(path: Path) -> str:
    """What a text says.

    Raises:
        OSError: it cannot be read.
        UserError: it holds labels of sounds in place of words.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if path.suffix == ".trn":  # THCHS-30: words, pinyin, sounds
        lines = lines[:1]
    timed = _SAMPLES.fullmatch(lines[0]) if len(lines) == 1 else None
    if timed and any(path.with_suffix(end).exists() for end in (".phn", ".PHN")):
        return timed[1].strip()
    if lines and all(map(_LABEL.fullmatch, lines)):
        raise UserError(
            f"{path}: holds times with labels ({lines[0]}), expected the words of the sound"
        )
    return " ".join(lines)
