"""One browser, one server and one pair of models for all tests of the page."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave
from waiting import held_after
from web_helpers import LIMIT, Page, open_browser, page_model, serving

from omnitune.serving.python import ChatModel
from omnitune.serving.web.pages import PageModel


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_image(folder / "a.png", seed=1)
    write_image(folder / "b.png", seed=2)
    write_wave(folder / "a.wav", 0.6, seed=3)
    (folder / "notes.txt").write_text("no medium")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


@pytest.fixture(scope="package")
def models() -> list[PageModel]:
    chats = [ChatModel(tiny_model(seed, max_positions=512), tiny_renderer()) for seed in (0, 1)]
    nowhere = Path("no-such-run")
    return [page_model(f"model-{n}", chat, nowhere) for n, chat in enumerate(chats, 1)]


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="package")
def address(models: list[PageModel]) -> Iterator[str]:
    with serving(models) as found:
        yield found


@pytest.fixture
def spare() -> PageModel:
    """A model for a server of its own: one that ends takes its models' decoders with it."""
    chat = ChatModel(tiny_model(2, max_positions=512), tiny_renderer())
    return page_model("model-3", chat, Path("no-such-run"))


@pytest.fixture
def page(browser: Any, address: str) -> Page:
    page = Page(browser, address)
    page.look()
    page.open()
    browser.execute_script(
        "const field = document.getElementById('max_tokens');"
        f"field.value = {LIMIT}; field.dispatchEvent(new Event('input'));"
        # These models write what no one would: it is compared as it was written.
        "document.getElementById('markdown').click()"
    )
    return page


@pytest.fixture
def held(models: list[PageModel], monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An answer waits for the event after its first tokens, so that it can be stopped."""
    scheduler = models[0].served.engine.scheduler
    monkeypatch.setattr(scheduler, "turn", scheduler.turn)  # which comes back at the end
    goes_on = held_after(scheduler, 4)
    yield goes_on
    goes_on.set()
