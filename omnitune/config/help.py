"""``--help``: each option with the type of its value or its choices, what it does, its default."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import RootModel
from pydantic.fields import FieldInfo

from omnitune.config.arguments import fields_of, option, value_type
from omnitune.config.base import Config, is_config

ASKED = ("-h", "--help")
LEFT = 30  # widest column of options; a longer option has its text below
WIDTHS = (50, 110)  # of the whole
DEFAULT = "[default: "
NAMES = {
    int: "INT",
    float: "NUMBER",
    str: "TEXT",
    Path: "PATH",
    list[str]: "[TEXT,...]",
    Any: "VALUE",
}
BOTH_SPELLINGS = (
    "Options may be written with - or with _ (--data-dir or --data_dir), and as --NAME=VALUE."
)

Row = tuple[str, str]  # an option with its value, and its text


def asks_for_help(arguments: Iterable[str]) -> bool:
    """Whether ``-h`` or ``--help`` is given."""
    return any(word in ASKED for word in arguments)


def help_text(
    command: str, about: str, sections: Mapping[str, type[Config]], note: str = ""
) -> str:
    """The help of a subcommand, as wide as the terminal.

    Args:
        about: what the command does.
        sections: the options, by title.
        note: what else is to be known.
    """
    usage = [f"usage: omnitune {command}"]
    blocks = []
    for title, cls in sections.items():
        fields = fields_of(cls).items()
        usage += [_option_name(cls, key, field) for key, field in fields if field.is_required()]
        blocks.append(f"{title}:\n{aligned(option_rows(cls))}")
    blocks[-1] += "\n" + aligned([("-h, --help", "show this list")])
    words = " ".join([*usage, "[options]"])
    texts = filter(None, (about, note, BOTH_SPELLINGS))
    paragraphs = ["\n".join(_wrap(text, _width())) for text in texts]
    return "\n\n".join([words, paragraphs[0], *blocks, *paragraphs[1:]])


def option_rows(cls: type[Config]) -> list[Row]:
    """A row for each option of a configuration, and for each key of an object within."""
    rows: list[Row] = []
    for key, field in fields_of(cls).items():
        kind = value_type(field)
        if get_origin(kind) is Literal and len(get_args(kind)) == 1:
            continue  # a mark in the file, which has no other value
        rows.append((_option_name(cls, key, field), _text(cls, key)))
        inner = get_args(kind)[-1] if get_origin(kind) in (list, dict) else kind
        if is_config(inner):
            rows += [
                (f"    {name} {_value_name(inner_field)}", _text(inner, name))
                for name, inner_field in fields_of(inner).items()
            ]
    return rows


def aligned(rows: Iterable[Row], left: int = LEFT) -> str:
    """Rows in two columns, the second wrapped to the terminal's width."""
    lines = []
    for name, text in rows:
        first, *more = _wrap(text, _width() - left)
        if len(name) + 4 > left:
            lines += [f"  {name}", " " * left + first]
        else:
            lines.append(f"  {name}".ljust(left) + first)
        lines += [" " * left + line for line in more]
    return "\n".join(lines)


def _width() -> int:
    low, high = WIDTHS
    return min(high, max(low, shutil.get_terminal_size().columns))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _option_name(cls: type[Config], key: str, field: FieldInfo) -> str:
    """An option with its value, as the help has it."""
    kind, value = value_type(field), _value_name(field)
    if key == cls.positional:
        return value
    if kind is bool:
        return option(["[no-]" * (field.default is not False) + key])
    if value.startswith("{") and ": " in value:  # a mapping, each key of which is an option
        return f"{option([key])}.{value[1:-1].replace(':', '')}"
    return f"{option([key])} {value}"


def _value_name(field: FieldInfo) -> str:
    """What stands for the value of a field, such as ``INT``, ``{on,off}``, ``{KEY: NUMBER}``."""
    return field.title or _type_name(value_type(field))


def _type_name(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        titles = [mark.title for mark in inner[1:] if isinstance(mark, FieldInfo) and mark.title]
        return titles[0] if titles else _type_name(inner[0])
    if is_config(kind):
        return "{KEY: VALUE}"
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return _type_name(kind.model_fields["root"].annotation)
    if origin is dict:
        return "{" + ": ".join(map(_type_name, inner)) + "}"
    if origin is Literal:
        return f"{{{','.join(map(str, inner))}}}"
    if origin is list and get_origin(inner[0]) is Literal:
        return f"{_type_name(inner[0])},..."
    return NAMES.get(kind, "JSON")


def _text(cls: type[Config], key: str) -> str:
    """What an option does, and its default unless the description has that."""
    field = fields_of(cls)[key]
    parents = (fields_of(base) for base in cls.__mro__ if issubclass(base, Config))
    texts = (fields[key].description for fields in parents if key in fields)
    text = " ".join(next(filter(None, texts), "").split())
    if field.is_required():
        return f"{text} [required]"
    if DEFAULT in text:
        return text
    return f"{text} {DEFAULT}{_shown(field.default)}]"


def _shown(value: Any) -> str:
    if isinstance(value, RootModel):
        return ", ".join(f"{name} {weight:g}" for name, weight in value.root.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None or value in ("", {}) else str(value)
