"""What is drawn from the specification is answered as it says, and never by a fault."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from helpers import tiny_model, tiny_renderer
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from omnitune import ChatModel
from omnitune.serving.api.app import PATHS, build_app
from omnitune.serving.served import Limits, Served

# Most of what the specification allows is no picture and no sound: that it is refused is right.
REFUSED_RIGHTLY = [positive_data_acceptance]


@pytest.fixture(scope="module")
def specification() -> Iterator[Any]:
    model = ChatModel(tiny_model(max_positions=64), tiny_renderer())  # so that answers are short
    app = build_app([Served("tiny", model, Limits(choices=2))])
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/health").is_success
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("path", [*PATHS, "/v1/models/{name}"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_specified(specification: Any, path: str, mode: GenerationMode) -> None:
    """Of requests as they should be, and as they should not be."""
    for operation in specification[path].values():
        if mode is GenerationMode.NEGATIVE and not operation.body:  # any name may be asked for
            continue

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(excluded_checks=REFUSED_RIGHTLY)

        check()


def test_it_names_every_path(specification: Any) -> None:
    paths = specification.raw_schema["paths"]
    assert set(PATHS) <= set(paths)
    for path in paths.values():
        for operation in path.values():
            assert "422" not in operation["responses"]
            assert operation["description"]
