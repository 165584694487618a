"""The command line of every subcommand: ``--name value``, ``--name=value``, flags, plain words.

``--ckpt_dir`` and ``--ckpt-dir`` are the same option, and ``--data-mix.image-text`` is a key within
a setting.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omnitune.config.base import Config
from omnitune.sample import UserError

NONE = ("null", "None")

Given = tuple[list[str], Any]  # the path of keys, and the value


def option(path: Sequence[str]) -> str:
    """A path of keys as the command line has it."""
    return "--" + ".".join(path).replace("_", "-")


def fields_of(cls: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a configuration by key, which is a field's alias if it has one."""
    return {field.alias or name: field for name, field in cls.model_fields.items()}


def value_type(field: FieldInfo) -> Any:
    """The type of a field's values, ``None`` and marks aside."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        kind = kinds[0] if len(kinds) == 1 else kind
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _may_be_none(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def parse_arguments(cls: type[Config], arguments: Sequence[str]) -> list[Given]:
    """The settings that a command line gives, in its order.

    Raises:
        UserError: a word belongs to no option.
    """
    fields, words = fields_of(cls), deque(arguments)
    given: list[Given] = []
    plain: list[str] = []
    while words:
        word = words.popleft()
        if word.startswith("--"):
            key, value = _parse_option(fields, word, words)
            before = next((old for name, old in given if name == key), None)
            if isinstance(before, list) and isinstance(value, list):
                before += value
            else:
                given.append((key, value))
        elif cls.positional:
            plain.append(word)
        else:
            raise UserError(
                f"{word!r} is not an option; an option looks like {option([next(iter(fields))])} "
                "VALUE, and --help lists them all"
            )
    if not plain:
        return given
    if value_type(fields[cls.positional]) == list[Path]:
        return [*given, ([cls.positional], plain)]
    if len(plain) > 1:
        title = fields[cls.positional].title or cls.positional
        raise UserError(f"{plain[1]!r} is one word too many; expected {title} and options")
    return [*given, ([cls.positional], plain[0])]


def split_arguments(cls: type[Config], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts a command line in the options of a configuration, with their values, and the rest."""
    own: list[str] = []
    rest: list[str] = []
    into = rest
    for word in arguments:
        if word.startswith("--"):
            into = own if _key(word)[0] in fields_of(cls) else rest
        into.append(word)
    return own, rest


def _key(word: str) -> list[str]:
    """The path of keys that an option names."""
    return word[2:].partition("=")[0].replace("-", "_").split(".")


def _parse_option(fields: dict[str, FieldInfo], word: str, words: deque[str]) -> Given:
    """One option; takes its value off the words that follow."""
    _, equals, text = word.partition("=")
    key = _key(word)
    kind = value_type(fields[key[0]]) if key[0] in fields else None
    negated = fields.get(key[0].removeprefix("no_"))
    if not equals and kind is None and negated and value_type(negated) is bool:
        return [key[0].removeprefix("no_")], False
    texts = [text] if equals else []
    most = len(words) if kind == list[Path] else 1
    while not equals and words and len(texts) < most and not words[0].startswith("--"):
        texts.append(words.popleft())
    if not texts:
        return key, True
    if kind == list[Path]:
        return key, texts
    # No path is called null, where that is a value: a text may be.
    if len(key) == 1 and kind is Path and _may_be_none(fields[key[0]]) and texts[0] in NONE:
        return key, None
    as_text = len(key) == 1 and (kind in (str, Path) or get_origin(kind) is Literal)
    return key, texts[0] if as_text else _parse_value(texts[0])


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number too long, or too deep
        return {"True": True, "False": False, "None": None}.get(text, text)
