"""Runs the application: loads models, listens, and ends politely."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
import uvicorn
from fastapi import FastAPI

from omnitune.config.serving import ServeConfig
from omnitune.sample import UserError
from omnitune.serving.api.app import build_app
from omnitune.serving.api.slow_heads import bounded_heads
from omnitune.serving.folder import name_of, require_model
from omnitune.serving.python import load_model
from omnitune.serving.served import Limits, Served
from omnitune.storage import usable_cores

API_KEY = "OMNITUNE_API_KEY"
HEAD_SECONDS = 20.0  # that the head of a request may take; no client is that slow
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


Complete = Callable[[FastAPI, Sequence[Served]], None]


def serve(
    config: ServeConfig, complete: Complete = lambda app, served: None, path: str = "/v1"
) -> int:
    """Serves until it is told to stop (Ctrl-C, SIGTERM); what was begun is answered first.

    Args:
        complete: adds to the application what else it offers. path: to tell people.

    Raises:
        UserError: a model is missing, or the address cannot be listened on.
    """
    for folder in config.ckpt_dir:
        require_model(folder)
    listener = listen(config.host, config.port)
    leave_a_core()
    with listener:
        served = load_all(config)
        key = config.api_key or os.environ.get(API_KEY, "")
        local = is_loopback(config.host)
        if not local and not key:
            print(
                f"warning: anyone who reaches {config.host} can use this server; give it an "
                "--api-key",
                file=sys.stderr,
            )
        listener.listen()  # who reads the next line may ask at once
        app = build_app(served, key, {config.host, *LOOPBACK} if local else None)
        complete(app, served)
        host, port = listener.getsockname()[:2]
        address = f"[{host}]" if ":" in host else host
        names = ", ".join(one.name for one in served)
        print(f"serving {names} on http://{address}:{port}{path} (Ctrl-C ends it)", flush=True)
        run(app, listener, config.drain_seconds, min(HEAD_SECONDS, config.max_upload_seconds))
    print("stopped; every answer that was begun has ended", flush=True)
    return 0


def load_all(config: ServeConfig) -> list[Served]:
    """The models, by the names of their folders; of two alike the second has a number."""
    limits = limits_of(config)
    served: list[Served] = []
    for path in config.ckpt_dir:
        name = name_of(path, [one.name for one in served])
        served.append(Served(name, load_model(path, config.device), limits))
    return served


def limits_of(config: ServeConfig) -> Limits:
    """What the options say of a client's requests."""
    return Limits(
        body_bytes=config.max_megabytes << 20,
        body_seconds=config.max_upload_seconds,
        pixels=config.max_pixels,
        seconds=config.max_seconds,
        media=config.max_media,
        turns=config.max_turns,
        waiting=config.max_waiting,
        rows=config.max_batch,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        UserError: there is no such address here, or it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said by name: asyncio sends small pieces at once (TCP_NODELAY) only where it reads "TCP" here.
    # Else each first token waits 40 ms for the client to acknowledge the headers.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise UserError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); give another "
            "--port, or --host"
        ) from None
    return found


def leave_a_core() -> None:
    """Leaves a core to the event loop, unless the user said how many threads compute.

    Where all cores compute, each token waits for its turn to be sent.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() - 1))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def run(
    app: FastAPI, listener: socket.socket, drain_seconds: int, head_seconds: float = HEAD_SECONDS
) -> None:
    """Serves an application until a signal; then takes no more requests, and ends those it has."""
    config = uvicorn.Config(
        app,
        http=bounded_heads(head_seconds),
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    with suppress(KeyboardInterrupt):  # the signal that ended it, told once more
        uvicorn.Server(config).run(sockets=[listener])
