"""The tags <image> and <audio>: they say where in a user turn a record's media stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omnitune.media.registry import MEDIA
from omnitune.sample import Again, ContentPart, Described, Media, Message, Text, UserError

# A tag as it should be, or as it is often written elsewhere: <IMAGE>, <image 1>, <|image|>,
# <image/>, <image_placeholder>. After a backslash the letters themselves are meant.
_NUMBERED = r"(?:[ _-]?(?:\d+|pad|token|placeholder))?"
_TAG = re.compile(rf"(\\?)(<\|?/?\s*({'|'.join(MEDIA)}){_NUMBERED}\s*/?\|?>)", re.IGNORECASE)

# Makes an error that says in which record.
Wrong = Callable[[str], UserError]


def cut(text: str) -> Iterator[tuple[str, str]]:
    """A text cut at its tags: pieces of text, and tags with the modality that they name."""
    plain, position = "", 0
    for tag in _TAG.finditer(text) if "<" in text else ():
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


def plain(text: str, at: str, wrong: Wrong) -> str:
    """A text in which no medium can stand; a tag in it is refused.

    The model would be told, or learn to say, the letters of the tag.
    """
    pieces = []
    for piece, name in cut(text):
        if name:
            raise wrong(f"{at} holds {piece}, but tags stand in what the user says; {_mend(piece)}")
        pieces.append(piece)
    return "".join(pieces)


def _mend(tag: str) -> str:
    return f'take it off, or write "\\\\{tag}" if these letters are meant'


class Placing:
    """Puts what a record is about where its tags say, and where none does in front.

    Args:
        wrong: makes the error for this record.
        shown: by modality, the media, or what is told in their place.
        independent: each question is asked alone: a tag in each of them means the same medium.
    """

    def __init__(
        self, wrong: Wrong, shown: Mapping[str, Media | Described], independent: bool
    ) -> None:
        self.wrong, self.shown, self.independent = wrong, shown, independent

    def messages(self, turns: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The messages of turns with ``role``, ``content``, ``at`` and, of answers, their group.

        Raises:
            UserError: a tag stands for a medium that the record lacks, or has shown already.
        """
        messages, first = [], -1
        placed: set[str] = set()
        for n, turn in enumerate(turns):
            parts: tuple[ContentPart, ...]
            if turn["role"] == "user":
                earlier = set(self.shown) if self.independent and first >= 0 else set()
                first = n if first < 0 else first
                parts = self._user_parts(turn, placed, earlier)
            else:
                text = plain(turn["content"], turn["at"], self.wrong)
                parts = (Text(text),) if text.strip() else ()
            group = turn.get("kind", ""), turn.get("task", ""), turn.get("weight", 1)
            messages.append(Message(turn["role"], parts, *group))
        opening = [part for name, part in self.shown.items() if name not in placed]
        if opening:
            parts = (*opening, *messages[first].parts)
            messages[first] = Message("user", parts)
        return messages

    def _user_parts(
        self, turn: Mapping[str, Any], placed: set[str], earlier: set[str]
    ) -> tuple[ContentPart, ...]:
        """A user turn's parts; adds the media in it to ``placed``.

        Args:
            earlier: what independent questions before this one have shown.
        """
        parts: list[ContentPart] = []
        here = set() if earlier else placed
        for piece, name in cut(turn["content"]):
            if name:
                self._check(piece, name, here, turn["at"])
                here.add(name)
                part = self.shown[name]
                parts.append(Again(part) if name in earlier else part)
            elif piece.strip():
                parts.append(Text(piece))
        return tuple(parts)

    def _check(self, tag: str, name: str, here: set[str], at: str) -> None:
        if name not in self.shown:
            raise self.wrong(f'{at} holds {tag}, but the record has no "{name}"; {_mend(tag)}')
        if tag != f"<{name}>":
            raise self.wrong(f"{at} holds {tag} (did you mean <{name}>?); {_mend(tag)}")
        if name in here:
            raise self.wrong(
                f"{at} holds {tag} once more, but the record has one {name}; {_mend(tag)}"
            )
