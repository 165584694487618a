"""Batch files of OpenAI's API: each request by its own settings, each answer in the API's form."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave
from openai.types.chat import ChatCompletion

from omnitune import ChatModel, load_model
from omnitune.cli import main
from omnitune.models.loading import save_omni
from omnitune.serving.openai_batch import is_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_omni(folder / "omni.pt", tiny_model(max_positions=256), tiny_renderer())
    write_image(folder / "a.png")
    write_wave(folder / "a.wav", 0.5)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return load_model(folder, "cpu")


def request(name: str, content: Any = "hello", **settings: Any) -> dict[str, Any]:
    messages = settings.pop("messages", [{"role": "user", "content": content}])
    body = {"model": "gpt-4o", "messages": messages} | settings
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def write(path: Path, *requests: Any) -> Path:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in requests)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def run(folder: Path, data: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    out = data.with_suffix(".out")
    options = ["--ckpt-dir", str(folder), "--data", str(data), "--out", str(out)]
    status = main(["answer", *options, "--max-new-tokens", "9", "--device", "cpu", *more])
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    return status, [json.loads(line) for line in lines]


def texts(line: dict[str, Any]) -> list[str]:
    """The answers of a line, read as OpenAI's client reads them."""
    body = ChatCompletion.model_validate(line["response"]["body"])
    return [choice.message.content or "" for choice in body.choices]


def test_each_request_has_its_own_settings(folder: Path, model: ChatModel, tmp_path: Path) -> None:
    data = write(
        tmp_path / "batch.jsonl",
        request("plain"),
        request("short", max_completion_tokens=3),
        request("drawn", temperature=1.5, seed=4, n=2, max_tokens=12),
        request("system", messages=[
            {"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}
        ]),
        request("told", logprobs=True, top_logprobs=2, max_tokens=2),
    )  # fmt: skip
    status, lines = run(folder, data)
    assert status == 0
    assert [line["custom_id"] for line in lines] == ["plain", "short", "drawn", "system", "told"]
    plain, short, drawn, system, told = lines
    assert texts(plain) == [model.chat("hello", max_new_tokens=9)]
    assert texts(short) == [model.chat("hello", max_new_tokens=3)]
    assert short["response"]["body"]["usage"]["completion_tokens"] <= 3
    settings: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 12}
    assert texts(drawn) == [model.chat("hello", seed=f"4/{n}", **settings) for n in range(2)]
    brief: Any = [{"role": "system", "content": "be brief"}]
    assert texts(system) == [model.chat("hello", messages=brief, max_new_tokens=9)]
    assert len(told["response"]["body"]["choices"][0]["logprobs"]["content"]) == 2
    for line in lines:
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        assert line["response"]["body"]["model"] == "mine"
    assert len({line["id"] for line in lines}) == len(lines)


def test_media_are_data_or_files_beside_the_batch(folder: Path, model: ChatModel) -> None:
    content = (folder / "a.png").read_bytes()
    sound = base64.b64encode((folder / "a.wav").read_bytes()).decode()
    urls = ["data:image/png;base64," + base64.b64encode(content).decode(), "a.png"]
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    parts.append({"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}})
    what = {"type": "text", "text": "what is it?"}
    data = write(folder / "media.jsonl", *(request(str(n), [p, what]) for n, p in enumerate(parts)))
    status, lines = run(folder, data)
    seen = model.chat("what is it?", image=folder / "a.png", max_new_tokens=9)
    heard = model.chat("what is it?", audio=folder / "a.wav", max_new_tokens=9)
    assert status == 0
    assert [texts(line) for line in lines] == [[seen], [seen], [heard]]


def test_wrong_requests_end_alone_and_are_tried_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    gone = [{"type": "image_url", "image_url": {"url": "gone.png"}}]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = [{"type": "image_url", "image_url": {"url": "bad.png"}}]
    wrong = {
        "far": (request("far", far), "fetches and opens nothing"),
        "gone": (request("gone", gone), "'gone.png' is neither a data URI"),
        "bad": (request("bad", bad), "bad.png: is not an image"),
        "hot": (request("hot", temperature=9), "temperature: "),
        "tools": (request("tools", tools=[{"type": "function"}]), "tools: is not done"),
        "url": (request("url") | {"url": "/v1/embeddings"}, "only /v1/chat/completions"),
        "plain": (request("plain"), "as in record 1; each needs its own"),
        "body": ({"custom_id": "body"}, "record 9"),
        None: ({"body": {}}, "'custom_id' is None"),
    }
    requests = [request("plain"), *(one for one, _ in wrong.values()), "{broken", request("last")]
    data = write(tmp_path / "batch.jsonl", *requests)
    status, lines = run(folder, data)
    assert status == 1
    assert f"{len(wrong) + 1} questions could not be answered" in capsys.readouterr().err
    assert texts(lines[0]) == texts(lines[-1])
    for line, (name, (_, words)) in zip(lines[1:-2], wrong.items(), strict=True):
        assert (line["custom_id"], line["response"]) == (name, None)
        assert line["error"]["code"] == "invalid_request_error"
        assert words in line["error"]["message"]
        assert "batch.jsonl: record " in line["error"]["message"]
    assert "not valid JSON" in lines[-2]["error"]["message"]
    write_image(tmp_path / "gone.png")
    again = run(folder, data)[1]
    assert [line["custom_id"] for line in again] == [line["custom_id"] for line in lines]
    assert [n for n, line in enumerate(again) if line != lines[n]] == [2]


def test_it_goes_on_and_notices_a_changed_request(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "batch.jsonl", request("a"), request("b"))
    _, lines = run(folder, data)
    out = data.with_suffix(".out")
    out.write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1])[:30])
    assert [texts(line) for line in run(folder, data)[1]] == [texts(line) for line in lines]
    write(data, request("a"), request("b", temperature=0.5))
    assert run(folder, data)[0] == 2
    told = capsys.readouterr().err
    assert "answers another question than" in told
    assert "record 2" in told
    assert run(folder, data, "--overwrite")[0] == 0
    assert run(folder, data, "--prompt", "what?")[0] == 2
    assert "leave out --split and --prompt" in capsys.readouterr().err


def test_what_is_a_batch(folder: Path, tmp_path: Path) -> None:
    assert is_batch(write(tmp_path / "one.jsonl", request("a")))
    assert not is_batch(write(tmp_path / "other.jsonl", {"question": "a?"}))
    assert not is_batch(write(tmp_path / "empty.jsonl"))
    assert not is_batch(tmp_path)
    assert not is_batch(folder / "a.png")
