"""A tiny model to score."""

import pytest
from helpers import tiny_model, tiny_reader

from omnitune.data.loader import SampleReader
from omnitune.models.omni import OmniModel


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture(scope="module")
def reader(model: OmniModel) -> SampleReader:
    return tiny_reader(model)
