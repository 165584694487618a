"""What Prometheus is told: requests, answers, how long they took, who waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnitune.serving.scheduler import Job
from omnitune.serving.served import Served

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# What is looked up when Prometheus asks.
WATCHED: dict[str, tuple[str, Callable[[Served], float]]] = {
    "running": ("Answers that are decoded", lambda one: len(one.engine.scheduler.running)),
    "waiting": ("Answers in line", lambda one: len(one.engine.scheduler.waiting)),
    "media_found": ("Media that were encoded already", lambda one: one.rows.hits),
    "media_encoded": ("Media that were encoded", lambda one: one.rows.misses),
}


class Metrics:
    """The numbers of one server."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "omnitune_requests", "Requests", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "omnitune_request_seconds",
            "Of requests",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, media included")
        self.answer_tokens = self._counter("answer_tokens", "Tokens of answers")
        self.first_token = self._histogram("first_token_seconds", "From a request to its answer")
        self.per_token = self._histogram("token_seconds", "Between two tokens of an answer")
        for key, (about, value) in WATCHED.items():
            gauge = Gauge(f"omnitune_{key}", about, ["model"], registry=self.registry)
            for name, served in models.items():
                gauge.labels(name).set_function(partial(value, served))

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(f"omnitune_{name}", about, ["model"], registry=self.registry)

    def _histogram(self, name: str, about: str) -> Histogram:
        return Histogram(
            f"omnitune_{name}", about, ["model"], buckets=SECONDS, registry=self.registry
        )

    def note(self, name: str, jobs: Sequence[Job]) -> None:
        """Takes note of some answers to one prompt."""
        self.prompt_tokens.labels(name).inc(len(jobs[0].item.rendered.tokens))
        for job in jobs:
            count = len(job.told)
            self.answer_tokens.labels(name).inc(count)
            if job.began:
                self.first_token.labels(name).observe(job.began - job.asked)
            if count > 1 and job.ended:
                self.per_token.labels(name).observe((job.ended - job.began) / (count - 1))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class Counted:
    """Counts the requests of an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Sequence[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Any other path is a client's own word, of which there may be any number.
        path = scope["path"] if scope["path"] in self.paths else "other"
        status, started = "none", time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)
