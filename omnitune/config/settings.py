"""Reads a configuration: a JSON file, then the command line, checked together and at once."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from omnitune.config.arguments import fields_of, option, parse_arguments
from omnitune.config.base import CHECKPOINTS, COMMAND_LINE, MISSING, C, Config, is_config
from omnitune.sample import UserError

_HALF_A_SIGN = re.compile("[\ud800-\udfff]")
UNKNOWN_NAME = "unknown_name"  # type of the problem of a key that is in no registry
# Plain words for pydantic's problems, by the beginning of their type.
SENTENCES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "int_": "must be a whole number",
    "float_": "must be a number",
    "bool_": "must be true or false",
    "string_": "must be a text",
    "list_": "must be a list",
    "tuple_": "must be a list",
    "dict_": "must be an object",
    "model_": "must be an object",
}


def load_config(cls: type[C], path: Path | None, arguments: list[str]) -> C:
    """Reads a configuration file, lays command-line overrides over it and checks the whole.

    Args:
        cls: the configuration class.
        path: JSON file, or None for defaults only.
        arguments: overrides such as ``["--learning-rate", "3e-4", "--data-mix.image-text", "1"]``.

    Raises:
        UserError: lists every unknown or out-of-range key of file and command line at once.
    """
    values = read_json_object(path) if path else {}
    origin = dict.fromkeys(values, str(path))
    for key, value in parse_arguments(cls, arguments):
        field = cls.model_fields.get(key[0])
        if len(key) > 1 and key[0] not in values and field and isinstance(field.default, BaseModel):
            values[key[0]] = field.default.model_dump()
        _assign(values, key, value)
        origin[".".join(key)] = COMMAND_LINE
        origin.setdefault(key[0], COMMAND_LINE)
    if "output_dir" in cls.model_fields and values.get("output_dir") is None and path:
        values["output_dir"] = str(CHECKPOINTS / path.stem)
    try:
        config = cls.model_validate(values)
    except ValidationError as error:
        lines = [_explain(cls, problem, origin, path) for problem in error.errors()]
        several = f"{len(lines)} problems:\n  "
        raise UserError(several * (len(lines) > 1) + "\n  ".join(lines)) from None
    config._origin = origin
    return config


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that must hold one object; a UserError names what is wrong."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: is a pipe or a device, expected a JSON file")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_key_once)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the examples are in configs/") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is not UTF-8 text; expected a JSON file, so save it as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
        ) from None
    except (RecursionError, ValueError) as error:  # too deep, or a number too long
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a JSON {json_kind(values)}, expected an object {{...}}")
    return values


class Repeated(dict[str, Any]):
    """A JSON object that gives a key twice; Python would keep the last without a word."""

    key = ""


def object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json``'s ``object_pairs_hook``: a dictionary, or :class:`Repeated`."""
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    repeated = Repeated(values)
    repeated.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeated


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = object_of_pairs(pairs)
    if isinstance(values, Repeated):
        raise ValueError(f"the key {quoted(values.key)} is given twice; keep one of them")
    return values


def json_kind(value: Any) -> str:
    """What a JSON value is, as JSON names it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {"number": int | float, "string": str, "list": list, "object": dict}
    return next(name for name, kind in kinds.items() if isinstance(value, kind))


def quoted(value: Any, most: int = 60) -> str:
    """A JSON value as its file would have it, cut short; signs that no terminal takes escaped."""
    text = json.dumps(value, ensure_ascii=False)
    if not text.isprintable() or not is_unicode(text):
        text = json.dumps(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def as_found(value: Any) -> str:
    """A JSON value that stands in place of what was expected, with its kind if that is the point.

    A text and the words ``null``, ``true`` and ``false`` speak for themselves.
    """
    kind = {"number": "a number", "list": "a list", "object": "an object"}.get(json_kind(value))
    return f"{quoted(value)} ({kind})" if kind else quoted(value)


def is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON's ``\\ud83d`` alone is half a sign."""
    return text.isascii() or not _HALF_A_SIGN.search(text)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like another; empty if none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), "")


def listed(name: object, known: Iterable[str]) -> str:
    """The known names, and which of them an unknown one may have meant."""
    near = nearest(str(name), known := list(known))
    return f"{', '.join(known) or 'none'}{f'; did you mean {near}?' if near else ''}"


def _assign(values: dict[str, Any], key: list[str], value: Any) -> None:
    for name in key[:-1]:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, dict) else {}
        values = values[name]
    values[key[-1]] = value


def _explain(cls: type[Config], problem: Any, origin: dict[str, str], file: Path | None) -> str:
    """One line for one of pydantic's problems: key, what was expected, what was found, where.

    What the command line gave is named as its option.
    """
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    key, kind = ".".join(path), problem["type"]
    place = origin.get(key) or origin.get(path[0] if path else "", "")
    typed = not any(part.isdecimal() for part in path) and (place == COMMAND_LINE or not file)
    suffix = f" ({place or file})" if not typed and (place or file) else ""
    if not path:  # a check of several keys together says which in its own words
        return str(problem["msg"]).removeprefix("Value error, ") + suffix

    def named(path: list[str]) -> str:
        return option(path) if typed else ".".join(path)

    if kind == "missing":
        field = fields_of(_inner_model(cls, path[:-1]))[path[-1]]
        name = field.title if key == cls.positional else named(path)
        return f"{name} is required: {field.description}"
    if kind in ("extra_forbidden", UNKNOWN_NAME):
        inner = _inner_model(cls, path[:-1])
        known = [*fields_of(inner), *(inner.own_options if typed and len(path) == 1 else ())]
        said = "unknown option" if typed else "unknown key"
        if kind == UNKNOWN_NAME:
            known, said = problem["ctx"]["known"].split(", "), problem["msg"]
        close = inner.other_names.get(path[-1]) or nearest(path[-1], known, cutoff=0.5)
        hint = f"; did you mean {named([*path[:-1], close])}?" if close else ""
        return f"{named(path)}: {said}{hint}{suffix}"
    said = next((s for start, s in SENTENCES.items() if kind.startswith(start)), problem["msg"])
    said = said.format(**problem.get("ctx", {})).removeprefix("Value error, ")
    found = "" if typed and said == MISSING else f", found {_shown(problem['input'])}"
    return f"{named(path)}: {said}{found}{suffix}"


def _shown(value: Any) -> str:
    """What was given: texts as pydantic quotes them, the rest as JSON has it."""
    try:
        return repr(value[:200]) if isinstance(value, str) else quoted(value, 200)
    except TypeError:  # a default, which no JSON gave
        return repr(value)


def _inner_model(cls: type[Config], path: list[str]) -> type[Config]:
    """The model that a path of keys (and places in lists) leads to."""
    for name in path:
        field = fields_of(cls).get(name)
        annotation = field.annotation if field else None
        models = [t for t in (annotation, *get_args(annotation)) if is_config(t)]
        cls = models[0] if models else cls
    return cls
