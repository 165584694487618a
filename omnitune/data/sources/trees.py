"""Turns without roles, one after the other, and trees of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import ASSISTANT, USER, Reader
from omnitune.data.sources.parts import ForeignDialect, kept

LISTS = ("conversations", "data", "dialogue", "dialog", "conversation", "turns")
# Beside any of these such a list is something else, and no talk.
_OTHERS = frozenset(
    ("messages", "question", "answer", "answers", "text", "sentence", "transcript", "caption")
    + ("label",)
)
TREE, ROOT, REPLIES, PARENT = "message_tree_id", "prompt", "replies", "parent_id"
_ROLES = {"prompter": USER, "assistant": ASSISTANT}


class TurnsDialect(ForeignDialect):
    """A list of texts: the user's and the assistant's, in turn."""

    name = "turns"
    title = "texts of user and assistant in turn"
    reads = LISTS

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have one list of texts, and no words of their own."""
        return all(len(_lists(r)) == 1 and _OTHERS.isdisjoint(r) for r in records)

    def native(self, record: Values, origin: Origin) -> Values:
        """The user speaks first."""
        if len(found := _lists(record)) != 1:
            raise origin.wrong(
                f"has {len(found)} lists of texts, expected one ({', '.join(LISTS)})"
            )
        reader = Reader(record, origin)
        for n, text in enumerate(record[found[0]]):
            reader.add((USER, ASSISTANT)[n % 2], text, [found[0], str(n)])
        return {**kept(record), **reader.native()}


class OasstDialect(ForeignDialect):
    """OpenAssistant's trees: of the replies to a turn the best is followed."""

    name = "oasst"
    title = "OpenAssistant trees"
    reads = (ROOT,)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all are trees, or messages that belong to some."""
        return all(TREE in record for record in records)

    def native(self, record: Values, origin: Origin) -> Values:
        """The talk along the best replies, up to the assistant's last."""
        turn = record.get(ROOT)
        if PARENT in record and ROOT not in record:
            raise origin.wrong(
                'is one message of a tree, which "parent_id" leads through; give the file of whole '
                "trees in place of this one (such as 2023-04-12_oasst_ready.trees.jsonl.gz)"
            )
        reader, turns = Reader({}, origin), list[Values]()
        while isinstance(turn, dict):
            turns.append(turn)
            replies = turn.get(REPLIES)
            known = [r for r in replies if isinstance(r, dict)] if isinstance(replies, list) else []
            turn = min(known, key=_rank, default=None)
        while turns and _ROLES.get(str(turns[-1].get("role"))) == USER:
            turns.pop()
        for n, said in enumerate(turns):
            role = _ROLES.get(str(said.get("role")))
            if role is None:
                raise origin.wrong(f'"role" is {as_found(said.get("role"))}, expected prompter')
            reader.add(role, said.get("text"), [ROOT, str(n)])
        about = {"id": record.get(TREE), "lang": turns[0].get("lang") if turns else None}
        return {**kept(about), **reader.native()}


def _rank(reply: Values) -> tuple[bool, int]:
    rank = reply.get("rank")
    return (False, rank) if isinstance(rank, int) else (True, 0)


def _lists(record: Values) -> list[str]:
    return [key for key in LISTS if _is_texts(record.get(key))]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)
