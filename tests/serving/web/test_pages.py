"""What the page asks beside the API, and who may ask."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from helpers import tiny_model, tiny_renderer, write_image
from web_helpers import page_model

from omnitune.serving.api.app import build_app
from omnitune.serving.python import ChatModel
from omnitune.serving.web.pages import STATIC, add_pages

SNEAKY = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chats = {
        "both": ChatModel(tiny_model(max_positions=512), tiny_renderer()),
        "text": ChatModel(tiny_model(media=()), tiny_renderer()),
    }
    models = [page_model(name, chat, Path("no-such-run")) for name, chat in chats.items()]
    app = build_app([model.served for model in models], api_key="secret")
    add_pages(app, models)
    with TestClient(app, headers={"Authorization": "Bearer secret"}) as client:
        yield client


def test_the_page_needs_no_key_and_nothing_else_goes_without(client: TestClient) -> None:
    stranger = {"Authorization": "Bearer wrong"}
    for file in STATIC.iterdir():
        response = client.get(f"/{file.name}", headers=stranger)
        assert response.content == file.read_bytes()
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert "<title>" in client.get("/", headers=stranger).text
    for path in ("/web/models", "/web/models/0/card", "/web/models/0/examples", "/v1/models"):
        assert client.get(path, headers=stranger).status_code == 401
        assert client.get(path).status_code == 200
    assert client.post("/web/models/0/saw", json={}, headers=stranger).status_code == 401


@pytest.mark.parametrize("path", ["/../pages.py", "/static/app.js", "/%2e%2e/pages.py", "/x.js"])
def test_no_other_file_is_given_out(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "error" in response.json()


def test_models_say_what_they_read(client: TestClient) -> None:
    both, text = client.get("/web/models").json()["models"]
    assert [medium["noun"] for medium in both["media"]] == ["picture", "sound"]
    assert both["transcribes"]
    assert text["media"] == []
    assert not text["transcribes"]
    assert text["about"] == "text reads text."
    assert client.get("/web/models/0/examples").json() == {"examples": []}


def test_what_it_saw_over_http(client: TestClient, tmp_path: Path) -> None:
    content = base64.b64encode(write_image(tmp_path / "a.png").read_bytes()).decode()
    url = {"url": f"data:image/png;base64,{content}"}
    asked = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "what is it?"}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "red"}]
    saw = client.post("/web/models/0/saw", json={"messages": messages}).json()
    assert [medium["index"] for medium in saw["media"]] == [0]
    # The earlier picture makes way for a newer one: what is told is of that.
    again = client.post("/web/models/0/saw", json={"messages": messages * 2}).json()
    assert [medium["index"] for medium in again["media"]] == [1]
    json.dumps(saw, allow_nan=False)


@pytest.mark.parametrize(
    ("number", "messages", "status", "words"),
    [
        (0, [{"role": "user", "content": "hello"}], 400, "ends with the assistant's answer"),
        (0, [], 400, "ends with the assistant's answer"),
        (0, [{"role": "assistant", "content": "hello"}], 400, "there is no message"),
        (7, [], 404, "there is no model 7"),
        (0, [SNEAKY, {"role": "assistant", "content": "x"}], 400, "opens nothing for a client"),
    ],
)
def test_mistakes_are_told(
    client: TestClient, number: int, messages: list[object], status: int, words: str
) -> None:
    response = client.post(f"/web/models/{number}/saw", json={"messages": messages})
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
