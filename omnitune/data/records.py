"""Reads the JSON data files into samples; every error names file, record and field."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omnitune.data.index import Samples, Source, first_shown, open_index
from omnitune.modalities.registry import MODALITIES
from omnitune.sample import ROLES, Media, Message, Part, Sample, Text, Told, UserError

FILES = {
    "text_only": "text/conversations.json",
    "image_text": "images/image_qa.json",
    "audio_text": "audio/audio_qa.json",
    "image_audio_text": "omni/omni_qa.json",
    "told": "text/told_qa.json",
    "captions": "images/captions.json",
    "sheets": "images/sheets.json",
    "transcripts": "audio/transcripts.json",
}
# What a source's records must refer to; any record may refer to more.
REQUIRED_MEDIA: dict[str, tuple[str, ...]] = {
    "text_only": (),
    "image_text": ("image",),
    "audio_text": ("audio",),
    "image_audio_text": ("image", "audio"),
    "told": (),
    "captions": ("image",),
    "sheets": ("image",),
    "transcripts": ("audio",),
}
STAND_INS = {"image": "caption", "audio": "transcript"}
INDEX_FOLDER = ".index"
VALIDATION_SHARE = 0.05
TASKS = ("text", "image_qa", "caption", "transcription", "audio_qa", "image_audio_qa")

_TAGS = re.compile("|".join(f"(<{name}>)" for name in MODALITIES))


def read_source(data_dir: Path, source: str, language: str = "") -> Samples:
    """The samples of one source's file, in its order; every record is checked.

    Args:
        language: of the answers of records that do not say.

    Raises:
        UserError: the file is missing, empty or not a JSON list, or a record is wrong.
    """
    path = data_dir / FILES[source]

    def parse(number: int, values: Any) -> Sample:
        sample = _Record(path, source, number, values).sample()
        told = sample.language or not language
        return sample if told else replace(sample, language=language)

    try:
        index = open_index(path, source, data_dir / INDEX_FOLDER, parse)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file, but the source {source} has weight; make it with "
            f"`omnitune corpus`, or give {source} the weight 0"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    count = len(index.place_N2)
    if not count:
        raise UserError(f"{path}: is an empty list; the source {source} needs records")
    return Samples([(Source(path, index, parse), range(count))])


def read_available(
    data_dir: Path,
    sources: Iterable[str] = tuple(FILES),
    languages: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Samples]:
    """Reads each of the sources whose file is there (a folder with only some of them will do).

    Args:
        languages: by source, of the answers of records that do not say.
    """
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such data folder; `omnitune corpus` makes an example")
    files = {source: FILES[source] for source in sources}
    present = [source for source, name in files.items() if (data_dir / name).exists()]
    if not present:
        expected = ", ".join(files.values())
        raise UserError(f"{data_dir}: holds none of the data files ({expected})")
    return {s: read_source(data_dir, s, languages.get(s, "")) for s in present}


def data_files(data_dir: Path, sources: Iterable[str] = tuple(FILES)) -> list[Path]:
    """The JSON files of sources, there or not."""
    return [data_dir / FILES[source] for source in sources]


def join(parts: Iterable[Samples]) -> Samples:
    """The samples of several sources, one after the other."""
    return Samples(piece for part in parts for piece in part.pieces)


def split_of(samples: Samples, split: str) -> Samples:
    """The samples of one split, in order."""
    return samples.of_split(split)


def media_of(samples: Sequence[Sample]) -> Iterator[tuple[Media, Sample]]:
    """Distinct media, each with the first sample that shows it."""
    return samples.media() if isinstance(samples, Samples) else first_shown(samples)


def media_key(samples: Sequence[Sample]) -> str | None:
    """What stands for the media if they are too many to look at each one at every start."""
    return samples.media_key if isinstance(samples, Samples) else None


def outlines(samples: Sequence[Sample]) -> Iterator[list[tuple[str, int]]]:
    """``Sample.outline`` of each sample; those of an indexed file are not read for it."""
    if isinstance(samples, Samples):
        return samples.outlines()
    return (sample.outline() for sample in samples)


def check_media(samples: Sequence[Sample]) -> None:
    """Checks the header of every medium once; a UserError names the first that is unusable."""
    for medium, sample in media_of(samples):
        try:
            MODALITIES[medium.modality].check(medium.path)
        except UserError as error:
            raise UserError(f"sample {sample.id} ({sample.source}): {error}") from None


def task_of(modalities: set[str], record_task: str, kind: str) -> str:
    """Names the task by the media that a sample holds, not by its source."""
    if modalities == {"image", "audio"}:
        return "image_audio_qa"
    if modalities == {"image"}:
        return "caption" if kind == "caption" else "image_qa"
    if modalities == {"audio"}:
        return "transcription" if record_task == "transcription" else "audio_qa"
    return "text"


class _Record:
    """One record of a file on its way to a sample."""

    def __init__(self, path: Path, source: str, number: int, values: Any) -> None:
        self.path, self.source, self.number = path, source, number
        if not isinstance(values, dict):
            raise self.wrong(f"is a JSON {type(values).__name__}, expected an object")
        self.values: dict[str, Any] = values

    def wrong(self, what: str) -> UserError:
        """An error that says where."""
        return UserError(f"{self.path}: record {self.number + 1}: {what}")

    def sample(self) -> Sample:
        """Turns the record into a sample, or raises a UserError."""
        media = self._media()
        turns = self._turns()
        media_left = dict(media)
        messages = [self._message(turn, media_left) for turn in turns]
        opening: tuple[Part, ...] = (*media_left.values(), *self._told(media))
        if opening:
            first = next(n for n, message in enumerate(messages) if message.role == "user")
            messages[first] = Message("user", (*opening, *messages[first].parts))
        record_task, kind = self._text("task", ""), self._text("kind", "")
        messages = [self._score_group(m, set(media), record_task, kind) for m in messages]
        return Sample(
            id=self._text("id", f"{self.source}/{self.number}"),
            source=self.source,
            messages=tuple(messages),
            task=next(m.task for m in messages if m.role == "assistant"),
            split=self._split(),
            kind=kind,
            independent_turns="messages" not in self.values,
            stand_ins={
                m: self._text(k, "")
                for m, k in STAND_INS.items()
                if m in media and k in self.values
            },
            tags={"voice": self._text("voice", "")} if "voice" in self.values else {},
            difficulty=self._difficulty(),
            number=self.number,
            language=self._text("language", ""),
        )

    def _media(self) -> dict[str, Media]:
        found = {}
        folder = self.path.parent
        for name in MODALITIES:
            if name not in self.values:
                if name in REQUIRED_MEDIA[self.source]:
                    raise self.wrong(f'the key "{name}" is missing; expected a relative path')
                continue
            relative = self.values[name]
            if not isinstance(relative, str) or not relative:
                raise self.wrong(f'"{name}" is {relative!r}, expected a relative path')
            place = Path(relative)
            if place.is_absolute() or ".." in place.parts:
                raise self.wrong(
                    f'"{name}" is {relative!r}, which leaves the folder {self.path.parent}; '
                    "media paths are relative to the JSON file and stay beside it"
                )
            found[name] = Media(name, folder / place)
        return found

    def _told(self, media: dict[str, Media]) -> list[Told]:
        """Of a record without media: the caption or transcript that it is asked about instead."""
        found = {m: self._text(k, "") for m, k in STAND_INS.items() if k in self.values}
        return [] if media else [Told.of(name, words) for name, words in found.items()]

    def _turns(self) -> list[dict[str, str]]:
        """The record's conversation as role, content and, of answers, kind and task."""
        given = [key for key in ("messages", "qa", "answer") if key in self.values]
        if len(given) != 1:
            raise self.wrong(
                f"has {' and '.join(given) or 'neither messages, qa nor answer'}; expected one of "
                '"messages", "qa" or "question" with "answer"'
            )
        if given == ["messages"]:
            return self._check_roles(self._list("messages"))
        pairs = self._list("qa") if given == ["qa"] else [self.values]
        turns: list[dict[str, str]] = []
        for pair in pairs:
            question, answer = pair.get("question", ""), pair.get("answer")
            if not isinstance(question, str):
                raise self.wrong(f'"question" is {question!r}, expected text')
            if not isinstance(answer, str) or not answer.strip():
                raise self.wrong(f'"answer" is {answer!r}, expected text')
            turns.append({"role": "user", "content": question})
            extra: dict[str, str] = {k: str(pair[k]) for k in ("kind", "task") if k in pair}
            turns.append({"role": "assistant", "content": answer, **extra})
        return turns

    def _check_roles(self, turns: list[dict[str, str]]) -> list[dict[str, str]]:
        expected = "user"
        for n, turn in enumerate(turns):
            role, content = turn.get("role"), turn.get("content")
            if role not in ROLES:
                raise self.wrong(
                    f'message {n + 1}: "role" is {role!r}, expected {", ".join(ROLES)}'
                )
            if not isinstance(content, str) or (role == "assistant" and not content.strip()):
                raise self.wrong(f'message {n + 1}: "content" is {content!r}, expected text')
            if role == "system" and n == 0:
                continue
            if role != expected:
                raise self.wrong(f"message {n + 1}: role is {role}, expected {expected}")
            expected = "user" if role == "assistant" else "assistant"
        if turns[-1]["role"] != "assistant":
            raise self.wrong("the last message is not the assistant's; there is nothing to learn")
        return turns

    def _list(self, key: str) -> list[dict[str, Any]]:
        items = self.values[key]
        if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
            raise self.wrong(f'"{key}" is not a list of at least one object')
        return items

    def _message(self, turn: dict[str, str], media_left: dict[str, Media]) -> Message:
        """Puts media where a user turn's tags say; takes those out of ``media_left``."""
        role, content = turn["role"], turn["content"]
        parts: list[Part] = []
        pieces = filter(None, _TAGS.split(content)) if role == "user" else [content]
        for piece in pieces:
            name = piece[1:-1]
            if role == "user" and _TAGS.fullmatch(piece) and name in media_left:
                parts.append(media_left.pop(name))
            elif piece.strip():
                parts.append(Text(piece))
        return Message(role, tuple(parts), turn.get("kind", ""), turn.get("task", ""))

    def _score_group(self, message: Message, media: set[str], task: str, kind: str) -> Message:
        if message.role != "assistant":
            return message
        kind = message.kind or kind
        task = task_of(media, message.task or task, kind)
        return Message(message.role, message.parts, kind, task)

    def _split(self) -> str:
        if "split" in self.values:
            return self._text("split", "")
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).digest()
        return "validation" if digest[0] * 256 + digest[1] < VALIDATION_SHARE * 65536 else "train"

    def _difficulty(self) -> float | None:
        if "difficulty" not in self.values:
            return None
        value = self.values["difficulty"]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise self.wrong(f'"difficulty" is {value!r}, expected a number from 0 to 1')
        return float(value)

    def _text(self, key: str, default: str) -> str:
        value = self.values.get(key, default)
        if isinstance(value, int) and key == "id":
            value = str(value)
        if not isinstance(value, str) or (key in self.values and not value):
            raise self.wrong(f'"{key}" is {value!r}, expected text')
        return value
