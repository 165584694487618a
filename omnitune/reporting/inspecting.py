"""What ``omnitune inspect`` does: an account of data with histograms, or one sample."""

from __future__ import annotations

from rich.console import Console

from omnitune.config.commands import InspectConfig
from omnitune.config.sft import SftConfig
from omnitune.data.audit.inspect import account_lines, inspect_folder
from omnitune.data.audit.sample_view import find_sample, view_sample
from omnitune.data.audit.truncation import ReadLimits
from omnitune.models.loading import read_reading
from omnitune.models.parts_reading import reading_of_parts
from omnitune.reporting.given import given_data
from omnitune.reporting.histogram_charts import histogram_lines, write_histogram_page
from omnitune.reporting.sample_lines import print_sample
from omnitune.reporting.sample_page import write_sample_page
from omnitune.sample import UserError
from omnitune.storage import require_target, write_json


def inspect_data(config: InspectConfig) -> int:
    """Prints what is asked for, and writes it to files; returns the exit status.

    Raises:
        UserError: the data, the sample or the model is not there, or wrong.
    """
    for path, option in ((config.as_json, "--json"), (config.html, "--html")):
        if path:
            require_target(path, option)
    if config.sample:
        return _inspect_sample(config)
    reading = read_reading(config.ckpt_dir, config.max_tokens) if config.ckpt_dir else None
    counting, note = (reading, "") if reading else _stand_in(config)
    given = given_data(config.data)
    found = inspect_folder(given.data, reading, counting, given.sources)
    found["data_dir"] = str(config.data)
    if config.as_json:
        write_json(config.as_json, found)
    print("\n".join([*account_lines(found), "", *histogram_lines(found["histograms"], note)]))
    if config.html:
        print(f"page: {write_histogram_page(found, note, config.html)}")
    return int(config.strict and (found["leaking"] or found["broken"]["count"] > 0))


def _inspect_sample(config: InspectConfig) -> int:
    if config.as_json:
        raise UserError("--json holds the account of all data; leave it out with --sample")
    given = given_data(config.data)
    samples, number = find_sample(given.data, config.sample, given.sources, config.data)
    if config.ckpt_dir:
        reading: ReadLimits | None = read_reading(config.ckpt_dir, config.max_tokens)
        note = ""
    else:
        reading, note = _stand_in(config)
    view = view_sample(samples, number, reading, [note] if note else [])
    print_sample(view, Console(highlight=False, markup=False, emoji=False))
    if config.html:
        print(f"page: {write_sample_page(view, config.html)}")
    return 0


def _stand_in(config: InspectConfig) -> tuple[ReadLimits | None, str]:
    """How samples are read where no model is given, and what to say of it."""
    parts = SftConfig()
    reading = reading_of_parts(parts.thinker_ckpt, parts.encoders, config.max_tokens)
    if reading:
        return reading, f"tokens of {parts.thinker_ckpt}, as no model is given (--ckpt-dir)"
    return None, (
        "words in place of tokens, and one placeholder a medium, as no model is given (--ckpt-dir)"
    )
