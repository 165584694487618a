"""What the path of ``omnitune validate`` and ``inspect`` stands for: data, or a configuration's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from omnitune.config.settings import load_config
from omnitune.config.sft import SftConfig
from omnitune.containers.base import without_lead
from omnitune.containers.json_object import CONFIGURED
from omnitune.data.audit.cleaned import SETTINGS_FILE
from omnitune.data.reading import DataPlace
from omnitune.training.sources import data_place


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
            if not without_lead(file.read(64)).startswith(b"{"):
                return False
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and any(key in values for key in CONFIGURED)
