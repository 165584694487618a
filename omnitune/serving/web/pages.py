"""The page and what it asks beside the API: models, cards, examples, what a model saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.serving.prompts import Turn
from omnitune.serving.python import TRANSCRIPTION, ChatModel, task_of_model
from omnitune.serving.web.card import card_of
from omnitune.serving.web.held_out import examples_of
from omnitune.serving.web.saw import look_back

STATIC = Path(__file__).parent / "static"
# Nothing comes from elsewhere, and nothing that a model says can become a script.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
ReadTurns = Callable[[Mapping[str, Any]], Sequence[Turn]]


@dataclass
class ServedModel:
    """A model on the page.

    Attributes:
        name: in requests. path: of its folder or file. base: where its API is ("/v1").
    """

    name: str
    path: Path
    chat: ChatModel
    base: str = "/v1"
    title: str = field(default="")

    def __post_init__(self) -> None:
        self.title = self.title or self.name

    def about(self, number: int) -> dict[str, Any]:
        """What the page has to know of it."""
        taught = self.chat.taught
        return {
            "number": number,
            "name": self.name,
            "title": self.title,
            "base": self.base,
            "about": self._sentence(),
            "media": [
                {"name": kind, "noun": MEDIA[kind].noun, "most": taught.most(kind)}
                for kind in self.chat.media
            ],
            "transcribes": self._transcribes,
            "max_tokens": self.chat.prompts.context // 2,
        }

    def _sentence(self) -> str:
        nouns = [f"{MEDIA[kind].noun}s" for kind in self.chat.media]
        if not nouns:
            return f"{self.title} reads text."
        kinds = " and ".join(filter(None, [", ".join(nouns[:-1]), nouns[-1]]))
        return f"{self.title} reads text, {kinds}. Drop, paste or choose a file, or try one:"

    @property
    def _transcribes(self) -> bool:
        try:
            task_of_model(TRANSCRIPTION, self.chat.media)
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
        return card_of(self.title, self.path, self.chat.model).values()

    def saw(self, turns: Sequence[Turn]) -> dict[str, object]:
        """What it saw of a conversation, whose last turn is its answer.

        Raises:
            UserError: the conversation does not end with an answer, or cannot be read.
        """
        if not turns or turns[-1].role != "assistant":
            raise UserError("expected a conversation that ends with the assistant's answer")
        *asked, answer = turns
        labelled, labels = [], []
        for turn in asked:
            names = [f"medium {len(labels) + n}" for n in range(1, len(turn.media) + 1)]
            named = (replace(m, label=n) for m, n in zip(turn.media, names, strict=True))
            labelled.append(replace(turn, media=tuple(named)))
            labels += names
        prompt = self.chat.prompts.prompt(labelled)
        saw = look_back(self.chat.model, self.chat.renderer, prompt, answer.text, labels)
        return saw.values()


def add_pages(app: FastAPI, models: Sequence[ServedModel], read_turns: ReadTurns) -> None:
    """Adds the page and its routes to an app. They come last: the page takes all other paths.

    Args:
        read_turns: makes the turns of the body of a chat request.
    """

    def model_of(number: int) -> ServedModel:
        if not 0 <= number < len(models):
            raise HTTPException(404, f"there is no model {number}")
        return models[number]

    @app.get("/web/models")
    def list_models() -> dict[str, Any]:
        return {"models": [model.about(n) for n, model in enumerate(models)]}

    @app.get("/web/models/{number}/card")
    def show_card(number: int) -> dict[str, Any]:
        return model_of(number).card

    @app.get("/web/models/{number}/examples")
    def show_examples(number: int) -> dict[str, Any]:
        return {"examples": model_of(number).examples}

    @app.post("/web/models/{number}/saw", response_model=None)
    def show_saw(number: int, body: dict[str, Any]) -> dict[str, object] | Response:
        model = model_of(number)
        try:
            return model.saw(read_turns(body))
        except UserError as error:
            return JSONResponse({"error": {"message": str(error)}}, 400)

    app.mount("/", _Page(directory=STATIC, html=True))


class _Page(StaticFiles):
    """The files of the page, each with what the browser shall keep it to."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-cache"  # another version may be started tomorrow
        return response
