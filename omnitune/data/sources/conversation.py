"""Reads the turns of other people's records, whatever they call roles, texts and media in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from omnitune.config.settings import as_found, quoted
from omnitune.containers.address import inside
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.parts import (
    as_text,
    beside,
    first_filled,
    is_blank,
    keys_of,
    located,
    located_all,
    media_in,
    media_key,
    one_of,
    refuse_videos,
)
from omnitune.media.base import Medium
from omnitune.media.registry import MEDIA

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = {
    SYSTEM: ("system", "developer"),
    USER: ("user", "human", "question"),
    ASSISTANT: ("assistant", "gpt", "chatgpt", "bot", "model", "answer"),
}
_ROLE = {name: role for role, names in ROLES.items() for name in names}
TOOLS = (
    "tool",
    "function",
    "function_call",
    "tool_call",
    "tool_response",
    "observation",
    "ipython",
)
_TEXTS = ("text", "input_text", "output_text")  # types of parts
_ENCODED = ("data", "base64")  # keys of a part under which its medium is base64 alone
_URLS = ("path", "url", "source", "file", "inlineData", "inline_data", *_ENCODED)
_BAD = ("label", "kto_tag")  # false of an answer that nobody should give


# FunASR's way to name a sound in a text.
_SPEECH = re.compile(r"<\|startofspeech\|>!?([^<>\n]+)<\|endofspeech\|>")


@lru_cache(maxsize=8)
def _places(names: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """Finds a tag (``<image>``), or a path between tags (``<img>a.png</img>``)."""
    either = "|".join(re.escape(name) for name, _ in names)
    alone = "|".join(re.escape(name) for name in {kind for _, kind in names})
    return re.compile(rf"(?<!\\)(?:<({either})>([^<>\n]+)</\1>|<({alone})>)")


@lru_cache(maxsize=8)
def _tag_names_of(media: tuple[Medium, ...]) -> tuple[tuple[str, str], ...]:
    """What a tag may be called, with the kind of medium: img is an alias of image."""
    return tuple(
        (name, medium.name)
        for medium in media
        for name in (medium.name, *(alias for alias in medium.aliases if len(alias) == 3))
    )


def _tag_names() -> tuple[tuple[str, str], ...]:
    return _tag_names_of(tuple(MEDIA.values()))


class Reader:
    """Turns of one record on their way to our messages, with the media that stand beside them.

    Args:
        media: by kind, their paths, in the order in which tags and typed parts take them; those
            under the record's own keys if None.
        once: of a single medium only the first tag counts; later turns repeat it out of habit.

    Raises:
        UserError: a medium beside the turns is in no form that is known.
    """

    def __init__(
        self,
        record: Values,
        origin: Origin,
        media: dict[str, list[str]] | None = None,
        once: bool = False,
    ) -> None:
        self.wrong, self.origin = origin.wrong, origin
        if key := next((key for key in _BAD if record.get(key) is False), ""):
            raise self.wrong(
                f'"{key}" is false, which marks a bad answer (KTO), and those are not learnt; '
                "leave such records out"
            )
        self.left = media_in(record, origin) if media is None else media
        self.listed = {name: list(paths) for name, paths in self.left.items()}
        self.single = {n for n, paths in self.left.items() if len(paths) == 1} if once else set()
        self.placed: dict[str, list[str]] = {}
        self.messages: list[Values] = []

    def add(self, role: str, content: Any, keys: Sequence[str], weight: int | None = None) -> None:
        """One more turn.

        Args:
            role: one of ours.
            content: text, or a list of typed parts.
            keys: under which that stands in the record.
        """
        if role == SYSTEM and is_blank(content):
            return
        if role == SYSTEM and self.messages and self.messages[0]["role"] == SYSTEM:
            raise self.wrong(f"{'.'.join(keys)} is a second system message; expected one at most")
        message = {"role": role, "content": self._content(as_text(content), keys, role)}
        if weight is not None and role == ASSISTANT:
            message["weight"] = weight
        if role == SYSTEM and self.messages:
            self.messages.insert(0, message)
        else:
            self.messages.append(message)

    def add_all(self, given: Any, key: str, context_only: bool = False) -> None:
        """The turns under a key of the record: a list of objects, or one text.

        Args:
            context_only: the assistant's among them are not learnt.
        """
        if not isinstance(given, list):
            raise self.wrong(f'"{key}" is {as_found(given)}, expected a list of messages')
        for n, message in enumerate(given):
            at = f'"{key}" item {n + 1}'
            if not isinstance(message, dict):
                raise self.wrong(f"{at} is {as_found(message)}, expected an object")
            role = self.role(message, at)
            content = next((k for k in ("content", "value", "text") if k in message), "")
            if not content or message[content] in (None, []):
                called = first_filled(message, ("tool_calls", "function_call"))
                what = "calls a tool" if called else "has no content"
                raise self.wrong(f"{at} ({role}) {what}; expected text or a list of parts")
            weight = 0 if context_only else self._weight(message, at)
            self._add_with_media(message, role, content, [key, str(n)], weight)

    def _add_with_media(
        self, message: Values, role: str, key: str, keys: list[str], weight: int | None
    ) -> None:
        """A turn with the media under keys of its own, which stand in front where no tag does."""
        refuse_videos(message, self.origin)
        found = {m.name: k for m in MEDIA.values() if (k := media_key(message, m))}
        own = {k: located_all(message[v], [*keys, v], self.origin) for k, v in found.items()}
        beside_it = self.left
        self.left = {**beside_it, **own}
        self.add(role, message[key], [*keys, key], weight)
        parts = [{"type": k, "path": path} for k in own for path in self.left[k]]
        self.left = {**self.left, **{k: beside_it.get(k, []) for k in own}}
        if parts and role != USER:
            raise self.wrong(
                f"{'.'.join(keys)} ({role}) has {one_of(own)}; media stand in what the user says"
            )
        if parts:
            content = self.messages[-1]["content"]
            text = [{"type": "text", "text": content}] if isinstance(content, str) else content
            self.messages[-1]["content"] = [*parts, *text]

    def role(self, message: Values, at: str) -> str:
        """The role of a message by our name; raises UserError."""
        given = message.get("role", message.get("from"))
        if not isinstance(given, str):
            raise self.wrong(f"{at}: its role is {as_found(given)}, expected {one_of(ROLES)}")
        name = given.strip().casefold()
        if name in TOOLS:
            raise self.wrong(
                f"{at} is of the role {quoted(given)}, and what tools say is not read; leave such "
                "records out"
            )
        if name not in _ROLE:
            known = one_of(dict.fromkeys([*ROLES, "human", "gpt"]))
            raise self.wrong(f"{at}: its role is {quoted(given)}, expected one of {known}")
        return _ROLE[name]

    def _weight(self, message: Values, at: str) -> int | None:
        key = first_filled(message, ("weight", "loss"))
        if not key:
            return None
        if message[key] not in (0, 1):
            raise self.wrong(f'{at}: "{key}" is {as_found(message[key])}, expected 0 or 1')
        return int(message[key])

    def _content(self, given: Any, keys: Sequence[str], role: str) -> Any:
        if isinstance(given, str):
            return self._tagged(given) if role == USER else given
        if not isinstance(given, list):
            raise self.wrong(f"{'.'.join(keys)} is {as_found(given)}, expected text or a list")
        parts = [self._part(part, [*keys, str(n)], role) for n, part in enumerate(given)]
        if all(part["type"] == "text" for part in parts) and len(parts) == 1:
            return parts[0]["text"]
        return parts

    def _tagged(self, text: str) -> str:
        """A text whose tags are ours, each for the next medium of its kind."""
        if "<" not in text:
            return text
        text = _SPEECH.sub(r"<audio>\1</audio>", text)
        names, met = dict(_tag_names()), set(self.placed)

        def place(found: re.Match[str]) -> str:
            name = found[3] or names[found[1]]
            if not found[2] and name in self.single and name in met:
                return ""
            if path := found[2] or self._next(name):
                self.placed.setdefault(name, []).append(path)
            return f"<{name}>"

        return _places(_tag_names()).sub(place, text)

    def _next(self, name: str) -> str:
        left = self.left.get(name)
        return left.pop(0) if left else ""

    def _numbered(self, name: str, index: Any) -> str:
        """The medium that a part names by its number; "" if it names none."""
        listed = self.listed.get(name, [])
        if not isinstance(index, int) or not 0 <= index < len(listed):
            return ""
        if (path := listed[index]) in self.left.get(name, []):
            self.left[name].remove(path)
        return path

    def join_media(self) -> None:
        """Joins two user turns in a row of which one is media alone, as OpenAI writes them."""
        joined: list[Values] = []
        for turn in self.messages:
            before = joined[-1] if joined else {"role": ""}
            both = (before, turn)
            if all(t["role"] == USER for t in both) and any(map(_is_media_alone, both)):
                joined[-1] = {**before, "content": [*_as_parts(before), *_as_parts(turn)]}
            else:
                joined.append(turn)
        self.messages = joined

    def _part(self, part: Any, keys: Sequence[str], role: str) -> Values:
        """A typed part as ours."""
        at = ".".join(keys)
        if isinstance(part, str):
            return {"type": "text", "text": self._tagged(part)}
        if not isinstance(part, dict):
            raise self.wrong(f"{at} is {as_found(part)}, expected an object")
        kind = part.get("type") or first_filled(part, ("text", *MEDIA))
        if not isinstance(kind, str):
            raise self.wrong(f'{at}: its "type" is {as_found(kind)}, expected text')
        if kind in _TEXTS:
            text = as_text(part.get("text"))
            if not isinstance(text, str):
                raise self.wrong(f'{at}: its "text" is {as_found(text)}, expected text')
            return {"type": "text", "text": self._tagged(text) if role == USER else text}
        for medium in MEDIA.values():
            if kind in {*keys_of(medium), f"input_{medium.name}"}:
                return {"type": medium.name, "path": self._path(part, medium, kind, keys)}
        known = one_of(["text", *(t for m in MEDIA for t in (m, f"{m}_url", f"input_{m}"))])
        raise self.wrong(f"{at} is of the type {quoted(kind)}, expected one of {known}")

    def _path(self, part: Values, medium: Medium, kind: str, keys: Sequence[str]) -> str:
        """Where the medium of a typed part is: in it, or the next one beside the messages."""
        key = first_filled(part, (kind, f"input_{medium.name}", *keys_of(medium), *_URLS))
        if not key:
            if path := self._numbered(medium.name, part.get("index")) or self._next(medium.name):
                return path
            raise self.wrong(
                f"{'.'.join(keys)} names no file, and the record lists no more media for it under "
                f'"{beside(medium)}"'
            )
        value, within = part[key], [*keys, key]
        if isinstance(value, dict) and (inner := first_filled(value, _URLS)):
            value, within, key = value[inner], [*within, inner], inner
        if key in _ENCODED and isinstance(value, str):
            return inside(within)
        return located(value, within, self.origin)

    def native(self) -> Values:
        """The turns with the media that they place, and in front those that nothing places."""
        found: Values = {}
        for name in {**self.placed, **self.left}:
            if paths := [*self.placed.get(name, []), *self.left.get(name, [])]:
                found[name] = paths
        roles = [message["role"] for message in self.messages]
        plain = all(isinstance(m["content"], str) and "weight" not in m for m in self.messages)
        if plain and roles in ([ASSISTANT], [USER, ASSISTANT]):
            question = self.messages[0]["content"] if len(roles) == 2 else ""
            asked = {"question": question} if question.strip() else {}
            return {**found, **asked, "answer": self.messages[-1]["content"]}
        return {**found, "messages": self.messages}


def _as_parts(turn: Values) -> list[Values]:
    content = turn["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _is_media_alone(turn: Values) -> bool:
    return all(part["type"] != "text" for part in _as_parts(turn))
