"""What the tests of batches share: a tiny model and a sample of every kind."""

import pytest
from helpers import mixed_samples, tiny_model

from omnitune.models.omni import OmniModel
from omnitune.sample import Sample


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return mixed_samples(tmp_path_factory.mktemp("media"))
