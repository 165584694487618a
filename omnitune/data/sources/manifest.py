"""Manifests of speech: one sound a record, as NeMo and Lhotse name it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.parts import (
    ForeignDialect,
    as_text,
    first_filled,
    is_blank,
    kept,
    located,
    refuse_videos,
)
from omnitune.data.sources.writing import Shown, Speech, tagged
from omnitune.sample import LANGUAGE_CODE, UserError

AUDIO, TRANSCRIPTION, TRANSLATION, CAPTION = "audio", "transcription", "translation", "caption"
PATHS = ("audio_filepath", AUDIO, "audio_path", "audio_file", "wav", "wav_path")
TEXTS = ("text", "sentence", "transcript", "transcription", "target_text")
QUESTIONS, ANSWERS = ("question", "context"), ("answer",)
_FROM, _TO = "source_lang", "target_lang"  # NeMo's: other ones make a translation
_OFFSETS, _ENDS, _DURATION = ("offset", "start"), ("end", "stop"), "duration"
_MARK = "::t="
_SUPERVISIONS, _RECORDING, _SOURCES, _SOURCE = "supervisions", "recording", "sources", "source"


class ManifestDialect(ForeignDialect):
    """A sound (``audio_filepath``) and its words; ``offset`` and ``duration`` cut a stretch."""

    name = "manifest"
    title = "a speech manifest"
    reads = (
        *(*PATHS, *TEXTS, *QUESTIONS, *ANSWERS, *_OFFSETS, *_ENDS, _DURATION),
        *(_SUPERVISIONS, _RECORDING, _FROM, _TO),
    )

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all name a sound, and how long it is or by the name that only manifests use."""
        return all(map(is_manifest, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The words as a transcription, or a question about the sound."""
        refuse_videos(record, origin)
        record = _of_cut(record, origin) if _is_cut(record) else record
        key = first_filled(record, PATHS)
        if not key:
            raise origin.wrong(f'"{PATHS[0]}" is missing or empty, expected the path of a sound')
        found = {AUDIO: located(record[key], [key], origin) + stretch(record, origin)}
        answer = first_filled(record, ANSWERS) or first_filled(record, TEXTS)
        if not answer:
            raise origin.wrong(f'"{TEXTS[0]}" is missing or empty, expected the words of the sound')
        if question := first_filled(record, QUESTIONS):
            found["question"] = as_text(record[question])
        told = kept(record)
        if answer in TEXTS:
            found["task"] = TRANSLATION if _is_translated(record) else TRANSCRIPTION
            told.pop("task", None)
        target = record.get(_TO)
        if isinstance(target, str) and LANGUAGE_CODE.fullmatch(target):
            told["language"] = target
        return {**found, **told, "answer": as_text(record[answer])}

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """A sound with its words, or with question and answer."""
        speech = Speech(record, self.title)
        speech.all_learnt()
        sounds = speech.media.pop(AUDIO, [])
        if len(sounds) != 1 or len(speech.media) != 1 or len(speech.turns) != 2:
            raise speech.error("anything but one sound and one answer")
        path, _, times = sounds[0].partition(_MARK)
        found: Values = {PATHS[0]: path, **_offset(path, times, self.title)}
        asked, answer = speech.turns
        if isinstance(asked.parts[0], Shown):  # as it stands without a tag
            asked = asked._replace(parts=asked.parts[1:])
        if asked.parts:
            found[QUESTIONS[0]] = tagged(asked)
        is_words = speech.kept.get("task") == TRANSCRIPTION
        return {**found, TEXTS[0] if is_words else ANSWERS[0]: tagged(answer), **speech.kept}


def is_manifest(record: Values) -> bool:
    """Whether a record is one of a manifest."""
    return PATHS[0] in record or _has_duration(record) or _is_cut(record)


def _is_translated(record: Values) -> bool:
    """Whether the text is of another language than the sound."""
    languages = [record.get(key) for key in (_FROM, _TO)]
    said, written = (str(code).partition("-")[0].lower() for code in languages)
    return all(languages) and said != written


def _has_duration(record: Values) -> bool:
    words = any(key in record for key in (*TEXTS, *ANSWERS))
    return words and _DURATION in record and isinstance(record.get(AUDIO), str)


def _is_cut(record: Values) -> bool:
    return _SUPERVISIONS in record and _RECORDING in record


def _of_cut(record: Values, origin: Origin) -> Values:
    """A cut of Lhotse's, in the words of a manifest."""
    recording, said = record[_RECORDING], record[_SUPERVISIONS]
    sources = recording.get(_SOURCES) if isinstance(recording, dict) else None
    first = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
    if not isinstance(first, dict) or not isinstance(first.get(_SOURCE), str):
        raise origin.wrong(
            f'"{_RECORDING}" is {as_found(recording)}, expected one of "{_SOURCES}" with its path '
            f'as "{_SOURCE}"'
        )
    if not isinstance(said, list) or len(said) != 1 or not isinstance(said[0], dict):
        raise origin.wrong(
            f'"{_SUPERVISIONS}" is {as_found(said)}, expected one with its "text"; cut the '
            "recording at its supervisions (trim_to_supervisions)"
        )
    whole = recording.get(_DURATION) == record.get(_DURATION) and not record.get(_OFFSETS[1])
    times = {} if whole else {key: record.get(key) for key in (_OFFSETS[1], _DURATION)}
    channels = first.get("channels")
    if isinstance(channels, list) and len(channels) > 1:
        raise origin.wrong(
            "is a cut of a recording with several channels, all of which would be heard; write "
            "each channel as a file of its own"
        )
    words = {key: said[0].get(key) for key in ("text", "language")}
    custom = said[0].get("custom")
    texts = custom.get("texts") if isinstance(custom, dict) else None
    if is_blank(words["text"]) and isinstance(texts, list) and texts:  # Libriheavy's
        words["text"] = texts[0]
    return {**kept(record), **words, **times, PATHS[0]: first[_SOURCE]}


def stretch(record: Values, origin: Origin) -> str:
    """The end of an address: which stretch of its file a sound is; "" for all of it.

    Without a beginning a duration is that of the file.
    """
    key = first_filled(record, _OFFSETS)
    if not key:
        return ""
    start = _seconds(record, key, origin)
    if end := first_filled(record, _ENDS):
        stop = _seconds(record, end, origin)
    elif not is_blank(record.get(_DURATION)):
        stop = start + _seconds(record, _DURATION, origin)
    elif not start:
        return ""
    else:
        return f"{_MARK}{_written(start)},"
    if stop <= start:
        raise origin.wrong(
            f'the sound is cut from {_written(start)} to {_written(stop)} s ("{key}" and '
            f'"{end or _DURATION}"), which is no stretch'
        )
    return f"{_MARK}{_written(start)},{_written(stop)}"


def _seconds(record: Values, key: str, origin: Origin) -> float:
    try:
        value = float(record[key])
    except (TypeError, ValueError, OverflowError):
        value = -1.0
    if isinstance(record[key], bool) or not math.isfinite(value) or value < 0:
        raise origin.wrong(f'"{key}" is {as_found(record[key])}, expected seconds, such as 1.5')
    return value


def _written(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _offset(path: str, times: str, title: str) -> Values:
    """The stretch of a path's end as a manifest has it."""
    if not times:
        return {}
    start, _, stop = times.partition(",")
    try:
        begin = float(start or 0)
        return {"offset": begin} | ({_DURATION: round(float(stop) - begin, 6)} if stop else {})
    except ValueError:
        raise UserError(f"{title} cannot hold {path}{_MARK}{times}; its end is no time") from None
