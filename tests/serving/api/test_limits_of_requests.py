"""What a server refuses, with which status, and in which words."""

import base64
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from waiting import PATIENCE

from omnitune.serving.served import Limits

LIMITS = Limits(
    body_bytes=200_000, pixels=10_000, seconds=2.0, media=2, turns=4, choices=3, waiting=64
)


@pytest.fixture(scope="module")
def small(start: Callable[..., Any]) -> Iterator[httpx.Client]:
    with (
        start(LIMITS) as (client, _),
        httpx.Client(base_url=str(client.base_url), timeout=PATIENCE) as plain,
    ):
        yield plain


def uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "png")
    return file.getvalue()


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def said(client: httpx.Client, status: int, **body: Any) -> str:
    """The message of the error that a request is answered by."""
    messages = body.pop("messages", [{"role": "user", "content": body.pop("content", "hello")}])
    found = client.post("chat/completions", json={"messages": messages, **body})
    assert found.status_code == status, found.text
    error = found.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error["message"]


def test_amounts(small: httpx.Client, media: Path) -> None:
    assert "10,000" in said(small, 413, content=[image(uri(png(101)))])
    long = {"type": "input_audio", "input_audio": {"format": "wav"}}
    silence = (media / "a.wav").read_bytes()
    rate = int.from_bytes(silence[24:28], "little")
    header = silence[:40] + (rate * 2 * 3).to_bytes(4, "little")
    long["input_audio"]["data"] = base64.b64encode(header + bytes(rate * 2 * 3)).decode()  # type: ignore[index]
    assert "3 seconds, the limit of this server is 2" in said(small, 413, content=[long])
    assert "200,000" in said(small, 413, content="x" * 200_001)
    three = [image(uri(png(8)))] * 3
    assert "3 media" in said(small, 413, content=three)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    assert "5 messages" in said(small, 413, messages=[*talk, talk[0]])
    assert "n is 4" in said(small, 400, n=4)
    assert "leave out earlier turns" in said(small, 400, content="the sky " * 900)


def test_a_body_in_pieces_is_counted(small: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"messages": [{"role": "user", "content": "'
        for _ in range(30):
            yield b"x" * 10_000
        yield b'"}]}'

    headers = {"Content-Type": "application/json"}
    found = small.post("chat/completions", content=pieces(), headers=headers)
    assert found.status_code == 413
    assert "200,000" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/a.png", "fetches and opens nothing"),
        ("file:///etc/passwd", "fetches and opens nothing"),
        ("/etc/passwd", "fetches and opens nothing"),
        ("../../secret.png", "fetches and opens nothing"),
        ("data:image/png;base64,%%%", "its base64 is damaged"),
        ("data:image/png;base64,", "is empty"),
        (uri(b"no picture at all"), "is not an image"),
        (uri(b"a.tar::0+100/png"), "is not an image"),
    ],
)
def test_nothing_is_fetched_and_nothing_opened(small: httpx.Client, url: str, words: str) -> None:
    message = said(small, 400, content=[image(url)])
    assert words in message
    assert message.startswith("messages.0.content.0")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"temperature": 3}, "temperature: "),
        ({"top_p": 0}, "top_p: "),
        ({"n": 0}, "n: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"stop": ["a"] * 5}, "stop."),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs: true"),
        ({"tools": [{"type": "function"}]}, "tools: is not done by this server"),
        ({"functions": [{"name": "f"}]}, "functions: is not done by this server"),
        ({"tool_choice": "required"}, "tool_choice: no tools are called"),
        ({"frequency_penalty": 0.5}, "frequency_penalty: is not done by this server"),
        ({"response_format": {"type": "json_object"}}, "response_format: only"),
        ({"modalities": ["text", "audio"]}, "modalities: answers are text"),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role: "),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "the last is the assistant's"),
        ({"content": ""}, "nothing to answer"),
        ({"content": [{"type": "video", "video": "a"}]}, "there is no type 'video'"),
        ({"content": [{"type": "image_url"}]}, '"image_url" holds no data'),
        ({"content": [{"type": "text"}]}, 'needs the key "text"'),
    ],
)
def test_mistakes_are_sentences(small: httpx.Client, body: dict[str, Any], words: str) -> None:
    assert words in said(small, 400, **body)


