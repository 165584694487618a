"""What ``omnitune validate`` does: data of a path or a configuration, checked, told and cleaned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omnitune.config.commands import ValidateConfig
from omnitune.config.settings import load_config
from omnitune.config.sft import SftConfig
from omnitune.data.audit.cleaned import SETTINGS_FILE, require_new, write_clean
from omnitune.data.audit.validate import Checks, validate
from omnitune.data.reading import DataPlace
from omnitune.models.loading import read_reading
from omnitune.storage import require_target, write_json
from omnitune.training.sources import data_place

OF_A_RUN = ("sources", "data_mix", "data_dir")  # keys by which a configuration is known


class Given(NamedTuple):
    """What a path stands for.

    Attributes:
        sources: names of those to check; None for all that are there.
        languages: by source, of answers that do not say.
    """

    data: DataPlace
    sources: list[str] | None
    languages: Mapping[str, str]


def given_data(path: Path) -> Given:
    """The data of a configuration file, of a cleaned copy, or of a file or folder of records.

    Raises:
        UserError: the configuration is wrong.
    """
    settings = path / SETTINGS_FILE if path.is_dir() else path
    if not _is_config(settings):
        return Given(DataPlace.of(path), None, {})
    config = load_config(SftConfig, settings, [])
    return Given(data_place(config), config.source_names, config.languages)


def _is_config(path: Path) -> bool:
    """Whether a file is a configuration, and no list of records."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            if not file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
                return False
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and any(key in values for key in OF_A_RUN)


def run_validation(options: ValidateConfig) -> int:
    """Checks data, prints what is wrong, writes what is asked for; returns the exit status.

    Raises:
        UserError: there is no data, or a target cannot be written.
    """
    given = given_data(options.data)
    if options.as_json:
        require_target(options.as_json, "--json")
    if options.fix:
        require_new(options.fix, given.data)
    reading = read_reading(options.ckpt_dir, options.max_tokens) if options.ckpt_dir else None
    checks = Checks(
        reading, options.max_seconds, frozenset(options.ignore), given.languages, options.workers
    )
    found = validate(given.data, checks, given.sources)
    result: dict[str, Any] = {"data": str(options.data), **found.findings.as_json()}
    print("\n".join(found.findings.lines()))
    if options.fix:
        result["fixed"] = fixed = write_clean(found, checks, options.fix)
        print("\n".join(_fix_lines(fixed, options.fix)))
    if options.as_json:
        write_json(options.as_json, result)
    counted = found.findings.problems if options.strict else found.findings.errors
    return int(bool(counted))


def _fix_lines(fixed: Mapping[str, Mapping[str, int]], out: Path) -> list[str]:
    """What was written, and what was left out."""
    lines = ["", f"cleaned copy in {out} (paths of media are absolute; nothing else was changed):"]
    for name, kept in fixed["kept"].items():
        lines.append(f"  {name}: {kept:,} records kept, {fixed['left_out'][name]:,} left out")
    return [*lines, f'its "sources" are in {out / SETTINGS_FILE}']
