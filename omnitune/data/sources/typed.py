"""Messages of ``role`` and ``content``, as OpenAI, TRL and ms-swift write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import ASSISTANT, ROLES, SYSTEM, USER, Reader
from omnitune.data.sources.native import is_ours
from omnitune.data.sources.parts import (
    ForeignDialect,
    beside,
    first_filled,
    holds_medium,
    is_blank,
    kept,
)
from omnitune.data.sources.row_words import SYSTEMS
from omnitune.data.sources.texts import add_transcript, is_transcript
from omnitune.data.sources.writing import Said, Shown, Speech, typed
from omnitune.media.registry import MEDIA

MESSAGES, PROMPT = "messages", "prompt"
COMPLETIONS = ("completion", "chosen", "response")
PROMPTS = (PROMPT, "question", "instruction", "query", "input", "conversations")
_LISTS = ("videos",)


def has_messages(record: Values) -> bool:
    """Whether a record of others has messages."""
    messages = record.get(MESSAGES)
    objects = isinstance(messages, list) and all(isinstance(m, dict) for m in messages)
    return objects and bool(messages) and not is_ours(record)


def lists_media(record: Values) -> bool:
    """Whether media are listed beside the messages."""
    lists = (*(beside(medium) for medium in MEDIA.values()), *_LISTS)
    return any(isinstance(record.get(key), list) or holds_medium(record.get(key)) for key in lists)


def has_parts(record: Values) -> bool:
    """Whether a message has typed parts."""
    return any(isinstance(m.get("content"), list) for m in record[MESSAGES])


class OpenAiDialect(ForeignDialect):
    """Messages whose content is text or typed parts; media stand in the parts."""

    name = "openai"
    title = "OpenAI messages"
    reads = (MESSAGES, SYSTEM)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have messages, and none lists media beside them."""
        return all(map(has_messages, records)) and not any(map(lists_media, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The messages; media beside them are for parts, or tags, that name no file."""
        reader = Reader(record, origin)
        reader.add(SYSTEM, record.get(SYSTEM), [SYSTEM])
        reader.add_all(record.get(MESSAGES), MESSAGES)
        reader.join_media()
        return {**kept(record), **reader.native()}

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """Messages with parts of the type ``image_url`` and the like, which hold a path."""
        speech = Speech(record, self.title)
        return {**speech.kept, MESSAGES: [_message(turn, _url) for turn in speech.turns]}


class TrlDialect(ForeignDialect):
    """``prompt`` and ``completion`` (text or messages), or messages with media beside them."""

    name = "trl"
    title = "TRL prompts and completions, or messages"
    reads = (MESSAGES, *PROMPTS, *COMPLETIONS, *SYSTEMS)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have a completion, or messages with typed parts and media beside them."""
        if all(map(_has_completion, records)):
            return True
        if not all(map(has_messages, records)):
            return False
        return any(map(lists_media, records)) and any(map(has_parts, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The conversation; of prompt and completion only the completion's answers are learnt."""
        reader = Reader(record, origin)
        if MESSAGES in record:
            reader.add_all(record[MESSAGES], MESSAGES)
            return {**kept(record), **reader.native()}
        key = first_filled(record, COMPLETIONS)
        if not key:
            raise origin.wrong(f'"{COMPLETIONS[0]}" is missing or empty, expected an answer')
        given = record[key]
        if isinstance(given, str) and is_transcript(given):
            add_transcript(reader, given)
        elif _is_whole(given):
            reader.add_all(given, key)
        else:
            asked = first_filled(record, PROMPTS)
            if not asked:
                raise origin.wrong(f'has "{key}" and nothing that it answers; expected "{PROMPT}"')
            if system := first_filled(record, SYSTEMS):
                reader.add(SYSTEM, record[system], [system])
            _add(reader, record, asked, USER)
            _add(reader, record, key, ASSISTANT)
        return {**kept(record), **reader.native()}

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """Prompt and completion as messages, with lists of media beside them.

        Where other answers than the last are learnt they are messages.
        """
        speech = Speech(record, self.title)
        messages = [_message(turn, _placeholder) for turn in speech.turns]
        found = {**speech.kept, **{beside(MEDIA[k]): paths for k, paths in speech.media.items()}}
        learnt = [turn.weight for turn in speech.turns if turn.role == ASSISTANT]
        for message in messages:
            message.pop("weight", None)
        if learnt == [0] * (len(learnt) - 1) + [1]:
            return {**found, PROMPT: messages[:-1], "completion": messages[-1:]}
        speech.all_learnt()
        return {**found, MESSAGES: messages}


def _has_completion(record: Values) -> bool:
    if "chosen" in record:
        return True
    return PROMPT in record and any(key in record for key in COMPLETIONS)


def _is_whole(given: Any) -> bool:
    """Whether an answer is a conversation that begins with its question."""
    first = given[0] if isinstance(given, list) and given else None
    role = first.get("role", first.get("from")) if isinstance(first, dict) else None
    return isinstance(role, str) and role.strip().casefold() in (*ROLES[USER], *ROLES[SYSTEM])


def _add(reader: Reader, record: Values, key: str, role: str) -> None:
    given = record.get(key)
    if isinstance(given, dict):
        given = [given]
    if isinstance(given, list):
        reader.add_all(given, key, context_only=role == USER)
    elif not is_blank(given):
        reader.add(role, given, [key])


def _message(turn: Said, medium: Any) -> Values:
    shows = any(isinstance(part, Shown) for part in turn.parts)
    parts = typed(turn, medium)
    content = parts if shows else "".join(part["text"] for part in parts)
    message = {"role": turn.role, "content": content}
    return message if turn.weight else {**message, "weight": 0}


def _url(shown: Shown) -> Values:
    key = f"{shown.kind}_url"
    return {"type": key, key: {"url": shown.path}}


def _placeholder(shown: Shown) -> Values:
    return {"type": shown.kind}
