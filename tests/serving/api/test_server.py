"""The command: it listens, drains when it is told to stop, and says what is wrong."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from helpers import tiny_model, tiny_renderer
from waiting import PATIENCE, held_after, wait_until

from omnitune.cli import main
from omnitune.models.loading import save_omni
from omnitune.sample import UserError
from omnitune.serving.api.server import is_loopback, listen
from omnitune.serving.decoding import RunningBatch
from omnitune.serving.folder import name_of
from omnitune.serving.scheduler import CANCELLED, Scheduler
from omnitune.serving.served import Limits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_omni(folder / "omni.pt", tiny_model(max_positions=2048), tiny_renderer())
    return folder


@pytest.fixture
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and its address."""
    command = [sys.executable, "-m", "omnitune.cli", "serve", "--ckpt_dir", str(folder)]
    command += ["--port", "0", "--device", "cpu", "--max-upload-seconds", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as found:
        assert found.stdout
        line = found.stdout.readline()
        match = re.fullmatch(r"serving mine on (http://127\.0\.0\.1:\d+)/v1 .*\n", line)
        assert match, line
        try:
            yield found, match[1]
        finally:
            found.kill()


def said_to_a_slow_head(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(b"GET /health HTTP/1.1\r\n")
        return b"".join(iter(lambda: line.recv(65536), b""))


@pytest.mark.slow
def test_what_was_begun_is_answered(process: tuple[subprocess.Popen[str], str]) -> None:
    server, url = process
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        wait_until(lambda: httpx.get(f"{url}/health", timeout=PATIENCE).is_success)
        assert said_to_a_slow_head(int(url.rpartition(":")[2])).startswith(b"HTTP/1.1 408 ")
        stream = client.chat.completions.create(
            model="mine",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=300,
            stream=True,
            stream_options={"include_usage": True},
        )
        next(iter(stream))
        server.send_signal(signal.SIGTERM)
        chunks = list(stream)
        assert chunks[-1].usage
        assert chunks[-2].choices[0].finish_reason in ("stop", "length")
        assert server.wait(PATIENCE) == 0
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
    assert server.stdout
    assert "every answer that was begun has ended" in server.stdout.read()


def test_small_pieces_are_sent_at_once() -> None:
    """Else each first token waits 40 ms for the client to acknowledge the headers."""

    async def accepted() -> int:
        told: asyncio.Queue[int] = asyncio.Queue()

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found = writer.get_extra_info("socket")
            told.put_nowait(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(note, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await asyncio.wait_for(told.get(), PATIENCE)

    assert asyncio.run(accepted())


def comes_to_rest(scheduler: Scheduler) -> bool:
    """Whether it does: who has its answer hears of it before the turn is over."""
    return bool(wait_until(lambda: scheduler.idle))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_place(start: Callable[..., Any], stream: bool) -> None:
    with start(Limits(rows=1)) as (client, served):
        scheduler = served.engine.scheduler
        scheduler._batch = RunningBatch(scheduler.model, frozenset())  # no token ends an answer
        gone = held_after(scheduler, 1)
        url = client.base_url
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 400}
        connection = http.client.HTTPConnection(url.host, url.port)
        headers = {"Content-Type": "application/json"}
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body | {"stream": stream}), headers
        )
        [job] = wait_until(lambda: list(scheduler.running.values()))
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        wait_until(lambda: job.finish == CANCELLED)
        gone.set()
        assert comes_to_rest(scheduler)
        assert len(job.told) <= 1  # none, where it hung up within the first turn


def test_a_full_line_is_told_with_a_time(start: Callable[..., Any]) -> None:
    with start(Limits(rows=1, waiting=1, choices=9)) as (client, served):
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        with pytest.raises(openai.RateLimitError, match="requests wait already") as error:
            client.chat.completions.create(**ask, n=3)
        assert int(error.value.response.headers["retry-after"]) >= 1
        assert error.value.code == "queue_full"
        assert client.chat.completions.create(**ask, n=2, max_tokens=3).choices
        assert comes_to_rest(served.engine.scheduler)


class PanicError(BaseException):
    """As the tokenizer's library raises it."""


def raising(error: type[BaseException]) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_a_fault_is_told_and_the_server_goes_on(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as (client, served):
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        for fault in (ZeroDivisionError, PanicError):
            with monkeypatch.context() as patch:
                patch.setattr(type(served.prompts), "prompt", raising(fault))
                with pytest.raises(openai.InternalServerError, match="the server's log says what"):
                    client.chat.completions.create(**ask)
        with monkeypatch.context() as patch:
            patch.setattr(type(served.model.model), "predict", lambda *_: 1 / 0)
            with pytest.raises(openai.InternalServerError, match="the server's log says what"):
                client.chat.completions.create(**ask)
            with pytest.raises(openai.APIError, match="the server's log says what"):
                list(client.chat.completions.create(**ask, stream=True))
        assert client.chat.completions.create(**ask, max_tokens=3).choices


def test_metrics(start: Callable[..., Any]) -> None:
    with start() as (client, _):
        for _ in range(2):
            client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=3
            )
        httpx.get(str(client.base_url.join("/anything/else")), timeout=PATIENCE)
        text = httpx.get(str(client.base_url.join("/metrics")), timeout=PATIENCE).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("omnitune_"))
    chat = 'omnitune_requests_total{path="/v1/chat/completions",status="200"}'
    assert float(values[chat]) == 2
    assert float(values['omnitune_requests_total{path="other",status="404"}']) == 1
    assert float(values['omnitune_answer_tokens_total{model="tiny"}']) == 6
    assert float(values['omnitune_first_token_seconds_count{model="tiny"}']) == 2
    assert float(values['omnitune_waiting{model="tiny"}']) == 0


def test_mistakes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--ckpt_dir", str(folder), "--port", port]) == 2
    assert "give another --port" in capsys.readouterr().err
    assert main(["serve", "--ckpt_dir", str(tmp_path)]) == 2
    assert "holds no omni.pt" in capsys.readouterr().err
    assert main(["serve"]) == 2
    with pytest.raises(UserError, match="cannot be listened on"):
        listen("203.0.113.7", 0)


def test_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "omni.pt").touch()
    assert name_of(tmp_path / "run", []) == "run"
    assert name_of(tmp_path / "run" / "omni.pt", []) == "run"
    assert name_of(tmp_path / "run", ["run", "run-2"]) == "run-3"
    assert is_loopback("127.0.0.1")
    assert not is_loopback("0.0.0.0")
