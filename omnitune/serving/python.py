"""A model in three lines of Python.

from omnitune import load_model
model = load_model("checkpoints/omni_sft_tiny")
print(model.chat("what is this?", image="x.png"))
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch

from omnitune.config.settings import read_json_object
from omnitune.data.packing import Item
from omnitune.data.taught import Taught
from omnitune.data.template import ChatRenderer
from omnitune.evaluation.runs import as_object
from omnitune.models.loading import load_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.serving.decoding import Sampling
from omnitune.serving.encoded_media import EncodedMedia
from omnitune.serving.folder import require_model
from omnitune.serving.handed import (
    check_sampling,
    checked_stops,
    checked_text,
    given_media,
    turns_of,
)
from omnitune.serving.options import MAX_NEW_TOKENS
from omnitune.serving.prompts import PromptMaker, Turn
from omnitune.serving.scheduler import Job, Scheduler
from omnitune.serving.session import ChatSession
from omnitune.tasks import TASKS, Task

Messages = Sequence[Mapping[str, Any]]
TRANSCRIPTION = "transcription"  # the task


class ChatModel:
    """A loaded model that answers. Several threads may use it at once: they are decoded together.

    Args:
        model: in evaluation mode. renderer: of its thinker. taught: what training showed of media.
        transcription_prompt: how it was asked for transcripts.

    Attributes:
        model, renderer, taught: as given.
        media: kinds of media that it reads. media_rows: what is encoded of them, by content.
    """

    def __init__(
        self,
        model: OmniModel,
        renderer: ChatRenderer,
        taught: Taught | None = None,
        transcription_prompt: str = "",
    ) -> None:
        self.model, self.renderer, self.taught = model.eval(), renderer, taught or Taught()
        self.media: tuple[str, ...] = tuple(model.modalities)
        self.media_rows = EncodedMedia(model)
        self.prompts = PromptMaker(model, renderer, self.media_rows, self.taught)
        self._scheduler = Scheduler(model, renderer)
        self.transcription_prompt = transcription_prompt or question_of(TRANSCRIPTION)

    def __repr__(self) -> str:
        return f"ChatModel(reads text, {', '.join(self.media)}; on {self.model.device})"

    def session(self, max_new_tokens: int = MAX_NEW_TOKENS) -> ChatSession:
        """A conversation that remembers: ``attach(path, kind)``, then ``ask(text)`` in pieces."""
        return ChatSession(self.model, self.renderer, max_new_tokens, self.taught)

    @overload
    def chat(
        self,
        text: str | None = "",
        *,
        messages: Messages = (),
        stream: Literal[False] = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
        **media: Any,
    ) -> str: ...

    @overload
    def chat(
        self,
        text: str | None = "",
        *,
        messages: Messages = (),
        stream: Literal[True],
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
        **media: Any,
    ) -> Iterator[str]: ...

    def chat(
        self,
        text: str | None = "",
        *,
        messages: Messages = (),
        stream: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
        **media: Any,
    ) -> str | Iterator[str]:
        """Answers a text, media, or both.

        Args:
            text: of the user; may be empty beside a medium, such as a spoken question.
            messages: earlier turns (or all of them, without a text and media), such as
                ``{"role": "user", "content": "hello"}``; the user's may name media, as
                ``{"role": "user", "content": "what is this?", "image": "x.png"}``.
            stream: give the answer in pieces, as it is written.
            max_new_tokens: longest answer.
            temperature: 0 takes the most likely token each time. top_p: share of the probability
                that is drawn from. seed: of the draws.
            stop: texts that end the answer.
            **media: by kind (``image=``, ``audio=``), a path, the bytes of a file, a Pillow image,
                an array or tensor (a sound's samples at 16 kHz, or a pair of samples and their
                rate), an open file, None, or a list of these. Nothing is fetched from an address.

        Raises:
            UserError: the conversation cannot be answered; says why.
        """
        turns = turns_of(messages or ())
        given, text = given_media(media), checked_text(text)
        if text or given or not turns:
            turns.append(Turn("user", text, given))
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        check_sampling(sampling)
        item = self.prompts.prompt(turns)
        stops = checked_stops(stop)
        pieces = self._answer(item, sampling, stops)
        return pieces if stream else "".join(pieces)

    def transcribe(
        self, sound: Any, *, prompt: str = "", max_new_tokens: int = MAX_NEW_TOKENS
    ) -> str:
        """Writes down what is said in a sound.

        Args:
            sound: path, bytes, or samples at 16 kHz.
            prompt: the request; by default the one that the model was taught.

        Raises:
            UserError: there is no sound, or it cannot be read.
        """
        if sound is None:  # a chat would go on without it, and the model make up words
            raise UserError("sound is None, expected a path, the bytes of a file, or samples")
        kind = min(task_of_model(TRANSCRIPTION, self.media).media or ())
        return self.chat(
            prompt or self.transcription_prompt, max_new_tokens=max_new_tokens, **{kind: sound}
        )

    def _answer(self, item: Item, sampling: Sampling, stops: Sequence[str]) -> Iterator[str]:
        pieces: deque[str] = deque()
        room = min(sampling.max_new_tokens, self.prompts.room(item))
        sampling = Sampling(room, sampling.temperature, sampling.top_p, sampling.seed)
        job = self._scheduler.job(
            item, sampling, stops, on_change=lambda job, piece: pieces.append(piece)
        )
        self._scheduler.submit([job])
        try:
            yield from self._pieces(job, pieces)
        finally:
            job.cancel()  # nothing where it has ended
        if job.error is not None:
            raise job.error

    def _pieces(self, job: Job, pieces: deque[str]) -> Iterator[str]:
        while not job.done or pieces:
            if not pieces:
                self._scheduler.wait_for(job)
            elif piece := pieces.popleft():
                yield piece


def load_model(ckpt_dir: str | os.PathLike[str], device: str | torch.device = "auto") -> ChatModel:
    """Loads a model to talk to.

    Args:
        ckpt_dir: output folder of a run, its ``omni.pt``, or a folder that ``omnitune export``
            wrote.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: a GPU if there is one.

    Raises:
        UserError: there is no model; says what is there.
    """
    if not isinstance(ckpt_dir, str | os.PathLike):
        raise UserError(f"ckpt_dir is {ckpt_dir!r}, expected the path of a model's folder")
    path = Path(ckpt_dir)
    require_model(path)
    model, renderer, values = load_omni(path, _device(device))
    return ChatModel(model, renderer, Taught.of(values), _taught_prompt(path))


def _device(name: str | torch.device) -> torch.device:
    """The device of a name; a UserError says where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise TypeError(name)
    except (RuntimeError, TypeError):
        raise UserError(f'device is {name!r}, expected "auto", "cpu" or "cuda"') from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f'device is "{device}", but torch finds no such GPU here; give "auto" or "cpu"'
        )
    return device


def question_of(task: str) -> str:
    """What is asked for in a task of which nobody says how the model was asked."""
    return TASKS[task].question if task in TASKS else ""


def task_of_model(name: str, media: Sequence[str]) -> Task:
    """A task that a model with encoders for these media can do.

    Raises:
        UserError: it lacks one.
    """
    task = TASKS[name]
    lacking = sorted((task.media or frozenset()) - set(media))
    if lacking:
        raise UserError(f"this model has no encoder for {', '.join(lacking)}, so no {name}")
    return task


def _taught_prompt(ckpt_dir: Path) -> str:
    """How a run asked for transcripts, if it did so in one way."""
    folder = ckpt_dir if ckpt_dir.is_dir() else ckpt_dir.parent
    try:
        tasks = as_object(read_json_object(folder / "results.json").get("tasks"))
    except (UserError, RecursionError):
        return ""
    with_ = as_object(as_object(tasks.get(TRANSCRIPTION)).get("scored_with"))
    prompt = with_.get("prompt")
    return prompt if isinstance(prompt, str) else ""
