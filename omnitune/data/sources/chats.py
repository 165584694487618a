"""Conversations under ``conversations``, as LLaVA, ShareGPT4V and LLaMA-Factory write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import SYSTEM, USER, Reader
from omnitune.data.sources.parts import ForeignDialect, beside, first_filled, kept
from omnitune.data.sources.row_words import SYSTEMS
from omnitune.data.sources.writing import Speech, one_or_all, tagged
from omnitune.media.registry import MEDIA

TURNS = "conversations"
_NAMES = {USER: "human", "assistant": "gpt", SYSTEM: "system"}


def has_turns(record: Values) -> bool:
    """Whether a record has turns of ``from`` and ``value``."""
    turns = record.get(TURNS)
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and ("from" in first or "role" in first)


@lru_cache(maxsize=8)
def _edges(names: tuple[str, ...]) -> re.Pattern[str]:
    """Finds tags at the ends of a text, with the line breaks between them and the text."""
    tag = rf"<(?:{'|'.join(map(re.escape, names))})>"
    return re.compile(rf"\A((?:{tag}\n?)*)(.*?)((?:\n?(?<!\\){tag})*)\Z", re.DOTALL)


def trimmed(text: str) -> str:
    """A text without the line breaks that set tags at its ends apart."""
    if "<" not in text:
        return text
    found = _edges(tuple(MEDIA)).fullmatch(text)
    assert found is not None  # its middle takes anything
    first, middle, last = found.groups()
    return first.replace("\n", "") + middle + last.replace("\n", "")


class ShareGptDialect(ForeignDialect):
    """Turns of ``from`` and ``value``; media in lists beside them, tags where they stand."""

    name = "sharegpt"
    title = "ShareGPT conversations"
    reads = (TURNS, *SYSTEMS)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have such turns, and none names its media in the singular."""
        chosen = any("chosen" in record for record in records)  # one of two answers to them
        return all(map(has_turns, records)) and not any(map(_names_one, records)) and not chosen

    def native(self, record: Values, origin: Origin) -> Values:
        """The conversation; of a single medium only the first tag counts."""
        reader = Reader(record, origin, once=True)
        turns = record.get(TURNS)
        if isinstance(turns, list):
            turns = [_trimmed(turn) for turn in turns]
        key = first_filled(record, SYSTEMS)
        if key == SYSTEM or not _begins_with_system(turns):  # OpenHermes has both
            reader.add(SYSTEM, record.get(key), [key])
        reader.add_all(turns, TURNS)
        return {**kept(record), **reader.native()}

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """The conversation with lists of media beside it."""
        speech = Speech(record, self.title)
        speech.all_learnt()
        system, turns = speech.apart()
        found = {**speech.kept, TURNS: [_turn(turn) for turn in turns]}
        found |= {beside(MEDIA[kind]): paths for kind, paths in speech.media.items()}
        return {**found, SYSTEM: system} if system else found


class LlavaDialect(ShareGptDialect):
    """The same with ``image`` in the singular; a record of a mixed file may have none."""

    name = "llava"
    title = "LLaVA conversations"

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have such turns, and some name their media in the singular."""
        return all(map(has_turns, records)) and any(map(_names_one, records))

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """The conversation; the system's message is its first turn."""
        speech = Speech(record, self.title)
        speech.all_learnt()
        media = {kind: one_or_all(paths) for kind, paths in speech.media.items()}
        return {**speech.kept, **media, TURNS: [_turn(turn) for turn in speech.turns]}


def _names_one(record: Values) -> bool:
    return any(name in record for name in (*MEDIA, "video"))


def _begins_with_system(turns: Any) -> bool:
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and SYSTEM in (first.get("from"), first.get("role"))


def _trimmed(turn: Any) -> Any:
    if not isinstance(turn, dict):
        return turn
    texts = {key: turn[key] for key in ("value", "content") if isinstance(turn.get(key), str)}
    return turn | {key: trimmed(text) for key, text in texts.items()}


def _turn(turn: Any) -> Values:
    return {"from": _NAMES[turn.role], "value": tagged(turn, edge="\n")}
