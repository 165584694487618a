"""The records of ms-swift: messages with tags, queries with responses, responses alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import ASSISTANT, SYSTEM, USER, Reader
from omnitune.data.sources.parts import ForeignDialect, as_text, beside, is_blank, kept
from omnitune.data.sources.typed import MESSAGES, has_messages, has_parts, lists_media
from omnitune.data.sources.writing import Speech, tagged
from omnitune.media.registry import MEDIA

OBJECTS = "objects"
_FILLED = {"<ref-object>": "ref", "<bbox>": "bbox"}  # places in a text, by the lists for them
_PLACES = re.compile("|".join(_FILLED))
QUERY, RESPONSE, HISTORY, PAIRS = "query", "response", "history", "conversation"
REPLIES, ASKED = (ASSISTANT, "output"), ("human", USER, "input")  # of a pair; Capybara's last


def add_history(reader: Reader, record: Values) -> None:
    """The pairs of question and answer that came before, and the system's message."""
    reader.add(SYSTEM, record.get(SYSTEM), [SYSTEM])
    pairs = record.get(HISTORY)
    if is_blank(pairs):
        return
    if not isinstance(pairs, list):
        raise reader.wrong(f'"{HISTORY}" is {as_found(pairs)}, expected a list of pairs')
    for n, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise reader.wrong(
                f'"{HISTORY}" item {n + 1} is {as_found(pair)}, expected a question and an answer'
            )
        for place, role in enumerate((USER, ASSISTANT)):
            reader.add(role, pair[place], [HISTORY, str(n), str(place)])


class SwiftDialect(ForeignDialect):
    """Media are listed as ``images`` and ``audios``; tags say where they stand.

    A path may also stand in the text: ``<img>a.png</img>``.
    """

    name = "swift"
    title = "ms-swift records"
    reads = (MESSAGES, QUERY, RESPONSE, HISTORY, PAIRS, SYSTEM, OBJECTS)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have a query, a response alone, or messages with media in lists."""
        if all(_has_response(record) or _has_pairs(record) for record in records):
            return True
        if not all(map(has_messages, records)):
            return False
        return any(map(lists_media, records)) and not any(map(has_parts, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The conversation; a response alone is an answer without a question."""
        reader = Reader(record, origin)
        if MESSAGES in record:
            reader.add(SYSTEM, record.get(SYSTEM), [SYSTEM])
            reader.add_all(grounded(record, origin), MESSAGES)
        elif PAIRS in record:
            reader.add(SYSTEM, record.get(SYSTEM), [SYSTEM])
            _add_pairs(reader, record[PAIRS])
        else:
            add_history(reader, record)
            if RESPONSE not in record:
                raise origin.wrong(f'"{RESPONSE}" is missing, expected the answer')
            if not is_blank(record.get(QUERY)):
                reader.add(USER, record[QUERY], [QUERY])
            reader.add(ASSISTANT, record[RESPONSE], [RESPONSE])
        return {**kept(record), **reader.native()}

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """Messages with tags, and lists of media beside them."""
        speech = Speech(record, self.title)
        messages = []
        for turn in speech.turns:
            unlearnt = {} if turn.weight else {"loss": False}
            messages.append({"role": turn.role, "content": tagged(turn), **unlearnt})
        lists = {beside(MEDIA[kind]): paths for kind, paths in speech.media.items()}
        return {**speech.kept, MESSAGES: messages, **lists}


def grounded(record: Values, origin: Origin) -> Any:
    """The messages with what ``objects`` says of things and boxes, in order, as it is written."""
    messages, objects = record[MESSAGES], record.get(OBJECTS)
    if not isinstance(objects, dict) or not isinstance(messages, list):
        return messages
    left = {tag: list(objects.get(key) or []) for tag, key in _FILLED.items()}

    def fill(found: re.Match[str]) -> str:
        if not left[found[0]]:
            raise origin.wrong(
                f'has more places {found[0]} than "{OBJECTS}" has under "{_FILLED[found[0]]}"'
            )
        value = left[found[0]].pop(0)
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

    return [
        {**turn, "content": _PLACES.sub(fill, turn["content"])}
        if isinstance(turn, dict) and isinstance(turn.get("content"), str)
        else turn
        for turn in messages
    ]


def _has_response(record: Values) -> bool:
    others = ("instruction", "prompt", MESSAGES)
    return (
        RESPONSE in record
        and not any(key in record for key in others)
        and (QUERY in record or not _others(record))
    )


def _others(record: Values) -> set[str]:
    """Keys that a response alone has not beside it."""
    lists = {beside(medium) for medium in MEDIA.values()}
    return set(record) - {RESPONSE, SYSTEM, HISTORY, "id", "split", "language"} - lists


def _has_pairs(record: Values) -> bool:
    pairs = record.get(PAIRS)
    first = pairs[0] if isinstance(pairs, list) and pairs else None
    return isinstance(first, dict) and any(key in first for key in REPLIES)


def _add_pairs(reader: Reader, pairs: Any) -> None:
    for n, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        reply = next((k for k in REPLIES if k in pair), "") if isinstance(pair, dict) else ""
        if not reply:
            raise reader.wrong(
                f'"{PAIRS}" item {n + 1} is {as_found(pair)}, expected an object with "human" and '
                f'"{ASSISTANT}"'
            )
        asked = next((key for key in ASKED if key in pair), ASKED[0])
        reader.add(USER, as_text(pair.get(asked)), [PAIRS, str(n), asked])
        reader.add(ASSISTANT, pair[reply], [PAIRS, str(n), reply])
