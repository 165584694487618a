"""The entries of LLaMA-Factory's ``dataset_info.json``: formatting, columns and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnitune.config.settings import as_found
from omnitune.data.sources.alpaca import AlpacaDialect
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.chats import TURNS, ShareGptDialect
from omnitune.data.sources.readdressed import RenamedDialect
from omnitune.sample import UserError

# By LLaMA-Factory's name for a column, ours for it in the two formattings.
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_BESIDE = ("system", "history", "images", "audios", "videos", "tools", "kto_tag")
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}


class TaggedDialect(ShareGptDialect):
    """ShareGPT with other names for roles and keys of a turn.

    Args:
        tags: by LLaMA-Factory's name for a tag, that of these records.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self.keys = {tags.get(tag, usual): usual for tag, usual in list(_TAGS.items())[:2]}
        self.roles = {tags.get(tag, usual): usual for tag, usual in list(_TAGS.items())[2:]}

    def native(self, record: Values, origin: Origin) -> Values:
        """The conversation by its usual names."""
        turns = record.get(TURNS)
        if isinstance(turns, list):
            record = {**record, TURNS: [self._usual(turn) for turn in turns]}
        return super().native(record, origin)

    def _usual(self, turn: Any) -> Any:
        if not isinstance(turn, dict):
            return turn
        found = {self.keys.get(key, key): value for key, value in turn.items()}
        role = found.get("from")
        return {**found, "from": self.roles.get(role, role) if isinstance(role, str) else role}


def dialect_of_entry(entry: Any, where: str) -> Dialect:
    """The dialect of the records that an entry of ``dataset_info.json`` describes.

    Args:
        where: file and name of the entry, for errors.

    Raises:
        UserError: it is none that is known.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{where}: is {as_found(entry)}, expected an object")
    if entry.get("ranking"):
        raise UserError(f"{where}: holds preferences (ranking), which are not trained on here")
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    for key, given in (("columns", columns), ("tags", tags)):
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise UserError(f'{where}: "{key}" is {as_found(given)}, expected an object of names')
    formatting = entry.get("formatting", "alpaca")
    if formatting not in ("alpaca", "sharegpt"):
        raise UserError(
            f'{where}: "formatting" is {as_found(formatting)}, expected "alpaca" or "sharegpt"'
        )
    usual = _ALPACA if formatting == "alpaca" else {"messages": TURNS}
    names = {usual.get(key, key): name for key, name in columns.items()}
    known = {*usual.values(), *_BESIDE}
    renamed = {key: name for key, name in names.items() if key in known and key != name}
    inner = AlpacaDialect() if formatting == "alpaca" else TaggedDialect(tags)
    return RenamedDialect(inner, renamed) if renamed else inner
