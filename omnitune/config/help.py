"""``--help``: each option with the type of its value or its choices, what it does, its default."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import RootModel
from pydantic.fields import FieldInfo

from omnitune.config.arguments import fields_of, option, value_type
from omnitune.config.base import C, Config, is_config
from omnitune.config.settings import load_config

ASKED = ("-h", "--help")
LEFT = 30  # widest column of options; a longer option has its text below
WIDTHS = (50, 110)  # of the whole
DEFAULT, NO_BREAK = "[default: ", "\u00a0"
NAMES = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}
BOTH_SPELLINGS = (
    "Options may be written with - or with _ (--{0}-{1} or --{0}_{1}), and as --NAME=VALUE."
)

Row = tuple[str, str]  # an option with its value, and its text


class HelpAsked(Exception):
    """The command line asks for help, which is the text of this exception."""


def read_options(command: str, cls: type[C], arguments: Sequence[str], about: str) -> C:
    """The options of a subcommand that has no configuration file.

    Raises:
        HelpAsked: they are to be listed.
        UserError: lists every mistake at once.
    """
    if asks_for_help(arguments):
        raise HelpAsked(help_text(command, about, {"Options": cls}))
    return load_config(cls, None, list(arguments))


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
        usage += [_usage(cls, key, field) for key, field in fields_of(cls).items()]
        rows = option_rows(cls)
        blocks.append(f"{title}:\n{aligned(rows)}")
    blocks[-1] += "\n" + aligned([("-h, --help", "show this list")])
    words = " ".join([*filter(None, usage), "[options]"])
    closing = BOTH_SPELLINGS.format("data", "dir")
    paragraphs = ["\n".join(_wrap(text, _width())) for text in (about, note, closing) if text]
    return "\n\n".join([words, paragraphs[0], *blocks, *paragraphs[1:]])


def option_rows(cls: type[Config]) -> list[Row]:
    """A row for each option of a configuration, and for each key of the objects in a list."""
    rows: list[Row] = []
    for key, field in fields_of(cls).items():
        kind = value_type(field)
        if get_origin(kind) is Literal and len(get_args(kind)) == 1:
            continue  # a mark in the file, which has no other value
        rows.append((_option_name(cls, key, field), _text(cls, key)))
        if get_origin(kind) is list and is_config(inner := get_args(kind)[0]):
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
    """The lines of a text; a default begins on the line of its label, if that has the room."""
    tied = text.replace(DEFAULT, DEFAULT.replace(" ", NO_BREAK))
    tied = tied if max(map(len, tied.split(" "))) <= width else text
    lines = textwrap.wrap(tied, width, break_on_hyphens=False, break_long_words=False)
    return [line.replace(NO_BREAK, " ") for line in lines]


def _usage(cls: type[Config], key: str, field: FieldInfo) -> str:
    """What the usage line says of a field: nothing, unless it has to be given."""
    return _option_name(cls, key, field) if field.is_required() else ""


def _option_name(cls: type[Config], key: str, field: FieldInfo) -> str:
    """An option with its value, as the help has it."""
    kind, value = value_type(field), _value_name(field)
    if key == cls.positional:
        return value
    if kind is bool:
        return option(["[no-]" * bool(field.default) + key])
    if value.startswith("{") and ": " in value:  # a mapping, each key of which is an option
        return f"{option([key])}.{value[1:-1].replace(':', '')}"
    return f"{option([key])} {value}"


def _value_name(field: FieldInfo) -> str:
    """What stands for the value of a field, such as ``INT``, ``{on,off}``, ``{KEY: NUMBER}``."""
    kind = value_type(field)
    if field.title:
        return field.title
    if isinstance(kind, type) and issubclass(kind, RootModel):
        kind = kind.model_fields["root"].annotation
    origin, inner = get_origin(kind), get_args(kind)
    if origin is dict:
        return "{" + ": ".join(map(_titled, inner)) + "}"
    if origin is Literal:
        return f"{{{','.join(map(str, inner))}}}"
    if origin is list and get_origin(inner[0]) is Literal:
        return f"{{{','.join(map(str, get_args(inner[0])))}}},..."
    if origin is list and inner[0] is str:
        return "[TEXT,...]"
    return NAMES.get(kind, "JSON")


def _titled(kind: Any) -> str:
    """What stands for a key or a value of a mapping: the title of its type, if it has one."""
    if get_origin(kind) is dict:
        return "{" + ": ".join(map(_titled, get_args(kind))) + "}"
    plain, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    titles = [mark.title for mark in marks if isinstance(mark, FieldInfo) and mark.title]
    return titles[0] if titles else NAMES.get(plain, "VALUE")


def _text(cls: type[Config], key: str) -> str:
    """What an option does, and its default unless the description has that."""
    field = fields_of(cls)[key]
    parents = (fields_of(base) for base in cls.__mro__ if issubclass(base, Config))
    texts = (fields[key].description for fields in parents if key in fields)
    text = next(filter(None, texts), "")
    if field.is_required():
        return f"{text} [required]"
    if DEFAULT in text:
        return text
    default = f"{DEFAULT}{_shown(field.default)}]"
    return f"{text} {default}"


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
