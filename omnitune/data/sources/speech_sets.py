"""Well-known sets of speech: Common Voice, LibriSpeech, and lines of ``name: words``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from omnitune.config.settings import as_found
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.manifest import AUDIO, TRANSCRIPTION, TRANSLATION
from omnitune.data.sources.parts import ForeignDialect, is_blank, kept
from omnitune.sample import LANGUAGE_CODE

LINE, LINES = "line", "lines"
_SPOKEN = re.compile(r"(?s)(\S+-\d+) (.*\S.*)")  # speaker-chapter-number WORDS
_NAMED = re.compile(r"(?s)([^\s:;\[][^\s:]*):\s+(.*\S.*)")  # folder/name: words


class CommonVoiceDialect(ForeignDialect):
    """Rows with ``path`` and ``sentence``; the sounds lie in the folder ``clips``."""

    name = "common_voice"
    title = "Common Voice"
    reads = ("path", "sentence", "locale", TRANSLATION)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all name a sentence and a clip."""
        return all(
            "path" in record and "sentence" in record and AUDIO not in record for record in records
        )

    def native(self, record: Values, origin: Origin) -> Values:
        """A transcription; a translation where there is one, as CoVoST has them."""
        path, sentence, locale, target = (record.get(key) for key in self.reads)
        if not isinstance(path, str) or is_blank(path):
            raise origin.wrong(f'"path" is {as_found(path)}, expected the name of a clip')
        if not isinstance(sentence, str) or is_blank(sentence):
            raise origin.wrong(f'"sentence" is {as_found(sentence)}, expected what the clip says')
        if not PurePosixPath(path).suffix:  # as the first releases name them
            path += ".mp3"
        found: Values = {AUDIO: path if "/" in path else f"clips/{path}"}
        if isinstance(locale, str) and LANGUAGE_CODE.fullmatch(locale):
            found["language"] = locale
        if TRANSLATION in record:
            found.pop("language", None)  # that of the sentence
            return {**found, **kept(record), "answer": target or "", "task": TRANSLATION}
        return {**found, **kept(record), "answer": sentence, "task": TRANSCRIPTION}


class LibriSpeechDialect(ForeignDialect):
    """Lines ``ID WORDS`` of a file ``*.trans.txt``, beside which each ``ID.flac`` lies."""

    name = "librispeech"
    title = "LibriSpeech"
    reads = (LINE,)
    container = LINES

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all are such lines."""
        return all(map(_is_line, records)) and all(_SPOKEN.fullmatch(r[LINE]) for r in records)

    def native(self, record: Values, origin: Origin) -> Values:
        """A transcription."""
        found = _SPOKEN.fullmatch(line) if isinstance(line := record.get(LINE), str) else None
        if not found:
            raise origin.wrong(
                f'is {as_found(line)}, expected a line such as "84-121123-0000 GO ON"'
            )
        name, words = found.groups()
        return {"id": name, AUDIO: f"{name}.flac", "answer": words.strip(), "task": TRANSCRIPTION}


class NamedWordsDialect(ForeignDialect):
    """Lines ``name: words``, beside which each ``name.wav`` lies."""

    name = "named_words"
    title = "lines of name: words"
    reads = (LINE,)
    container = LINES

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all are such lines, but for comments."""
        if not all(map(_is_line, records)):
            return False
        lines = [record[LINE] for record in records if not self.passes_over(record)]
        return bool(lines) and all(map(_NAMED.fullmatch, lines))

    def passes_over(self, record: Any) -> bool:
        """Blank lines, comments (``;``), and sounds without words (``[a beep]``)."""
        line = record.get(LINE) if isinstance(record, dict) else None
        if not isinstance(line, str):
            return False
        line = line.strip()
        words = line.partition(":")[2].strip()
        return not line or line[0] in ";#" or (words.startswith("[") and words.endswith("]"))

    def native(self, record: Values, origin: Origin) -> Values:
        """A transcription."""
        found = _NAMED.fullmatch(line) if isinstance(line := record.get(LINE), str) else None
        if not found:
            raise origin.wrong(f'is {as_found(line)}, expected a line such as "hello: Hello."')
        name, words = found.groups()
        return {"id": name, AUDIO: f"{name}.wav", "answer": words.strip(), "task": TRANSCRIPTION}


def _is_line(record: Values) -> bool:
    return set(record) == {LINE} and isinstance(record[LINE], str)
