"""Scores any checkpoint on any data of the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnitune.data.chat import ChatRenderer
from omnitune.data.loader import SampleReader
from omnitune.data.records import check_media, read_available, split_of
from omnitune.evaluation.scoreboard import as_json, scoreboard
from omnitune.models.components import load_omni
from omnitune.sample import UserError
from omnitune.storage import write_json_lines
