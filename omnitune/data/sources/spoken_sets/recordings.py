"""Long recordings that a list cuts into what is said: GigaSpeech, STM, Lhotse, fairseq, MuST-C."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found
from omnitune.containers.base import without_lead
from omnitune.containers.json_object import scan_list
from omnitune.containers.notes import note
from omnitune.data.sources.base import Values
from omnitune.data.sources.file_splits import splits_of
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.spoken_sets.joined import joined, spoken
from omnitune.data.sources.spoken_sets.name_lists import text_lines
from omnitune.data.sources.spoken_sets.sounds import sounds_below
from omnitune.data.sources.spoken_sets.timed_texts import marked
from omnitune.data.splits import TEST, TRAIN, VALIDATION
from omnitune.media.base import counted
from omnitune.media.segments import with_time
from omnitune.sample import UserError

HEAD = 1 << 16
_AUDIOS = re.compile(rb'"audios"\s*:\s*\[')
# GigaSpeech writes marks as words, and these in place of words.
_MARKS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}
_NO_WORDS = {"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"}
_MARK = re.compile(r"\s*<(?:COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>")
_SPLITS = {"DEV": VALIDATION, "TEST": TEST, "TEST_NET": TEST, "TEST_MEETING": TEST}


# GigaSpeech and WenetSpeech


def layout_of_segments(path: Path) -> Layout | None:
    """The layout of ``GigaSpeech.json`` and the like; None if a file is none."""
    if path.suffix != ".json":
        return None
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not (without_lead(head).startswith(b"{") and _AUDIOS.search(head)):
        return None
    title = "recordings with segments (GigaSpeech, WenetSpeech)"
    return joined(title, {path: []}, path.parent, _segments)


def _segments(path: Path) -> Iterator[Values]:
    passed = 0
    for number, (_, _, audio) in enumerate(scan_list(path, "audios"), 1):
        at, given = f'{path}: item {number} of "audios"', audio if isinstance(audio, dict) else {}
        file, segments = given.get("path"), given.get("segments")
        if not isinstance(file, str) or not isinstance(segments, list):
            raise UserError(f'{at} is {as_found(audio)}, expected "path" and "segments"')
        for n, segment in enumerate(segments, 1):
            record = _segment(file, segment, f"{at}: segment {n}")
            passed += record is None
            if record:
                yield record
    if passed:
        note(f"{path}: {counted(passed, 'segment')} without words (music, noise) are passed over")


def _segment(file: str, segment: Any, at: str) -> Values | None:
    """What is said in a segment; None if that is nothing."""
    given = segment if isinstance(segment, dict) else {}
    text = given.get("text_tn", given.get("text"))
    try:
        cut = with_time(Path(file), float(given["begin_time"]), float(given["end_time"]))
    except (KeyError, TypeError, ValueError):
        cut = None
    if not isinstance(text, str) or cut is None:
        raise UserError(
            f'{at} is {as_found(segment)}, expected "begin_time", "end_time" and the words'
        )
    if text.strip() in _NO_WORDS:
        return None
    words = _MARK.sub(lambda mark: _MARKS[mark[0].strip()], text).strip()
    sets = {str(name).strip("{}") for name in given.get("subsets") or ()}
    split = next((_SPLITS[name] for name in sorted(sets) if name in _SPLITS), TRAIN)
    return spoken(str(cut), words, split, str(given.get("sid") or ""))


def _is(value: Any) -> bool:
    return isinstance(value, dict)


# STM


def layout_of_stm(folder: Path, files: Iterable[Path]) -> Layout | None:
    """The layout of STM files and their recordings; None if there are none."""
    paths = [path for path in files if path.suffix.lower() == ".stm"]
    if not paths:
        return None
    join = partial(_marked, folder)
    parts: dict[Path, Sequence[Path]] = {path: [] for path in paths}
    return joined("STM transcripts", parts, folder, join, splits_of(paths, folder.parent))


def _marked(folder: Path, path: Path) -> Iterator[Values]:
    sounds = sounds_below(folder)
    for name, channel, cue in marked(path):
        if channel not in ("1", "A"):
            raise UserError(
                f"{path}: has words of channel {channel} of {name}, and all channels would be "
                "heard; write each channel as a file of its own"
            )
        found = sounds.find(name) or sounds.missing(name)
        yield spoken(str(with_time(Path(found), cue.start, cue.stop)), cue.words)


# Lhotse


def layout_of_lhotse(folder: Path, files: Iterable[Path]) -> Layout | None:
    """The layout of supervisions with recordings beside them; None if there are none."""
    pairs: dict[Path, Sequence[Path]] = {}
    for path in files:
        beside = path.with_name(path.name.replace("supervisions", "recordings"))
        if ".jsonl" in path.name and beside != path and beside.is_file():
            pairs[path] = [beside]
    if not pairs:
        return None
    first = next(iter(next(iter(pairs.values()))))
    _, recording = next(_rows(first), (0, {}))
    source = _source(recording, f"{first}: line 1")
    bases = (folder, first.parent, *first.parent.absolute().parents[:3])
    media_dir = next((base for base in bases if (base / source).is_file()), folder)
    join = partial(_supervised, pairs)
    return joined("Lhotse's supervisions", pairs, media_dir, join, splits_of(list(pairs), folder))


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}: line {number} is not valid JSON ({error})") from None


def _source(recording: Any, at: str) -> str:
    """The file of a recording; raises UserError."""
    sources = recording.get("sources") if _is(recording) else None
    first = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
    first = first if isinstance(first, dict) else {}
    if first.get("type", "file") != "file" or not first.get("source"):
        raise UserError(f'{at}: "sources" is {as_found(sources)}, expected one of the type "file"')
    if len(first.get("channels") or [0]) > 1:
        raise UserError(
            f"{at}: the recording has several channels, and all would be heard; write each as a "
            "file of its own"
        )
    return str(first["source"])


def _supervised(pairs: dict[Path, Sequence[Path]], path: Path) -> Iterator[Values]:
    [beside] = pairs[path]
    found: dict[str, tuple[str, Any]] = {}
    for number, recording in _rows(beside):
        source = _source(recording, f"{beside}: line {number}")
        found[str(recording.get("id"))] = source, recording.get("duration")
    for number, given in _rows(path):
        at = f"{path}: line {number}"
        if not _is(given) or str(given.get("recording_id")) not in found:
            raise UserError(f'{at}: {beside} has no recording of its "recording_id"')
        source, duration = found[str(given["recording_id"])]
        start, length, words = (given.get(key) for key in ("start", "duration", "text"))
        if not isinstance(start, int | float) or not isinstance(length, int | float):
            raise UserError(f'{at}: expected "start" and "duration" in seconds')
        whole = start == 0 and length == duration
        cut = source if whole else str(with_time(Path(source), start, start + length))
        yield spoken(cut, words if isinstance(words, str) else "", name=str(given.get("id", "")))


# fairseq


def layout_of_fairseq(files: Iterable[Path]) -> Layout | None:
    """The layout of wav2vec 2.0's lists: ``train.tsv`` with ``train.wrd`` or ``.ltr``."""
    pairs: dict[Path, Sequence[Path]] = {}
    for path in files:
        beside = [path.with_suffix(end) for end in (".wrd", ".ltr")]
        if path.suffix == ".tsv" and (there := [other for other in beside if other.is_file()]):
            pairs[path] = there[:1]
    if not pairs:
        return None
    roots = Counter(next((line for _, line in text_lines(path)), "") for path in pairs)
    if len(roots) > 1 or not Path(root := next(iter(roots))).is_dir():
        told = ", ".join(roots)
        raise UserError(
            f"{next(iter(pairs))}: its first line names the folder of the sounds ({told}), which "
            "is not there, or is another one in each list; put the right one there"
        )
    join = partial(_numbered, pairs)
    splits = splits_of(list(pairs), next(iter(pairs)).parent)
    return joined("fairseq's lists of sounds and words", pairs, Path(root), join, splits)


def _numbered(pairs: dict[Path, Sequence[Path]], path: Path) -> Iterator[Values]:
    [beside] = pairs[path]
    sounds = [line.partition("\t")[0] for _, line in text_lines(path)][1:]
    words = beside.read_text(encoding="utf-8").splitlines()
    if len(sounds) != len(words):
        raise UserError(
            f"{beside}: has {len(words):,} lines and {path} {len(sounds):,} sounds; expected as "
            "many"
        )
    for sound, line in zip(sounds, words, strict=True):
        said = line if beside.suffix == ".wrd" else line.replace(" ", "").replace("|", " ")
        yield spoken(sound, said.strip())
