"""From turns to what the model reads: in the form that its training had, and no other.

Media stand before the text of their turn, in the order of the registry. A conversation with more
media than training showed at once begins anew with the newest; what ``ChatSession`` does while one
talks is done here to a whole conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omnitune.data.loader import resampled
from omnitune.data.packing import Item
from omnitune.data.taught import Taught
from omnitune.data.template import ChatRenderer
from omnitune.media.base import counted
from omnitune.media.registry import MEDIA
from omnitune.models.omni import OmniModel
from omnitune.sample import ContentPart, Media, Message, Text, UserError
from omnitune.serving.encoded_media import EncodedMedia, GivenMedium, TooLargeError


@dataclass(frozen=True)
class Turn:
    """What one side says.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        media: shown with the text; the user's only.
    """

    role: str
    text: str = ""
    media: tuple[GivenMedium, ...] = ()


class ContextError(UserError):
    """The conversation does not fit into the model's context."""


class PromptMaker:
    """Makes prompts of conversations.

    Args:
        media: encodes what is shown.
        taught: what the model's training showed of media.
        most_turns, most_media: of one conversation; None: any number.
    """

    def __init__(
        self,
        model: OmniModel,
        renderer: ChatRenderer,
        media: EncodedMedia | None = None,
        taught: Taught | None = None,
        most_turns: int | None = None,
        most_media: int | None = None,
    ) -> None:
        self.model, self.renderer = model, renderer
        self.media = media or EncodedMedia(model)
        self.taught = taught or Taught()
        self.most_turns, self.most_media = most_turns, most_media
        self._longest_token = 0  # in characters; once it is known
        self.context: int = model.thinker.config.max_position_embeddings

    def prompt(self, turns: Sequence[Turn]) -> Item:
        """The turns so far, the assistant's opened.

        Raises:
            UserError: the conversation has another form than the model can answer.
            ContextError: it is longer than the context.
        """
        self._check(turns)
        shown = as_taught(turns, self.taught)
        self._check_length(shown)
        given = [medium for turn in shown for medium in turn.media]
        rows = [self.media.rows(medium) for medium in given]
        counts = [
            self.model.modalities[medium.modality].slots_for(len(rows_RD))
            for medium, rows_RD in zip(given, rows, strict=True)
        ]
        rendered = self.renderer.render_prompt([_message(turn) for turn in shown], counts)
        if len(rendered.tokens) >= self.context:
            raise self._too_long(f"{len(rendered.tokens):,}")
        return Item("chat", rendered, rows, resampled=resampled(self.model.modalities))

    def _check_length(self, turns: Sequence[Turn]) -> None:
        """Refuses texts that are too long whatever their tokens are; counting takes minutes."""
        if not self._longest_token:
            self._longest_token = max(map(len, self.renderer.tokenizer.get_vocab()), default=1)
        least = sum(len(turn.text.strip()) for turn in turns) // self._longest_token
        if least >= self.context:
            raise self._too_long(f"at least {least:,}")

    def _too_long(self, tokens: str) -> ContextError:
        return ContextError(
            f"the conversation holds {tokens} tokens, and the model's context is "
            f"{self.context:,}, the answer included; leave out earlier turns"
        )

    def room(self, item: Item) -> int:
        """Tokens that an answer to a prompt may have."""
        return self.context - len(item.rendered.tokens)

    def _check(self, turns: Sequence[Turn]) -> None:
        if not turns or turns[-1].role != "user":
            last = f"the last is the {turns[-1].role}'s" if turns else "there is no message"
            raise UserError(f"{last}; a conversation ends with the user's message to be answered")
        if not turns[-1].text.strip() and not turns[-1].media:
            raise UserError("there is nothing to answer; give a text or attach a file")
        count = sum(len(turn.media) for turn in turns)
        for what, found, most in (
            ("messages", len(turns), self.most_turns),
            ("media", count, self.most_media),
        ):
            if most is not None and found > most:
                raise TooLargeError(
                    f"the conversation holds {found:,} {what}, the limit of this server is "
                    f"{most:,}; leave out earlier ones"
                )


def as_taught(turns: Sequence[Turn], taught: Taught) -> list[Turn]:
    """The part of a conversation that the model is shown.

    Raises:
        UserError: one message shows more media of a kind than training did.
    """
    system = [turn for turn in turns if turn.role == "system"]
    read: list[Turn] = []
    for turn in turns:
        if turn.role == "system":
            continue
        kinds = [medium.modality for medium in turn.media]
        for kind in kinds:
            if kinds.count(kind) > taught.most(kind):
                raise UserError(
                    f"one message shows {counted(kinds.count(kind), MEDIA[kind].noun)}, but this "
                    f"model was taught with {taught.most(kind)} at a time; send one message each"
                )
        before = [medium for earlier in read for medium in earlier.media]
        kept: list[GivenMedium] = []
        if any(_count(before, k) + _count(turn.media, k) > taught.most(k) for k in kinds):
            read = []
        elif kinds and read and not taught.media_after_text:
            kept = [m for m in before if taught.media_together or m.modality in kinds]
            read = []
        order = list(MEDIA)
        media = sorted([*kept, *turn.media], key=lambda medium: order.index(medium.modality))
        read.append(replace(turn, media=tuple(media)))
    return system + read


def _count(media: Sequence[GivenMedium], modality: str) -> int:
    return sum(medium.modality == modality for medium in media)


def _message(turn: Turn) -> Message:
    parts: tuple[ContentPart, ...] = tuple(
        Media(medium.modality, Path(medium.label)) for medium in turn.media
    )
    if turn.text.strip():
        # Undecodable bytes of a terminal, or half a character of JSON, are no text.
        parts = (*parts, Text(turn.text.encode("utf-8", "replace").decode("utf-8")))
    return Message(turn.role, parts)
