"""The tags <image> and <audio>: they say where in a user turn a record's media stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from omnitune.media.registry import MEDIA
from omnitune.sample import BackReference, ContentPart, Described, Media, Message, Text, UserError

# Makes an error that says in which record.
Wrong = Callable[[str], UserError]


class Written(NamedTuple):
    """Text of a message, and what to call its place in an error."""

    text: str
    at: str


@dataclass
class Turn:
    """A message as its record has it: text in which tags may stand, and media between it.

    Attributes:
        values: the object that it is from. at: what to call that in an error.
        weight, kind, task, references, choices: of an answer, as of ``Message``.
    """

    role: str
    content: Sequence[Written | Media]
    values: Mapping[str, Any]
    at: str
    weight: int = 1
    kind: str = ""
    task: str = ""
    references: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()


@lru_cache(maxsize=8)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Finds a tag as it should be, or as it is often written elsewhere.

    Such as <IMAGE>, <image 1>, <|image|>, <image/>, <image_placeholder>. After a backslash the
    letters themselves are meant.
    """
    numbered = r"(?:[ _-]?(?:\d+|pad|token|placeholder))?"
    either = "|".join(map(re.escape, names))
    return re.compile(rf"(\\?)(<\|?/?\s*({either}){numbered}\s*/?\|?>)", re.IGNORECASE)


def cut(text: str) -> Iterator[tuple[str, str]]:
    """A text cut at its tags: pieces of text, and tags with the modality that they name."""
    plain, position = "", 0
    for tag in _pattern(tuple(MEDIA)).finditer(text) if "<" in text else ():
        plain += text[position : tag.start()]
        position = tag.end()
        if tag[1]:
            plain += tag[2]
            continue
        if plain:
            yield plain, ""
        yield tag[2], tag[3].lower()
        plain = ""
    if plain or position < len(text):
        yield plain + text[position:], ""


def escape(text: str) -> str:
    """A text written so that :func:`cut` finds no tag in it, whatever its letters are."""
    return _pattern(tuple(MEDIA)).sub(r"\\\g<0>", text) if "<" in text else text


def plain(text: str, at: str, wrong: Wrong) -> str:
    """A text in which no medium can stand; a tag in it is refused.

    The model would be told, or learn to say, the letters of the tag.
    """
    if "<" not in text:
        return text
    pieces = []
    for piece, name in cut(text):
        if name:
            raise wrong(f"{at} holds {piece}, but tags stand in what the user says; {_mend(piece)}")
        pieces.append(piece)
    return "".join(pieces)


def _mend(tag: str) -> str:
    return f'take it off, or write "\\\\{tag}" if these letters are meant'


def _placed(part: Media | Described, place: int) -> Media | Described:
    return part if part.place == place else replace(part, place=place)


class Placing:
    """Puts what a record is about where its tags say, and what has no tag in front.

    Args:
        wrong: makes the error for this record.
        shown: by modality, the media that the record lists, or what is told in their place. Tags
            stand for them in this order.
        independent: each question is asked alone: its tags begin with the first medium again.
    """

    def __init__(
        self, wrong: Wrong, shown: Mapping[str, Sequence[Media | Described]], independent: bool
    ) -> None:
        self.wrong, self.independent = wrong, independent
        place = count()
        self.shown: dict[str, list[Media | Described]] = {
            name: [_placed(part, next(place)) for part in parts] for name, parts in shown.items()
        }

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        """The messages of some turns.

        Raises:
            UserError: a tag stands where no medium can, or for more media than the record has.
        """
        messages, first = [], -1
        taken: dict[str, int] = {}
        for n, turn in enumerate(turns):
            if turn.role == "user":
                # All that the first of some independent questions shows comes back in the others.
                again = self.independent and first >= 0
                first = n if first < 0 else first
                parts = self._user_parts(turn, {} if again else taken, again)
            else:
                parts = self._text_parts(turn)
            answers = (turn.references, turn.choices)
            messages.append(Message(turn.role, parts, turn.kind, turn.task, turn.weight, *answers))
        opening = [
            part for name, parts in self.shown.items() for part in parts[taken.get(name, 0) :]
        ]
        if opening:
            messages[first] = Message("user", (*opening, *messages[first].parts))
        return messages

    def _text_parts(self, turn: Turn) -> tuple[ContentPart, ...]:
        """The parts of a turn in which no medium can stand."""
        texts = (plain(*piece, self.wrong) for piece in turn.content if isinstance(piece, Written))
        return tuple([Text(text) for text in texts if text.strip()])

    def _user_parts(
        self, turn: Turn, taken: dict[str, int], again: bool
    ) -> tuple[ContentPart, ...]:
        """A user turn's parts.

        Args:
            taken: by modality, how many of its media tags stand for so far; grows.
            again: the media stand in an earlier question already.
        """
        parts: list[ContentPart] = []
        for piece in turn.content:
            if isinstance(piece, Media):
                parts.append(piece)
                continue
            for text, name in cut(piece.text):
                if name:
                    part = self._next(text, name, taken, piece.at)
                    parts.append(BackReference(part) if again else part)
                elif text.strip():
                    parts.append(Text(text))
        return tuple(parts)

    def _next(self, tag: str, name: str, taken: dict[str, int], at: str) -> Media | Described:
        """What a tag stands for."""
        if name not in self.shown:
            raise self.wrong(f'{at} holds {tag}, but the record has no "{name}"; {_mend(tag)}')
        if tag != f"<{name}>":
            raise self.wrong(f"{at} holds {tag} (did you mean <{name}>?); {_mend(tag)}")
        there, place = self.shown[name], taken.get(name, 0)
        if place == len(there):
            held = f"one {name}" if len(there) == 1 else f'{len(there)} under "{name}"'
            raise self.wrong(f"{at} holds {tag} once more, but the record has {held}; {_mend(tag)}")
        taken[name] = place + 1
        return there[place]
