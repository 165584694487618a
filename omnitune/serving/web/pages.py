"""The page and what it asks beside the API: models, cards, examples, what a model saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from omnitune.config.serving import WebConfig
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.serving.api.errors import UnknownModelError
from omnitune.serving.api.requests import ChatMessage, turns_of
from omnitune.serving.api.server import serve
from omnitune.serving.prompts import Turn
from omnitune.serving.python import TRANSCRIPTION, task_of_model
from omnitune.serving.served import Served
from omnitune.serving.web.card import card_of
from omnitune.serving.web.held_out import examples_of
from omnitune.serving.web.saw import look_back
from omnitune.serving.web.shown import shown

STATIC = Path(__file__).parent / "static"
# Nothing comes from elsewhere, and nothing that a model says can become a script.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "style-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)


@dataclass
class PageModel:
    """A model on the page.

    Attributes:
        served: as the API offers it. path: of its folder or file.
    """

    served: Served
    path: Path

    def about(self, number: int) -> dict[str, Any]:
        """What the page has to know of it."""
        model = self.served.model
        return {
            "number": number,
            "name": self.served.name,
            "title": self.served.name,
            "base": "/v1",
            "about": self._sentence(),
            "media": [
                {"name": kind, "noun": MEDIA[kind].noun, "most": model.taught.most(kind)}
                for kind in model.media
            ],
            "media_after_text": model.taught.media_after_text,
            "media_together": model.taught.media_together,
            "transcribes": self._transcribes,
            "max_tokens": self.served.prompts.context // 2,
        }

    def _sentence(self) -> str:
        nouns = [f"{MEDIA[kind].noun}s" for kind in self.served.model.media]
        if not nouns:
            return f"{self.served.name} reads text."
        kinds = " and ".join(filter(None, [", ".join(nouns[:-1]), nouns[-1]]))
        return f"{self.served.name} reads text, {kinds}. Drop, paste or choose a file."

    @property
    def _transcribes(self) -> bool:
        try:
            task_of_model(TRANSCRIPTION, self.served.model.media)
        except UserError:
            return False
        return True

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Read once: the data may be large."""
        return examples_of(self.path)

    @cached_property
    def card(self) -> dict[str, Any]:
        """Of its run, as that is now."""
        return card_of(self.served.name, self.path, self.served.model.model).values()

    def saw(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """What it saw of a conversation, whose last turn is its answer.

        Raises:
            UserError: the conversation does not end with an answer, or cannot be read.
        """
        if not turns or turns[-1].role != "assistant":
            raise UserError("expected a conversation that ends with the assistant's answer")
        *asked, answer = turns
        labelled: list[Turn] = []
        labels: list[str] = []
        for turn in asked:
            names = [f"medium {len(labels) + n}" for n in range(1, len(turn.media) + 1)]
            named = (replace(m, label=n) for m, n in zip(turn.media, names, strict=True))
            labelled.append(replace(turn, media=tuple(named)))
            labels += names
        prompt, model = self.served.prompts.prompt(labelled), self.served.model
        saw = look_back(model.model, model.renderer, prompt, answer.text, labels)
        return saw.values()


def serve_page(config: WebConfig) -> int:
    """Serves models with their page until it is told to stop; returns the exit status."""

    def complete(app: FastAPI, served: Sequence[Served]) -> None:
        add_pages(app, [PageModel(*pair) for pair in zip(served, config.ckpt_dir, strict=True)])

    return serve(config, complete, "/")


class Conversation(BaseModel):
    """A conversation that ends with an answer, in the form of a chat request's messages."""

    messages: list[ChatMessage]


def add_pages(app: FastAPI, models: Sequence[PageModel]) -> None:
    """Adds the page and what it asks to an app. The page's own files need no API key."""

    def model_of(number: int) -> PageModel:
        if not 0 <= number < len(models):
            raise UnknownModelError(f"there is no model {number}; there are {len(models)}")
        return models[number]

    @app.get("/web/models", include_in_schema=False)
    def list_models() -> dict[str, Any]:
        listed = [model.about(n) for n, model in enumerate(models)]
        return {"models": listed, "most_bytes": models[0].served.limits.body_bytes}

    @app.get("/web/models/{number}/card", include_in_schema=False)
    def show_card(number: int) -> dict[str, Any]:
        return model_of(number).card

    @app.get("/web/models/{number}/examples", include_in_schema=False)
    def show_examples(number: int) -> dict[str, Any]:
        return {"examples": model_of(number).examples}

    @app.post("/web/models/{number}/saw", include_in_schema=False)
    def show_saw(number: int, body: Conversation) -> dict[str, Any]:
        return model_of(number).saw(turns_of(body.messages))

    @app.post("/web/shown/{kind}", include_in_schema=False)
    async def show_medium(kind: str, request: Request) -> Response:
        content = await request.body()
        made = await run_in_threadpool(shown, kind, content, models[0].served.rows)
        return Response(made[1], media_type=made[0], headers={"X-Content-Type-Options": "nosniff"})

    app.add_middleware(_PageFiles)


class _PageFiles:
    """Gives out the files of the page, before anything else looks at the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.page = app, _Page(directory=STATIC, html=True)
        self.paths = {"/", *(f"/{file.name}" for file in STATIC.iterdir())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_file = scope["type"] == "http" and scope["path"] in self.paths
        await (self.page if is_file else self.app)(scope, receive, send)


class _Page(StaticFiles):
    """The files of the page, each with what the browser shall keep it to."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-cache"  # another version may be started tomorrow
        return response
