"""Options of the commands that make the embedded corpus and its parts; help is quick so."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from omnitune.config.base import CHECKPOINTS, Config, Count, Seed


class CorpusConfig(Config):
    """Options of ``omnitune corpus``."""

    data_dir: Path = Path("data/multimodal")
    """folder to write the corpus to"""
    seed: Seed = 0
    """random seed of the whole corpus"""
    scale: float = Field(1.0, gt=0, le=100)
    """factor on the number of records"""
    workers: Count | None = None
    """number of processes [default: one per core]"""
    overwrite: bool = False
    """replace another corpus in the folder"""


class PartsConfig(Config):
    """Options of ``omnitune parts``."""

    checkpoints: Path = CHECKPOINTS
    """folder of the parts, with a folder of its own for each"""
    overwrite: bool = False
    """replace other parts in that folder"""
    ship: bool = False
    """the other direction: replace the parts in the package by those in the folder"""
    data_dir: Path = Path("data/multimodal")
    """with --ship: folder of the corpus on which the parts were trained"""
