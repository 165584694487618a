"""The keys and values of one record, and the sentences on what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import Repeated, as_found, is_unicode, json_kind, nearest, quoted
from omnitune.data.place import Place
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.sources import Source, get_source

PAIR_KEYS = ("question", "answer", "answers", "choices", "kind", "task")
TURN_KEYS = ("role", "content")
ANSWER_KEYS = (*TURN_KEYS, "answers", "choices", "weight", "kind", "task")
TEXT_KEYS = ("type", "text")
# Keys that are the user's own, as are those that begin with "_".
FREE_KEYS = ("meta", "metadata")
# By our keys and roles, what other formats call them; for those of media see ``Medium.aliases``.
MEANT = {
    "messages": ("conversations", "conversation", "dialog", "dialogue", "turns"),
    "role": ("from",),
    "content": ("value", "text"),
    "question": ("instruction", "prompt", "query", "input"),
    "answer": ("output", "response", "completion", "target", "label"),
    "answers": ("references", "targets", "labels"),
    "choices": ("options", "candidates"),
    "path": ("url", "file"),
    "language": ("lang",),
    "transcript": ("transcription",),
    "kind": ("type", "category"),
    "weight": ("loss_weight",),
    "user": ("human",),
    "assistant": ("gpt", "bot", "model"),
}


class Fields:
    """One record: its place and its JSON value.

    Args:
        source: that it is of, or the name of a registered one.
        place: where it lies; None where only its number is known.
    """

    def __init__(
        self,
        path: Path,
        source: str | Source,
        number: int,
        values: Any,
        place: Place | None = None,
    ) -> None:
        self.path, self.of = path, get_source(source)
        self.source = self.of.name
        self.place = place or Place(number, path, number, 0, 0)
        self.number = self.place.number
        if not isinstance(values, dict):
            raise self.wrong(f"is a JSON {json_kind(values)}, expected an object")
        self.values: dict[str, Any] = values

    def wrong(self, what: str) -> UserError:
        """An error that says where."""
        return UserError(f"{self.path}: record {self.place.within + 1}: {what}")

    def check_keys(self, values: Mapping[str, Any], known: tuple[str, ...], at: str = "") -> None:
        """Refuses keys that nothing reads, and those that are given twice."""
        if isinstance(values, Repeated):
            raise self.wrong(f"{at}the key {quoted(values.key)} is given twice; keep one of them")
        others = [key for key in values if key not in known and key not in FREE_KEYS]
        if unknown := [key for key in others if not key.startswith("_")]:
            named = ", ".join(f"{quoted(key)}{hint(key, known)}" for key in unknown)
            raise self.wrong(
                f"{at}unknown key{'s' * (len(unknown) > 1)} {named}; known here: "
                f'{", ".join(known)}; keys of your own begin with "_" or stand under "meta"'
            )

    def required(self, values: Mapping[str, Any], key: str, at: str, expected: str = "text") -> Any:
        """The value under a key that has to be there."""
        if key not in values:
            raise self.wrong(f'{at}the key "{key}" is missing, expected {expected}')
        return values[key]

    def text(self, key: str, values: Mapping[str, Any] | None = None, at: str = "") -> str:
        """The text under a key; "" without it."""
        values = self.values if values is None else values
        if key not in values:
            return ""
        value = values[key]
        if key == "id" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.words(value, f'{at}"{key}"')

    def words(self, value: Any, at: str) -> str:
        """A value that has to be a text, and not a blank one."""
        blank = isinstance(value, str) and not value.strip()
        if not isinstance(value, str) or blank:
            empty = "; leave the key out where there is none" if blank or value is None else ""
            raise self.wrong(f"{at} is {as_found(value)}, expected text{empty}")
        return self.checked(value, at)

    def checked(self, text: str, at: str) -> str:
        """The text; refuses what cannot be written or is no text."""
        if not is_unicode(text):
            raise self.wrong(
                f"{at} holds half of a surrogate pair, such as \\ud83d alone: a sign was cut in "
                f"two where the text was cut; found {quoted(text)}"
            )
        if "\0" in text:
            raise self.wrong(f"{at} holds a NUL (\\u0000), which no text does; take it out")
        return text


def record_keys(source: Source) -> tuple[str, ...]:
    """The keys that a record of a source may have."""
    media = [key for medium in MEDIA.values() for key in (medium.name, medium.caption_key)]
    keys = ("id", *media, "messages", "qa", *PAIR_KEYS, "split", "difficulty", "language")
    return (*keys, *source.keys)


def hint(name: str, known: Sequence[str]) -> str:
    """The known name that may be meant by another, as a question."""
    name = name.casefold()
    ours = [word for word, others in MEANT.items() if name in others]
    for medium in MEDIA.values():
        if name in (medium.name, *medium.aliases):
            ours += [medium.name, "path"]  # of a part: {"type": "image", "image": ...}
    meant = next((word for word in ours if word in known), "") or nearest(name, known)
    return f" (did you mean {quoted(meant)}?)" if meant else ""
