"""Reads a configuration: a JSON file, then the command line, checked together and at once."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from omnitune.sample import UserError

C = TypeVar("C", bound=BaseModel)


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
        origin[".".join(key)] = "command line"
        origin.setdefault(key[0], "command line")
    if "output_dir" in cls.model_fields and values.get("output_dir") is None and path:
        values["output_dir"] = str(Path("checkpoints") / path.stem)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [_explain(cls, problem, origin) for problem in error.errors()]
        where = str(path) if path else "command line"
        raise UserError(f"{where}: {len(lines)} problem(s):\n  " + "\n  ".join(lines)) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that must hold one object; a UserError names what is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the examples are in configs/") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a JSON {type(values).__name__}, expected an object {{...}}")
    return values


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
        key = name.replace("-", "_").split(".")
        if not equals:
            if position < len(arguments) and not arguments[position].startswith("--"):
                text = arguments[position]
                position += 1
            elif key[0].startswith("no_") and key[0] not in cls.model_fields:
                key, text = [key[0][3:]], "false"
            else:
                text = "true"
        overrides.append((key, text if _wants_text(cls, key) else _parse_value(text)))
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
        found = "" if problem["type"] == "missing" else f", found {problem['input']!r}"
        if not path:  # a check of several keys together says which in its own words
            return str(problem["msg"]).removeprefix("Value error, ")
        return f"{key}: {problem['msg'].removeprefix('Value error, ')}{found}{suffix}"
    known: list[str] = list(_inner_model(cls, path[:-1]).model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"; did you mean {'.'.join([*path[:-1], close[0]])}?" if close else ""
    return f"{key}: unknown key{hint}{suffix}"


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
