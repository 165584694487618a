"""A real server on a free port, with a tiny random model, as a user's programs meet it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from helpers import tiny_model, tiny_renderer, write_image, write_wave
from waiting import wait_until

from omnitune import ChatModel
from omnitune.serving.api.app import build_app
from omnitune.serving.api.server import listen
from omnitune.serving.served import Limits, Served


@pytest.fixture(scope="session")
def chat_model() -> ChatModel:
    """What stands behind the servers."""
    return ChatModel(tiny_model(max_positions=512), tiny_renderer())


@contextmanager
def running(app: Any, **options: Any) -> Iterator[str]:
    """Serves an application in a thread, with options of uvicorn's; yields its address."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serving_app() -> Callable[..., Any]:
    """Serves any application: ``with serving_app(app, **options) as url``."""
    return running


@pytest.fixture(scope="session")
def start(chat_model: ChatModel) -> Callable[..., Any]:
    """Starts a server of its own: ``with start(limits) as (client, served)``."""

    @contextmanager
    def start(
        limits: Limits | None = None, model: ChatModel = chat_model, **rest: Any
    ) -> Iterator[tuple[openai.OpenAI, Served]]:
        served = Served("tiny", model, limits)
        with running(build_app([served], **rest)) as url:
            key = rest.get("api_key") or "any"
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                yield client, served

    return start


@pytest.fixture(scope="module")
def live(start: Callable[..., Any]) -> Iterator[tuple[openai.OpenAI, Served]]:
    """A client of a server, and the model behind it."""
    with start() as pair:
        yield pair


@pytest.fixture
def client(live: tuple[openai.OpenAI, Served]) -> openai.OpenAI:
    """The official client."""
    return live[0]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.png, b.png and a.wav."""
    folder = tmp_path_factory.mktemp("media")
    write_image(folder / "a.png", seed=1)
    write_image(folder / "b.png", seed=2)
    write_wave(folder / "a.wav", 0.6)
    return folder
