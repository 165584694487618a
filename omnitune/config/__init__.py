"""Configuration: what can be set, within which limits, and how file and command line are read."""

from omnitune.config.base import LARGEST_SEED, Config
from omnitune.config.run import (
    RunConfig,
    loss_length_exponent,
    max_questions_per_sample,
    tokens_per_batch,
)
from omnitune.config.settings import load_config, read_json_object
from omnitune.config.sft import DataMix, Phase, SftConfig

__all__ = [
    "LARGEST_SEED",
    "Config",
    "DataMix",
    "Phase",
    "RunConfig",
    "SftConfig",
    "load_config",
    "loss_length_exponent",
    "max_questions_per_sample",
    "read_json_object",
    "tokens_per_batch",
]
