"""Our records as turns of text and media, which the dialects of others write down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from omnitune.config.settings import quoted
from omnitune.containers.address import INSIDE
from omnitune.data.sources.base import Values
from omnitune.data.sources.conversation import ASSISTANT, SYSTEM, USER
from omnitune.data.tags import cut, escape
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError, join_texts

KEPT = (
    "id",
    "split",
    "language",
    "kind",
    "task",
    "difficulty",
)  # keys that others have in the same sense


class Shown(NamedTuple):
    """A medium that stands in a turn."""

    kind: str
    path: str


class Said(NamedTuple):
    """One turn: its texts and media in order; ``weight`` as in our messages."""

    role: str
    parts: list[str | Shown]
    weight: int

    @property
    def text(self) -> str:
        """Its text, of a turn that shows nothing."""
        return join_texts(part for part in self.parts if isinstance(part, str))


class Speech:
    """A record of ours as turns; media that no tag places stand in front of the first question.

    Args:
        title: of the dialect that is to say it, for errors.

    Raises:
        UserError: the record cannot be said so.
    """

    def __init__(self, record: Mapping[str, Any], title: str) -> None:
        self.title = title
        self.kept = {key: record[key] for key in KEPT if key in record}
        self.left = {
            name: _paths(record[name]) for name in MEDIA if record.get(name) not in (None, [])
        }
        self.turns = self._turns(record)
        front = [Shown(name, path) for name, paths in self.left.items() for path in paths]
        first = next(n for n, turn in enumerate(self.turns) if turn.role == USER)
        self.turns[first] = self.turns[first]._replace(parts=[*front, *self.turns[first].parts])
        if not self.media and any(medium.caption_key in record for medium in MEDIA.values()):
            raise self.error("words in place of a medium")
        for turn in self.turns:
            self._check(turn)

    def error(self, what: str) -> UserError:
        """Such as "alpaca cannot say a picture"."""
        return UserError(f"{self.title} cannot hold {what}; convert to another format")

    def _turns(self, record: Mapping[str, Any]) -> list[Said]:
        if "messages" in record:
            given = record["messages"]
            return [self._turn(m["role"], m["content"], m.get("weight", 1)) for m in given]
        turns, listed = [], self.left
        for n, pair in enumerate(record.get("qa", [record])):
            # Later questions show again what stands in the conversation already.
            self.left = listed if not n else {}
            turns.append(self._turn(USER, pair.get("question", ""), 1, again=n > 0))
            turns.append(self._turn(ASSISTANT, pair["answer"], 1))
        self.left = listed
        return turns

    def _turn(self, role: str, content: Any, weight: int, again: bool = False) -> Said:
        parts: list[str | Shown] = []
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if part["type"] == "text":
                self._add_text(parts, part["text"], again)
            else:
                parts.append(Shown(part["type"], part["path"]))
        return Said(role, parts, weight)

    def _add_text(self, parts: list[str | Shown], text: str, again: bool) -> None:
        for piece, kind in cut(text):
            left = self.left.get(kind)
            if kind and left:
                parts.append(Shown(kind, left.pop(0)))
            elif kind and not again:
                raise self.error(f"{piece}, for which the record has no medium")
            elif not kind and parts and isinstance(parts[-1], str):
                parts[-1] = join_texts([parts[-1], piece])
            elif not kind:
                parts.append(piece)

    def _check(self, turn: Said) -> None:
        for part in turn.parts:
            if isinstance(part, Shown) and part.path.startswith(INSIDE):
                raise self.error(f"a medium that lies in the record itself ({quoted(part.path)})")

    @property
    def media(self) -> dict[str, list[str]]:
        """By kind, all paths in the order in which they stand."""
        found: dict[str, list[str]] = {}
        for turn in self.turns:
            for part in turn.parts:
                if isinstance(part, Shown):
                    found.setdefault(part.kind, []).append(part.path)
        return found

    def apart(self) -> tuple[str, list[Said]]:
        """The system's text, and the turns without it."""
        if self.turns[0].role == SYSTEM:
            return self.turns[0].text, self.turns[1:]
        return "", self.turns

    def all_learnt(self) -> None:
        """Refuses answers that are context only; raises UserError."""
        if any(not turn.weight for turn in self.turns if turn.role == ASSISTANT):
            raise self.error('answers with "weight": 0')


def tagged(turn: Said, edge: str = "") -> str:
    """A turn as one text with tags.

    Args:
        edge: stands between the text and tags at its ends.

    Raises:
        UserError: a text ends in a backslash, after which a tag would be none.
    """
    pieces = ["" if isinstance(p, Shown) else escape(p) for p in turn.parts]
    texts = [n for n, part in enumerate(turn.parts) if not isinstance(part, Shown)]
    for n, part in enumerate(turn.parts):
        if isinstance(part, Shown):
            if n and pieces[n - 1].endswith("\\"):
                raise UserError(f"a text ends in a backslash before {part.path}; take it off")
            before = edge if texts and n > texts[-1] else ""
            after = edge if texts and n < texts[0] else ""
            pieces[n] = f"{before}<{part.kind}>{after}"
    return "".join(pieces)


def typed(turn: Said, medium: Callable[[Shown], Values]) -> list[Values]:
    """A turn as typed parts."""
    return [
        medium(part) if isinstance(part, Shown) else {"type": "text", "text": escape(part)}
        for part in turn.parts
    ]


def one_or_all(paths: Sequence[str]) -> Any:
    """A path alone, or a list of several."""
    return paths[0] if len(paths) == 1 else list(paths)


def _paths(given: Any) -> list[str]:
    return list(given) if isinstance(given, list) else [given]
