"""A model as a server offers it: with a name, limits, and a thread that decodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from omnitune.data.packing import Item
from omnitune.sample import UserError
from omnitune.serving.decoding import Sampling
from omnitune.serving.encoded_media import EncodedMedia
from omnitune.serving.engine import Engine
from omnitune.serving.prompts import PromptMaker, Turn
from omnitune.serving.python import ChatModel
from omnitune.serving.scheduler import MOST_ROWS, Job, Scheduler


@dataclass(frozen=True)
class Limits:
    """What a server takes of a client.

    Attributes:
        body_bytes, body_seconds: of a request, and until it has arrived.
        pixels, seconds: of one medium.
        media, turns: of one conversation. choices: answers to one request (``n``).
        waiting: requests in line. rows: answers that are decoded at a time.
    """

    body_bytes: int = 32 << 20
    body_seconds: float = 120.0
    pixels: float = 25_000_000
    seconds: float = 300
    media: int = 16
    turns: int = 64
    choices: int = 8
    waiting: int = 64
    rows: int = MOST_ROWS


class Served:
    """A loaded model behind a server.

    Attributes:
        name: by which clients ask for it. created: seconds since 1970.
        rows: what is encoded of media. prompts, engine: of this model.
    """

    def __init__(self, name: str, model: ChatModel, limits: Limits | None = None) -> None:
        self.name, self.model, self.limits = name, model, limits or Limits()
        self.created = int(time.time())
        most = {"pixels": self.limits.pixels, "seconds": self.limits.seconds}
        self.rows = EncodedMedia(model.model, most)
        self.prompts = PromptMaker(
            model.model,
            model.renderer,
            self.rows,
            model.taught,
            self.limits.turns,
            self.limits.media,
        )
        scheduler = Scheduler(
            model.model, model.renderer, self.limits.rows, most_waiting=self.limits.waiting
        )
        self.engine = Engine(scheduler)

    def prompt(self, turns: Sequence[Turn]) -> Item:
        """What the model reads of a conversation. Takes as long as its media take to encode.

        Raises:
            BusyError: there would be no place for an answer.
        """
        self.engine.scheduler.check_room(1)
        return self.prompts.prompt(turns)

    def jobs(
        self,
        item: Item,
        sampling: Sampling,
        count: int = 1,
        stops: Sequence[str] = (),
        streams: bool = False,
    ) -> list[Job]:
        """Jobs of several answers to one prompt, each with draws of its own.

        Raises:
            UserError: there are too many.
        """
        if count > self.limits.choices:
            raise UserError(
                f"n is {count}, the limit of this server is {self.limits.choices} answers a request"
            )
        room = self.prompts.room(item)
        return [
            self.engine.job(item, sampling.of_choice(choice, room), stops, streams)
            for choice in range(count)
        ]
