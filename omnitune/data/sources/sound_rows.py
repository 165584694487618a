"""Flat records of a sound and words, as FunASR, SALMONN, WavCaps and SpeechBrain write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.manifest import (
    AUDIO,
    CAPTION,
    PATHS,
    TEXTS,
    TRANSCRIPTION,
    TRANSLATION,
    is_manifest,
    stretch,
)
from omnitune.data.sources.parts import (
    ForeignDialect,
    as_text,
    first_filled,
    kept,
    located,
    media_key,
    one_of,
    refuse_videos,
)
from omnitune.media.registry import MEDIA

# Keys that name a sound if its file's name says so; of words; and of others beside them.
_FILES = (*PATHS, "path", "wav_filename", "source")
_WORDS = (*TEXTS, "wrd", "words", "target")
_ASKED, _LANGUAGE = ("Q", "question"), "text_language"
# Records with any of these are in another dialect.
_OTHERS = frozenset(
    ("messages", "conversations", "instruction", "choices", "options", "completion", "chosen")
    + ("audio_filepath", "file_name", "line", "response", "query", "locale", "translation")
    + ("answer", "answers", "prompt", "problem", "solution")
)
# What SALMONN's tasks are here. Of all others a record has to say what it asks.
_TASKS = {
    **dict.fromkeys(("asr", "speech_recognition", TRANSCRIPTION), TRANSCRIPTION),
    **dict.fromkeys(("audiocaption", "audio_caption", "music_description", CAPTION), CAPTION),
    **dict.fromkeys(("audiocaption_v2", "audio_story_telling"), CAPTION),
}
_TRANSLATIONS = ("translation", "ast", "st_", "speech_translation")
_CODE = re.compile(r"<\|([a-z]{2,3})\|>")
_ROOT = re.compile(r"\{\w+\}/|\$\w+/")  # {data_root}/, as SpeechBrain begins its paths


class SoundRowsDialect(ForeignDialect):
    """A sound (``path``, ``source``, ``wav``) and its words, or its caption."""

    name = "sound_rows"
    title = "rows of a sound and words"
    reads = (*_FILES, *_WORDS, CAPTION, *_ASKED, _LANGUAGE, "task", "id", "key")

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all name a file of a sound, have words, and no other dialect's keys."""
        return all(map(_is_ours, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """A transcription, a caption, a translation or a question, as the record's task says."""
        refuse_videos(record, origin)
        key = _file(record)
        if not key:
            raise origin.wrong(f"names no file of a sound under {one_of(_FILES)}")
        path = _ROOT.sub("", located(record[key], [key], origin), count=1)
        found: Values = {AUDIO: path + stretch(record, origin), **kept(record)}
        code = _CODE.fullmatch(str(record.get(_LANGUAGE) or ""))
        if code:
            found["language"] = code[1]
        words = first_filled(record, _words(key))
        if not words and first_filled(record, (CAPTION,)):
            return {**found, "answer": as_text(record[CAPTION]), "task": CAPTION}
        if not words:
            raise origin.wrong(f"has no words under {one_of(_words(key))}")
        found["answer"] = as_text(record[words])
        asked = first_filled(record, _ASKED)
        if asked:
            return {**found, "question": as_text(record[asked])}
        return found | _task(record, origin)


def _task(record: Values, origin: Origin) -> Values:
    """What a record without a question asks."""
    given = record.get("task")
    if not isinstance(given, str) or not given.strip():
        return {"task": TRANSCRIPTION}
    name = given.strip().lower()
    if name in _TASKS:
        return {"task": _TASKS[name]}
    if name.startswith(_TRANSLATIONS):
        return {"task": TRANSLATION}
    if origin.source.prompts or origin.source.task:
        return {}
    raise origin.wrong(
        f'is of the task "{given}" and asks no question ("Q"), so that nobody knows what it asks; '
        "give each such task a source of its own, with its prompt"
    )


def _file(record: Values) -> str:
    """The key under which a file of a sound stands; "" if none does."""
    texts = ((key, record.get(key)) for key in dict.fromkeys(_FILES))
    return next((k for k, v in texts if isinstance(v, str) and modality_of(v) == AUDIO), "")


def _words(file: str) -> tuple[str, ...]:
    return tuple(key for key in _WORDS if key != file)


def _is_ours(record: Values) -> bool:
    key = _file(record)
    held = not isinstance(record.get(AUDIO, ""), str)  # the sound itself, and no path
    more = any(media_key(record, medium) for medium in MEDIA.values() if medium.name != AUDIO)
    if not key or held or more or is_manifest(record) or not _OTHERS.isdisjoint(record):
        return False
    told: Any = first_filled(record, (*_words(key), CAPTION))
    return bool(told) and isinstance(as_text(record[told]), str)
