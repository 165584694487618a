"""A conversation with a model: history, attached media, streamed answers.

A user's media are encoded when they are attached and their feature rows kept, so that an encoder
sees each of them once however long the conversation becomes.

The model is shown no conversation of a form that its training never had: with a medium too many
a new one is begun, and of turns before a medium it reads no more than their media.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from omnitune.data.loader import resampled
from omnitune.data.packing import Item
from omnitune.data.taught import Taught
from omnitune.data.template import ChatRenderer
from omnitune.generation import stream
from omnitune.media.base import counted, with_article
from omnitune.media.registry import MEDIA
from omnitune.models.omni import OmniModel
from omnitune.sample import ContentPart, Media, Message, Text, UserError
from omnitune.serving.decoding import Row, RunningBatch, Sampling
from omnitune.serving.options import MAX_NEW_TOKENS
from omnitune.serving.wording import settled


@dataclass(frozen=True)
class Timing:
    """How long an answer took, in seconds: until its first token, and in all."""

    first: float = 0.0
    total: float = 0.0


class ChatSession:
    """One conversation with a model.

    Args:
        model: put into evaluation mode here.
        renderer: of the model's thinker.
        max_new_tokens: longest answer; at most half of the context is kept free for it.
        taught: what the model's training showed of media.

    Attributes:
        messages: the turns that were completed, or stopped after some words.
        notice: what the latest ``attach`` did besides, in words; "" for nothing.
        room: longest answer in tokens. limit: longest conversation before it.
        answer_tokens: ids of the latest answer, its end not included.
        timing: of the latest answer.
        system: text that stands in front of every conversation; "" for none.
        temperature: 0 takes the most likely token each time, more draws others.
    """

    def __init__(
        self,
        model: OmniModel,
        renderer: ChatRenderer,
        max_new_tokens: int = MAX_NEW_TOKENS,
        taught: Taught | None = None,
    ) -> None:
        self.model = model.eval()
        self.taught = taught or Taught()
        self.renderer = renderer
        context = model.thinker.config.max_position_embeddings
        self.room = min(max_new_tokens, context // 2)
        self.limit = context - self.room
        self.system, self.temperature = "", 0.0
        self.reset()

    def another(self) -> ChatSession:
        """A new conversation with the same model and settings."""
        other = ChatSession(self.model, self.renderer, self.room, self.taught)
        other.system, other.temperature = self.system, self.temperature
        return other

    def reset(self) -> None:
        """Forgets the conversation and what is attached; the system text stays."""
        self.messages: list[Message] = []
        self.notice = ""
        self._first = 0  # of the messages that the model reads
        self.answer_tokens: list[int] = []
        self._features: list[Tensor] = []  # of the media in messages, in their order
        self._pending: list[tuple[Media, Tensor]] = []
        self.timing = Timing()
        # Before the last question: the messages, the first that is read, media, what waited.
        self._before: tuple[list[Message], int, list[Tensor], list[tuple[Media, Tensor]]] | None
        self._before = None

    @property
    def pending(self) -> tuple[Media, ...]:
        """What goes into the next turn, in the order of the registry, as in the training data."""
        return tuple(media for media, _ in self._pending)

    def attach(self, path: str | Path, modality: str) -> int:
        """Reads and encodes a file for the next turn; returns the tokens that it takes.

        The file is not read again: a conversation keeps what was attached, not what the file
        holds later. Where the model was taught with fewer media of this kind, the newest counts:
        it takes the place of one that waits, or begins a new conversation; ``notice`` says so.

        Raises:
            UserError: the file cannot be used, or the model has no such encoder; the session is
                as it was before.
        """
        if modality not in self.model.modalities:
            raise UserError(f"this model has no encoder for {modality}")
        path = Path(path)
        with named_in_errors(path):
            self.model.modalities[modality].medium.check(path)  # before a pipe is waited for
            inputs = self.model.modalities[modality].read(path)
        with torch.no_grad():
            [features_RD] = self.model.encode(modality, [inputs.to(self.model.device)])
        self.notice = self._make_way(modality)
        self._pending.append((Media(modality, path), features_RD.cpu()))
        order = list(MEDIA)
        self._pending.sort(key=lambda pair: order.index(pair[0].modality))
        return self.model.modalities[modality].slots_for(features_RD.shape[0])

    def _make_way(self, modality: str) -> str:
        """Drops what the model cannot read beside one more medium; says so in words."""
        most, notices = self.taught.most(modality), []
        waiting = [pair for pair in self._pending if pair[0].modality == modality]
        while len(waiting) >= most:
            self._pending.remove(dropped := waiting.pop(0))
            notices.append(f"in place of {dropped[0].path.name}: {self._taught(modality, most)}")
        shown = [p for m in self.messages[self._first :] for p in m.parts if isinstance(p, Media)]
        if sum(medium.modality == modality for medium in shown) + len(waiting) >= most:
            pending = self._pending
            self.reset()
            self._pending = pending
            notices.append(f"a new conversation: {self._taught(modality, most)}")
        elif self._first < len(self.messages) and not self.taught.media_after_text:
            # In the form it was taught: media first. What was shown before moves along.
            kept = [
                (medium, rows)
                for medium, rows in zip(shown, self._features, strict=True)
                if self.taught.media_together or medium.modality == modality
            ]
            self._first, self._features = len(self.messages), []
            self._pending = [*kept, *self._pending]
            names = "".join(f", with {medium.path.name}" for medium, _ in kept)
            names += " (/reset before it leaves that out)" * bool(kept)
            notices.append(
                f"the model reads the conversation from this {modality} on{names}: "
                f"it was not taught with {with_article(modality)} after other turns"
            )
        if self.taught.never_saw(modality):
            notices.append(f"this model was taught with no {modality}: its answers are guesses")
        return "; ".join(notices)

    @staticmethod
    def _taught(modality: str, most: int) -> str:
        many = f"one {modality}" if most == 1 else counted(most, MEDIA[modality].noun)
        return f"this model was taught with {many} at a time"

    def ask(self, text: str) -> Generator[str, None, None]:
        """Answers a turn made of what is attached and a text; yields the answer in pieces.

        The turn enters the conversation when the answer is complete. A stopped answer (Ctrl-C,
        or the generator closed) enters with the words said so far, or not at all if there were
        none; then, as after an error, what is attached stays attached.

        Args:
            text: may be empty if something is attached, such as a spoken question.

        Raises:
            UserError: at once and before the model runs: there is nothing to answer, or the
                conversation is longer than the context.
        """
        user = self._turn(text)
        return self._answer(user, self._prompt(user))

    def retry(self) -> Generator[str, None, None]:
        """Answers the last question anew, as ``ask``; its old answer is forgotten.

        Raises:
            UserError: as of ``ask``, or there is no question; then the session is as it was.
        """
        if self._pending:
            raise UserError(
                f"{self._pending[-1][0].path.name} waits for its question; send that first"
            )
        if self._before is None:
            raise UserError("there is no question yet that could be asked again")
        text = self.messages[-2].text
        after = self.messages, self._first, self._features, self._pending
        self.messages, self._first, self._features, self._pending = self._before
        try:
            user = self._turn(text)
            item = self._prompt(user)
        except UserError:
            self.messages, self._first, self._features, self._pending = after
            raise
        return self._answer(user, item)

    def remember(self, text: str, answer: str) -> None:
        """Takes a turn that was answered elsewhere: what is attached, a text and its answer.

        Raises:
            UserError: as of ``ask``.
        """
        user = self._turn(text)
        self._keep(user, self._prompt(user), answer)

    def _turn(self, text: str) -> Message:
        text = text.encode("utf-8", "replace").decode("utf-8")  # undecodable bytes of a terminal
        parts: tuple[ContentPart, ...] = self.pending
        if text.strip():
            parts = (*parts, Text(text))
        if not parts:
            raise UserError("there is nothing to answer; give a text or attach a file")
        return Message("user", parts)

    def _prompt(self, user: Message) -> Item:
        features = self._features + [rows for _, rows in self._pending]
        messages, modalities = [*self.messages[self._first :], user], self.model.modalities
        if self.system.strip():
            messages.insert(0, Message("system", (Text(self.system),)))
        media = [part for m in messages for part in m.parts if isinstance(part, Media)]
        counts = [
            modalities[medium.modality].slots_for(rows.shape[0])
            for medium, rows in zip(media, features, strict=True)
        ]
        rendered = self.renderer.render_prompt(messages, counts)
        if len(rendered.tokens) > self.limit:
            raise UserError(
                f"the conversation holds {len(rendered.tokens)} tokens, the limit is {self.limit} "
                f"({self.room} more are kept for the answer); use /reset to start anew"
            )
        return Item("chat", rendered, features, resampled=resampled(modalities))

    def _answer(self, user: Message, item: Item) -> Generator[str, None, None]:
        self.answer_tokens = tokens = []
        said, start, first = "", time.perf_counter(), 0.0
        try:
            for token in self._tokens(item):
                tokens.append(token)
                first = first or time.perf_counter() - start
                self.timing = Timing(first, time.perf_counter() - start)
                whole = settled(self.renderer.decode(tokens))
                if whole != said and whole.startswith(said):
                    piece, said = whole[len(said) :], whole
                    yield piece
            if rest := self.renderer.decode(tokens)[len(said) :]:
                said += rest
                yield rest
        except (KeyboardInterrupt, GeneratorExit):
            if said:
                self._keep(user, item, said)
            raise
        self._keep(user, item, said)

    def _tokens(self, item: Item) -> Iterator[int]:
        if self.temperature <= 0:
            for step in stream(self.model, [item], self.renderer.ends, self.room):
                yield from (token for _, token in step)
            return
        batch = RunningBatch(self.model, self.renderer.ends)
        batch.join([Row(item, Sampling(self.room, self.temperature))])
        while batch.rows:
            yield from (drawn.token for _, drawn in batch.draw() if drawn)
            batch.advance()

    def _keep(self, user: Message, item: Item, answer: str) -> None:
        self._before = (list(self.messages), self._first, self._features, self._pending)
        self.messages += [user, Message("assistant", (Text(answer),))]
        self._features = list(item.media)
        self._pending = []


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Turns the system's refusal of a path (no permission, name too long) into a UserError."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from None
