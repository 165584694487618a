"""What ``omnitune validate`` does: data of a path or a configuration, checked, told and cleaned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnitune.config.commands import ValidateConfig
from omnitune.data.audit.cleaned import SETTINGS_FILE, require_new, write_clean
from omnitune.data.audit.validate import Checks, validate
from omnitune.models.loading import read_reading
from omnitune.reporting.given import given_data
from omnitune.storage import require_target, write_json


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
