"""The application: what is asked where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from omnitune import __version__
from omnitune.serving.api import chat, errors, transcripts
from omnitune.serving.api.guard import Guard
from omnitune.serving.api.metrics import Counted, Metrics
from omnitune.serving.api.requests import ChatRequest
from omnitune.serving.api.responses import (
    ChatCompletion,
    ErrorBody,
    ModelCard,
    ModelList,
    Transcript,
    VerboseTranscript,
)
from omnitune.serving.served import Served

CHAT, TRANSCRIPTS = "/v1/chat/completions", "/v1/audio/transcriptions"
PATHS = (CHAT, TRANSCRIPTS, "/v1/models", "/health", "/metrics")
_SAID = {
    400: "The request is wrong; the message says how",
    401: "The API key is missing or wrong",
    403: "The request was meant for another host",
    404: "There is no such model",
    408: "The request took too long to arrive",
    413: "The request or a medium in it is too large",
    429: "Too many wait; Retry-After says when to ask again",
    500: "A fault of the server's",
}


def _fails(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How an endpoint may fail, for the specification."""
    return {n: {"model": ErrorBody, "description": _SAID[n]} for n in (401, 403, *statuses)}


class Models:
    """The models that are served, by name; the first is the one where none is named."""

    def __init__(self, served: Sequence[Served]) -> None:
        self.by_name = {one.name: one for one in served}
        self.first = served[0]

    def named(self, name: str | None) -> Served:
        """Raises an UnknownModelError if there is none of this name."""
        if not name:
            return self.first
        if name not in self.by_name:
            raise errors.UnknownModelError(
                f"model: there is no {name!r} here; there is {', '.join(self.by_name)}"
            )
        return self.by_name[name]


def build_app(
    served: Sequence[Served], api_key: str = "", hosts: Collection[str] | None = None
) -> FastAPI:
    """The application of some models.

    Args:
        api_key, hosts: as of :class:`Guard`.
    """
    models = Models(served)
    metrics = Metrics(models.by_name)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        for one in served:
            one.engine.start()
        yield
        for one in served:
            one.engine.stop()

    # No page of its own that would load its script from elsewhere.
    app = FastAPI(
        title="omnitune",
        version=__version__,
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        separate_input_output_schemas=False,
    )
    errors.install(app)
    app.add_middleware(errors.Faults)
    app.add_middleware(Guard, limits=models.first.limits, api_key=api_key, hosts=hosts)
    app.add_middleware(Counted, metrics=metrics, paths=PATHS)
    app.state.models, app.state.metrics = models, metrics
    _answering(app, models, metrics)
    _telling(app, models, metrics)
    _leave_out_422(app)
    return app


def _answering(app: FastAPI, models: Models, metrics: Metrics) -> None:
    """The endpoints that answer."""
    fails = _fails(400, 404, 408, 413, 429, 500)
    text = {"schema": {"type": "string"}}
    streams = {"content": {"text/event-stream": text}}
    texts = {"content": {**streams["content"], "text/plain": text, "text/vtt": text}}

    @app.post(CHAT, responses={200: {"model": ChatCompletion, **streams}, **fails})
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        """Answers a conversation, or streams the answer as server-sent events."""
        return await chat.answer(models.named(body.model), request, body, metrics.note)

    transcript = {"model": Transcript | VerboseTranscript, **texts}

    @app.post(TRANSCRIPTS, responses={200: transcript, **fails})
    async def audio_transcriptions(
        request: Request,
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()] = "",
        response_format: Annotated[transcripts.Format, Form()] = "json",
        temperature: Annotated[float, Form(ge=0, le=2)] = 0.0,
        stream: Annotated[bool, Form()] = False,
        language: Annotated[str, Form()] = "",
        timestamp_granularities: Annotated[
            list[Literal["word", "segment"]] | None, Form(alias="timestamp_granularities[]")
        ] = None,
    ) -> Response:
        """Writes down what is said in a sound file; keys that are not listed change nothing."""
        wish = transcripts.Wish(
            response_format, temperature, stream, language, timestamp_granularities or ()
        )
        name, content = file.filename or "file", await file.read()
        return await transcripts.transcribe(
            models.named(model), request, content, name, wish, metrics.note
        )


def _telling(app: FastAPI, models: Models, metrics: Metrics) -> None:
    """The endpoints that tell of the server."""

    def card(one: Served) -> ModelCard:
        media, context = list(one.model.media), one.prompts.context
        return ModelCard(id=one.name, created=one.created, media=media, context=context)

    @app.get("/v1/models", responses=_fails())
    async def list_models() -> ModelList:
        """The models that are served."""
        return ModelList(data=[card(one) for one in models.by_name.values()])

    @app.get("/v1/models/{name:path}", responses=_fails(404))
    async def retrieve_model(name: str) -> ModelCard:
        """One of the models."""
        return card(models.named(name))

    @app.get("/health", responses={503: {"description": "A decoder has stopped"}, **_fails()})
    async def health() -> JSONResponse:
        """Whether the server can answer."""
        well = all(one.engine.alive for one in models.by_name.values())
        return JSONResponse({"status": "ok" if well else "stopped"}, 200 if well else 503)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_fails()})
    async def prometheus() -> Response:
        """Numbers for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _leave_out_422(app: FastAPI) -> None:
    """Takes the library's own kind of refusal out of the specification: it is never given."""
    whole = app.openapi()
    for path in whole["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        whole.get("components", {}).get("schemas", {}).pop(name, None)
    app.openapi_schema = whole
