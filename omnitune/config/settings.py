"""Reads a configuration: a JSON file, then the command line, checked together and at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, PrivateAttr, ValidationError

from omnitune.sample import UserError

C = TypeVar("C", bound=BaseModel)
COMMAND_LINE = "command line"


class Traced(BaseModel):
    """Settings that know which file or command line gave them."""

    _origin: dict[str, str] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Settings are the same wherever they were given."""
        return isinstance(other, Traced) and vars(self) == vars(other)

    def where(self, section: str, key: str) -> str:
        """Where a setting in a section was given: file and line, command line or the defaults."""
        place = self._origin.get(f"{section}.{key}") or self._origin.get(section)
        others = any(name.startswith(f"{section}.") for name in self._origin)
        if place == COMMAND_LINE and others and f"{section}.{key}" not in self._origin:
            place = None  # laid over the defaults
        if place == COMMAND_LINE:
            return f"--{section}.{key}".replace("_", "-") + " on the command line"
        name = f'"{key}" in "{section}"'
        if not place:
            return f"the default of {name}"
        try:
            text = Path(place).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            text = ""
        first = text.find(f'"{section}"')
        found = re.compile(rf'"{key}"\s*:').search(text, max(0, first))
        line = f", line {text.count(chr(10), 0, found.start()) + 1}" if found else ""
        return f"{place}{line}: {name}"


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
    for key, value in _parse_overrides(cls, arguments):
        field = cls.model_fields.get(key[0])
        if len(key) > 1 and key[0] not in values and field and isinstance(field.default, BaseModel):
            values[key[0]] = field.default.model_dump()
        _assign(values, key, value)
        origin[".".join(key)] = COMMAND_LINE
        origin.setdefault(key[0], COMMAND_LINE)
    if "output_dir" in cls.model_fields and values.get("output_dir") is None and path:
        values["output_dir"] = str(Path("checkpoints") / path.stem)
    try:
        config = cls.model_validate(values)
    except ValidationError as error:
        lines = [_explain(cls, problem, origin) for problem in error.errors()]
        where = str(path) if path else COMMAND_LINE
        raise UserError(f"{where}: {len(lines)} problem(s):\n  " + "\n  ".join(lines)) from None
    if isinstance(config, Traced):
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
    for key, _ in pairs:
        if key not in values:  # taken out when it came first
            repeated.key = key
            break
        del values[key]
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
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like another; empty if none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), "")


def option_table(cls: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """Rows of (option, default, description) for ``--help``."""
    rows = []
    for name, info in cls.model_fields.items():
        option = f"{prefix}{name.replace('_', '-')}"
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            rows += [
                (o, "", info.description or "") for o, _, _ in option_table(inner, option + ".")
            ]
            continue
        default = "" if info.is_required() or info.default is None else str(info.default)
        rows.append((option, default, info.description or ""))
    return rows


def _parse_overrides(cls: type[BaseModel], arguments: list[str]) -> list[tuple[list[str], Any]]:
    """Turns ``--a.b-c value``, ``--a=value``, ``--flag`` and ``--no-flag`` into (path, value)."""
    overrides: list[tuple[list[str], Any]] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("--"):
            raise UserError(
                f"{argument!r} is not an option; options look like --learning-rate 3e-4"
            )
        name, equals, text = argument[2:].partition("=")
        given = bool(equals)
        key = name.replace("-", "_").split(".")
        if not given:
            if position < len(arguments) and not arguments[position].startswith("--"):
                text, given = arguments[position], True
                position += 1
            elif key[0].startswith("no_") and key[0] not in cls.model_fields:
                key, text = [key[0][3:]], "false"
            else:
                text = "true"
        overrides.append((key, text if given and _wants_text(cls, key) else _parse_value(text)))
    return overrides


def _wants_text(cls: type[BaseModel], key: list[str]) -> bool:
    """Whether an option is a path: ``--output-dir 2026`` is one, not a number."""
    field = cls.model_fields.get(key[0])
    return field is not None and (field.annotation is Path or Path in get_args(field.annotation))


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _assign(values: dict[str, Any], key: list[str], value: Any) -> None:
    for name in key[:-1]:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, dict) else {}
        values = values[name]
    values[key[-1]] = value


def _explain(cls: type[BaseModel], problem: Any, origin: dict[str, str]) -> str:
    """One line for one of pydantic's problems: key, what was found, what was expected."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    where = origin.get(key) or origin.get(path[0] if path else "", "")
    suffix = f" ({where})" if where else ""
    if problem["type"] != "extra_forbidden":
        given = "" if problem["type"] == "missing" else f", found {_shown(problem['input'])}"
        if not path:  # a check of several keys together says which in its own words
            return str(problem["msg"]).removeprefix("Value error, ")
        said = _OBJECT.sub("an object", problem["msg"].removeprefix("Value error, "))
        return f"{key}: {said}{given}{suffix}"
    close = nearest(path[-1], _inner_model(cls, path[:-1]).model_fields, cutoff=0.5)
    hint = f"; did you mean {'.'.join([*path[:-1], close])}?" if close else ""
    return f"{key}: unknown key{hint}{suffix}"


# pydantic calls an object a dictionary, and names our class for it.
_OBJECT = re.compile(r"a valid dictionary( or instance of \w+)?")


def _shown(value: Any) -> str:
    """What was given: texts as pydantic quotes them, the rest as JSON has it."""
    try:
        return repr(value) if isinstance(value, str) else quoted(value, 200)
    except TypeError:  # a default, which no JSON gave
        return repr(value)


def _inner_model(cls: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The model that a path of keys (and places in lists) leads to."""
    for name in path:
        field = cls.model_fields.get(name)
        annotation = field.annotation if field else None
        models = [t for t in (annotation, *get_args(annotation)) if _is_model(t)]
        cls = models[0] if models else cls
    return cls


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
