"""Texts that say when each of their words is heard: SRT, WebVTT, Praat's TextGrid, STM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from omnitune.config.settings import quoted
from omnitune.sample import UserError


class Cue(NamedTuple):
    """What is said from one time to another, in seconds."""

    start: float
    stop: float
    words: str


_TIME = re.compile(
    r"\s*(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})\s*-->\s*(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})(?: .*)?\s*"
)
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_STRING = r'"((?:[^"]|"")*)"'
_TIER = re.compile(rf'class\s*=\s*"(\w+)"\s*name\s*=\s*{_STRING}')
_INTERVAL = re.compile(rf"xmin\s*=\s*([\d.eE+-]+)\s*xmax\s*=\s*([\d.eE+-]+)\s*text\s*=\s*{_STRING}")


def read_text(path: Path) -> str:
    """A text as it is written: UTF-8, or UTF-16 with its mark; raises OSError, UserError."""
    content = path.read_bytes()
    code = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(code)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def subtitles(path: Path) -> list[Cue]:
    """The cues of an SRT or WebVTT file; raises OSError, UserError."""
    found = []
    for block in re.split(r"\r?\n[ \t]*\r?\n", read_text(path).strip()):
        lines = block.strip().splitlines()
        at = next((n for n, line in enumerate(lines) if "-->" in line), None)
        if at is None:  # a header, a comment
            continue
        times = _TIME.fullmatch(lines[at])
        if not times:
            raise UserError(
                f"{path}: {quoted(lines[at])} is no pair of times; expected one such as "
                "00:00:01,000 --> 00:00:02,500"
            )
        given = times.groups()
        words = " ".join(_MARKUP.sub("", line).strip() for line in lines[at + 1 :])
        found.append(Cue(_seconds(given[:4]), _seconds(given[4:]), words.strip()))
    return found


def _seconds(given: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, parts = (part or "0" for part in given)
    return 3600 * int(hours) + 60 * int(minutes) + float(f"{seconds}.{parts}")


def text_grid(path: Path) -> list[Cue]:
    """The intervals of a TextGrid's one tier of words.

    Raises:
        OSError: it cannot be read.
        UserError: it has several tiers with words, or is written in the short form.
    """
    text = read_text(path)
    marks = [*_TIER.finditer(text)]
    if not marks:
        raise UserError(
            f"{path}: has no tier that is known; save it as a text file in the long form"
        )
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    tiers: dict[str, list[Cue]] = {}
    for mark, end in zip(marks, ends, strict=True):
        cues = [
            Cue(float(start), float(stop), words.replace('""', '"').strip())
            for start, stop, words in _INTERVAL.findall(text, mark.end(), end)
        ]
        if mark[1] == "IntervalTier" and any(cue.words for cue in cues):
            tiers[mark[2]] = cues
    if len(tiers) != 1:
        raise UserError(
            f"{path}: has {len(tiers)} tiers with words ({', '.join(map(quoted, tiers))}), and "
            "nobody says which holds what is transcribed; keep one tier, or write a table with "
            "the columns audio_filepath, offset, duration and text"
        )
    return next(iter(tiers.values()))


def marked(path: Path) -> Iterator[tuple[str, str, Cue]]:
    """The name of the recording, its channel and the cue of each line of an STM file.

    Lines that are not to be scored, and gaps, are passed over.

    Raises:
        OSError, UserError: it cannot be read, or a line is of another form.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        name, channel, speaker, start, stop, *rest = [*line.split(None, 5), "", "", "", "", ""][:6]
        words = re.sub(r"^<[^<>]*>\s*", "", rest[0].strip())
        try:
            cue = Cue(float(start), float(stop), words)
        except ValueError:
            raise UserError(
                f"{path}: line {number} is {quoted(line)}; expected the recording, its channel, "
                "the speaker, two times and the words"
            ) from None
        if words and words != "ignore_time_segment_in_scoring" and speaker != "inter_segment_gap":
            yield name, channel, cue


READERS: dict[str, Callable[[Path], list[Cue]]] = {
    ".srt": subtitles,
    ".vtt": subtitles,
    ".textgrid": text_grid,
}
