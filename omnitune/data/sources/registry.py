"""Which dialects there are, by name. The first that recognises a file's records reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from omnitune.data.sources.alpaca import AlpacaDialect
from omnitune.data.sources.base import Dialect, Values
from omnitune.data.sources.chats import LlavaDialect, ShareGptDialect
from omnitune.data.sources.gemini import GeminiDialect
from omnitune.data.sources.manifest import ManifestDialect
from omnitune.data.sources.native import NativeDialect
from omnitune.data.sources.readdressed import WebDatasetDialect
from omnitune.data.sources.rows import FolderDialect, LabelledDialect, RowsDialect, VqaDialect
from omnitune.data.sources.sound_rows import SoundRowsDialect
from omnitune.data.sources.speech_sets import (
    CommonVoiceDialect,
    LibriSpeechDialect,
    NamedWordsDialect,
)
from omnitune.data.sources.swift import SwiftDialect
from omnitune.data.sources.texts import TextDialect
from omnitune.data.sources.trees import OasstDialect, TurnsDialect
from omnitune.data.sources.typed import OpenAiDialect, TrlDialect

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        NativeDialect(),
        LlavaDialect(),
        ShareGptDialect(),
        TrlDialect(),
        SwiftDialect(),
        OpenAiDialect(),
        GeminiDialect(),
        AlpacaDialect(),
        OasstDialect(),
        TurnsDialect(),
        VqaDialect(),
        ManifestDialect(),
        SoundRowsDialect(),
        CommonVoiceDialect(),
        LibriSpeechDialect(),
        NamedWordsDialect(),
        FolderDialect(),
        LabelledDialect(),
        TextDialect(),
    )
}
# It reads records within a record, by any of the others.
DIALECTS[WebDatasetDialect.name] = WebDatasetDialect(DIALECTS)
DIALECTS[RowsDialect.name] = RowsDialect()


def dialect_of(records: Sequence[Values], file: Path) -> Dialect | None:
    """The dialect that the first records of a file are written in; None if it is none.

    Where no dialect has them all, it is the one that most of them are in, if that is half of them:
    its error says what is wrong with the others.
    """
    if found := _first(records, file):
        return found
    each = Counter(found.name for record in records if (found := _first([record], file)))
    name, count = max(each.items(), key=lambda pair: pair[1], default=("", 0))
    return DIALECTS[name] if 2 * count >= len(records) > 0 else None


def _first(records: Sequence[Values], file: Path) -> Dialect | None:
    return next((d for d in DIALECTS.values() if d.recognises(records, file)), None)
