"""How fast a server answers, from 1 client to 32 at once.

    python -m benchmarks.serve [--model tiny|150m] [--clients 1,2,4,8,16,32] [--requests 4]
        [--tokens 48] [--json FILE]

A model with random weights; every answer has the same number of tokens. Half of the questions are
about a picture, no picture twice. Beside `omnitune serve` the same requests are sent
to a plain loop of the library's `generate` behind FastAPI. Each server is a process of its own, and
the clients another. Every client asks again when it has its answer. The servers' own time on the
processor is told too: other work on the machine changes it less than it changes latency.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command, numbers
from benchmarks.workload import WORKLOADS, Workload, corpus_folder, make
from omnitune.models.export import write_standard
from omnitune.models.loading import save_omni
from omnitune.sample import UserError
from omnitune.serving.api.server import leave_a_core, listen
from omnitune.storage import write_json

SERVERS = ("omnitune", "plain")
WORDS = re.compile(rb'"content": ?"[^"]')  # a piece of an answer that has words in it
MODELS = {
    "tiny": WORKLOADS["tiny"],
    "150m": Workload(  # as SmolLM2-135M and Qwen3 are made: what a processor serves in earnest
        "150m",
        thinker={
            "hidden_size": 768,
            "num_layers": 20,
            "num_heads": 12,
            "num_kv_heads": 4,
            "intermediate_size": 2304,
        },
    ),
}
TEXTS = ("which color is the circle?", "how many objects are there?", "describe the picture.")


class Timing(NamedTuple):
    """Of one answer: seconds to its first token, between two tokens after it, to its end."""

    first: float
    token: float
    answer: float


def run_server(kind: str, folder: Path, tokens: int, listener: socket.socket) -> None:
    """Serves until it is killed; in a process of its own."""
    import uvicorn

    if kind == "plain":
        from benchmarks.plain_server import plain_app

        app = plain_app(folder / "hf", tokens)
    else:
        from omnitune import load_model
        from omnitune.serving.api.app import build_app
        from omnitune.serving.served import Served

        leave_a_core()
        model = load_model(folder / "omni.pt")
        model.renderer.ends = frozenset()  # how long an answer is does not depend on chance
        app = build_app([Served("tiny", model)])
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


class Server(NamedTuple):
    """A server that runs: its address, and the number of its process."""

    address: str
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """Time on the processor so far, all threads together; NaN where the system hides it.

        Linux numbers the clock of another process so (`clock_getcpuclockid(3)`). It counts
        nanoseconds; `/proc/PID/stat` counts hundredths of a second, and a short answer takes less.
        """
        try:
            return time.clock_gettime(~self.pid << 3 | 2)
        except (AttributeError, OSError):
            return float("nan")


@contextmanager
def started(kind: str, folder: Path, tokens: int) -> Iterator[Server]:
    """A server in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with listen("127.0.0.1", 0) as listener:  # for both: neither holds small pieces back
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = spawn.Process(target=run_server, args=(kind, folder, tokens, listener))
        process.start()
        try:
            while True:
                try:
                    httpx.get(f"{address}/health", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield Server(address, process.pid or 0)
        finally:
            process.terminate()
            process.join(10)
            process.kill()


def question(number: int) -> dict[str, Any]:
    """A question; every second one is about a picture of its own."""
    content: list[dict[str, Any]] = [{"type": "text", "text": TEXTS[number % len(TEXTS)]}]
    if number % 2:
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": content}


async def ask(address: str, number: int, tokens: int) -> Timing:
    """One answer, streamed. Read as bytes: parsing would take time from the servers."""
    host, port = address.removeprefix("http://").split(":")
    body = {"messages": [question(number)], "max_tokens": tokens, "stream": True}
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    begun = time.perf_counter()
    moments: list[float] = []
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.encode() + content)
        said = b""
        while piece := await reader.read(1 << 16):
            said += piece
            if WORDS.search(piece):
                moments.append(time.perf_counter())
    finally:
        writer.close()
    if not moments or b"[DONE]" not in said:
        raise UserError(f"{address}: gave no whole answer, but {said[:300]!r}")
    each = (moments[-1] - moments[0]) / max(1, tokens - 1)
    return Timing(moments[0] - begun, each, moments[-1] - begun)


async def load(server: Server, clients: int, requests: int, tokens: int, first: int) -> Any:
    """Latencies and throughput of so many clients at once."""
    timings: list[Timing] = []

    async def client_of(place: int) -> None:
        for turn in range(requests):
            timings.append(await ask(server.address, first + turn * clients + place, tokens))

    begun, before = time.perf_counter(), server.cpu_seconds
    await asyncio.gather(*(client_of(place) for place in range(clients)))
    seconds = time.perf_counter() - begun
    count = clients * requests * tokens
    found = {
        "tokens_per_second": count / seconds,
        "cpu_ms_per_token": 1e3 * (server.cpu_seconds - before) / count,
    }
    for name in Timing._fields:
        values = [1e3 * getattr(timing, name) for timing in timings]
        found[f"{name}_ms"] = statistics.median(values)
        found[f"{name}_ms_p95"] = float(np.percentile(values, 95))
    return found


def measure(
    folder: Path, clients: Sequence[int], requests: int, tokens: int
) -> dict[str, dict[str, dict[str, float]]]:
    """By server, by number of clients, what was measured."""
    results: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in SERVERS}
    with ExitStack() as stack:
        # In turn, so that what else the machine does concerns both alike.
        there = {kind: stack.enter_context(started(kind, folder, tokens)) for kind in SERVERS}
        for server in there.values():
            asyncio.run(load(server, 2, 2, tokens, 0))  # warms up
        first = 100
        for count in clients:
            for kind, server in there.items():
                results[kind][str(count)] = asyncio.run(
                    load(server, count, requests, tokens, first)
                )
            first += count * requests
    return results


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Prints the table."""
    table = Table(title="latency in ms: median (95th percentile)")
    names = ("server", "clients", "first token", "per token", "answer", "tokens/s", "CPU per token")
    for name in names:
        table.add_column(name, justify="left" if name == "server" else "right", no_wrap=True)
    for kind, rows in results.items():
        for clients, row in rows.items():
            cells = [f"{row[f'{n}_ms']:.1f} ({row[f'{n}_ms_p95']:.1f})" for n in Timing._fields]
            cells += [f"{row['tokens_per_second']:.0f}", f"{row['cpu_ms_per_token']:.2f}"]
            table.add_row(kind, clients, *cells)
    Console(width=110).print(table)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=[*MODELS], default="tiny")
    parser.add_argument("--clients", default="1,2,4,8,16,32", help="at once, in turn")
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("--tokens", type=int, default=48, help="length of every answer")
    parser.add_argument("--data", type=Path, help="folder of a corpus [a small one is made]")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    clients = numbers("--clients", options.clients)
    bench = make(MODELS[options.model], options.data or corpus_folder())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_omni(folder / "omni.pt", bench.model, bench.renderer)
        write_standard(folder / "hf", bench.model.eval(), bench.renderer)
        results = measure(folder, clients, options.requests, options.tokens)
    show(results)
    if options.json:
        write_json(options.json, {"serve": results})


if __name__ == "__main__":
    sys.exit(main())
