"""What the page asks beside the API, and who may ask."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from fastapi.testclient import TestClient
from helpers import tiny_model, tiny_renderer, write_image, write_wave
from PIL import Image
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


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.bmp"])
def test_a_picture_becomes_png_for_the_browser(
    client: TestClient, tmp_path: Path, name: str
) -> None:
    content = write_image(tmp_path / name, size=40).read_bytes()
    response = client.post("/web/shown/image", content=content)
    assert response.headers["Content-Type"] == "image/png"
    made, given = Image.open(io.BytesIO(response.content)), Image.open(tmp_path / name)
    assert made.tobytes() == given.convert("RGB").tobytes()


def test_a_sound_becomes_wav_for_the_browser(client: TestClient, tmp_path: Path) -> None:
    write_wave(tmp_path / "a.wav", 0.5)
    wave, rate = soundfile.read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.aiff", wave, rate, format="AIFF")
    response = client.post("/web/shown/audio", content=(tmp_path / "a.aiff").read_bytes())
    assert response.headers["Content-Type"] == "audio/wav"
    again, _ = soundfile.read(io.BytesIO(response.content))
    assert abs(again - wave).max() < 1e-3


@pytest.mark.parametrize(
    ("kind", "content", "status", "words"),
    [
        ("image", b"", 400, "the file is empty"),
        ("image", b"no picture at all", 400, "the file: is not an image"),
        ("audio", b"no sound at all", 400, "the file"),
        ("smell", b"x", 400, "there is no medium 'smell'"),
        ("image", b"x" * (33 << 20), 413, "the limit of this server is"),
    ],
)
def test_what_cannot_be_shown_is_told(
    client: TestClient, kind: str, content: bytes, status: int, words: str
) -> None:
    response = client.post(f"/web/shown/{kind}", content=content)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
    assert "/tmp" not in response.text


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("1", (6000, 6000)).save(buffer, "tiff", compression="group4")
    response = client.post("/web/shown/image", content=buffer.getvalue())
    assert response.status_code == 413
    assert "the file holds 36,000,000 pixels" in response.json()["error"]["message"]


@pytest.mark.parametrize("file", sorted(STATIC.glob("*.js")), ids=lambda file: file.name)
def test_scripts_are_short_and_make_no_html_of_text(file: Path) -> None:
    """A model's words, a file's name and a saved conversation stay text."""
    text = file.read_text()
    assert text.count("\n") < 400
    assert max(map(len, text.splitlines())) <= 120
    assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\b", text)