def test_what_asks_for_nothing_is_taken(small: httpx.Client) -> None:
    """Clients such as LangChain's send every key that they know."""
    names = "tools tool_choice functions stop n seed logit_bias response_format logprobs user"
    names += " top_logprobs temperature top_p stream stream_options modalities audio metadata"
    message = {"role": "user", "content": "hello", "name": "me"}
    body = {"messages": [message], "max_tokens": 2}
    nothing: dict[str, Any] = {"tools": [], "functions": [], "stop": "", "logit_bias": {}}
    nothing |= {"tool_choice": "none", "presence_penalty": 0, "top_logprobs": 0, "logprobs": False}
    for more in ({}, dict.fromkeys(names.split()), nothing, {"stop": ["", "never seen"]}):
        found = small.post("chat/completions", json=body | more)
        assert found.status_code == 200, found.text
        assert found.json()["usage"]["completion_tokens"] == 2


def test_no_json(small: httpx.Client) -> None:
    deep = b'{"messages": ' + b"[" * 40_000 + b"]" * 40_000 + b"}"
    json, object_ = "no JSON that can be read", "Content-Type: application/json"
    for content, kind, words in (
        (b"{", "application/json", json),
        (deep, "application/json", json),
        (b'{"messages": "\xff"}', "application/json", json),
        (b'{"seed": ' + b"9" * 6000 + b"}", "application/json", json),
        (b"[]", "application/json", object_),
        (b"{}", "text/plain", object_),
    ):
        found = small.post("chat/completions", content=content, headers={"Content-Type": kind})
        assert found.status_code == 400
        assert words in found.json()["error"]["message"]


def test_transcripts(small: httpx.Client, media: Path) -> None:
    def post(content: bytes, **data: str) -> httpx.Response:
        return small.post("audio/transcriptions", files={"file": ("a.wav", content)}, data=data)

    whole = (media / "a.wav").read_bytes()
    for found, status, words in (
        (post(b"no sound"), 400, "a.wav: is not a sound file"),
        (post(b""), 400, "a.wav is empty"),
        (post(whole, response_format="lrc"), 400, "response_format: "),
        (
            post(whole, **{"response_format": "verbose_json", "timestamp_granularities[]": "word"}),
            400,
            "does not tell when a word is said",
        ),
        (post(whole, model="whisper-1"), 404, "there is tiny"),
        (small.post("audio/transcriptions"), 400, "file"),
    ):
        assert found.status_code == status
        assert words in found.json()["error"]["message"]


def test_there_is_nothing_there(small: httpx.Client) -> None:
    for found, status in (
        (small.get("nothing"), 404),
        (small.post("responses", json={}), 404),
        (small.get("chat/completions"), 405),
    ):
        assert found.status_code == status
        message = found.json()["error"]["message"]
        assert "there is POST /v1/chat/completions, POST /v1/audio/transcriptions, GET" in message
        assert "/web/" not in message


def test_the_key(start: Callable[..., Any]) -> None:
    with start(api_key="secret") as (client, _):
        assert client.models.list().data
        for wrong in ("x", "secret2", "sécret"):
            headers = [("Authorization", f"Bearer {wrong}".encode())]
            for path in ("/v1/models", "/metrics", "/openapi.json"):
                found = httpx.get(
                    str(client.base_url.join(path)), headers=headers, timeout=PATIENCE
                )  # type: ignore[arg-type]
                assert found.status_code == 401
                assert found.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(str(client.base_url.join("/health")), timeout=PATIENCE).json() == {
            "status": "ok"
        }
        with pytest.raises(openai.AuthenticationError, match="Bearer KEY"):
            client.with_options(api_key="x").models.list()


def test_other_pages_and_hosts_are_kept_out(start: Callable[..., Any]) -> None:
    with start(hosts={"127.0.0.1", "localhost"}) as (client, _):
        url = str(client.base_url.join("/v1/models"))
        found = httpx.get(url, headers={"Origin": "https://evil.example"}, timeout=PATIENCE)
        assert not any(name.startswith("access-control") for name in found.headers)
        ask = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert httpx.options(url, headers=ask, timeout=PATIENCE).status_code == 405
        rebound = httpx.get(url, headers={"Host": "evil.example:80"}, timeout=PATIENCE)
        assert rebound.status_code == 403
        assert "--host" in rebound.json()["error"]["message"]
        assert httpx.get(url, headers={"Host": "LOCALHOST"}, timeout=PATIENCE).status_code == 200


def test_a_body_that_does_not_end_is_told_so(start: Callable[..., Any]) -> None:
    with start(Limits(body_seconds=0.5)) as (client, _):
        address = str(client.base_url.host), client.base_url.port
        with socket.create_connection(address, timeout=PATIENCE) as line:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address[0]}\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
            line.sendall(head.encode())
            answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert "connection: close" in answer.lower()
    error = json.loads(answer.partition("\r\n\r\n")[2])["error"]
    assert "has not arrived within 0.5 seconds" in error["message"]
