"""Texts alone: documents that are learnt as they are, and talks that are written as one text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.containers.lines import LINE
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import ASSISTANT, USER, Reader
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.parts import ForeignDialect, is_blank, kept

TEXT = "text"
# What collections of documents say of each. Beside any other field a text may be half of a record.
ABOUT = frozenset(
    (
        *("id", "url", "title", "timestamp", "date", "dump", "file_path", "language", "source"),
        *("language_score", "token_count", "score", "int_score", "meta", "metadata", "split"),
        *("added", "created", "version", "subset", "lang", "doc_id", "__index_level_0__"),
    )
)
_TURN = re.compile(r"(?:\A|\n\n|(?=### ))(?:### )?(Human|Assistant): ?")


class TextDialect(ForeignDialect):
    """Documents: what is learnt is the text, after nothing. A blank one is no record."""

    name = "text"
    title = "texts without a question"
    container = "lines"
    reads = (TEXT,)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have a text, and nothing that it may belong to."""
        return all(map(_is_document, records))

    def passes_over(self, record: Any) -> bool:
        """Blank texts, such as those between WikiText's paragraphs."""
        return isinstance(record, dict) and TEXT in record and is_blank(record[TEXT])

    def native(self, record: Values, origin: Origin) -> Values:
        """An answer without a question; or the turns of a talk in one text."""
        text = record.get(TEXT, record.get(LINE))
        if isinstance(text, str) and is_transcript(text):
            reader = Reader(record, origin)
            add_transcript(reader, text)
            return {**kept(record), **reader.native()}
        return {**kept(record), "answer": text}


def _is_document(record: Values) -> bool:
    others = record.keys() - {TEXT}
    # The words of a picture or a sound are no document: nobody would show it.
    shows = any(isinstance(record[key], str) and modality_of(record[key]) for key in others)
    return isinstance(record.get(TEXT), str) and others <= ABOUT and not shows


def is_transcript(text: str) -> bool:
    """Whether a text begins as a talk: "Human: ..." or "### Human: ..." """
    found = _TURN.match(text.lstrip())
    return found is not None and found[1] == "Human"


def add_transcript(reader: Reader, text: str) -> None:
    """The turns of a talk that is written as one text, as HH-RLHF and Guanaco have it."""
    _, *pieces = _TURN.split(text.strip())
    for n, (name, said) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
        reader.add(USER if name == "Human" else ASSISTANT, said.strip(), [TEXT, str(n)])
