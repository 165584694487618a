"""The one renderer: a conversation becomes token ids, a loss mask and media slots.

Training, evaluation, chat and every server call it, so that what is served is what was trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from omnitune.sample import ContentPart, Media, Message, Text, UserError

PAD = "<|pad|>"
CONTROL_TOKENS = (PAD, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def placeholder(modality: str) -> str:
    """Special token that fills the slots of a medium."""
    return f"<|{modality}|>"


@dataclass(frozen=True)
class Slots:
    """Where a medium's feature rows go: ``count`` positions from ``start``."""

    media: Media
    start: int
    count: int


@dataclass
class Rendered:
    """A conversation as the thinker reads it.

    Attributes:
        tokens: ids, placeholders included.
        supervised: whether each token carries loss (as a target).
        slots: the media, in order.
        turns: (message index, first token, past the last token) of each supervised turn.
        masked: first token, and past the last, of each assistant turn that is not to be learnt.
        added: further ids (id, position) that stand in the same places as some of ``tokens``.
    """

    tokens: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)
    slots: list[Slots] = field(default_factory=list)
    turns: list[tuple[int, int, int]] = field(default_factory=list)
    masked: list[tuple[int, int]] = field(default_factory=list)
    added: list[tuple[int, int]] = field(default_factory=list)


class ChatRenderer:
    """Renders ``<|user|>``...``<|end|><|assistant|>``...``<|end|>``.

    Args:
        tokenizer: with all of ``CONTROL_TOKENS`` in its vocabulary, and the placeholders of the
            media that it is to render.

    Attributes:
        end: the token that ends a turn. ends: all those at which an answer ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # A user who types "<|end|>" must get those letters, not the end of the turn.
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        missing = [token for token in CONTROL_TOKENS if tokenizer.token_to_id(token) is None]
        if missing:
            raise UserError(f"the thinker's tokenizer lacks the tokens {', '.join(missing)}")
        self.end = self.id_of("<|end|>")
        self.ends = frozenset({self.end})
        self.encode = lru_cache(maxsize=65_536)(self._encode)

    def add_tokens(self, tokens: Sequence[str]) -> None:
        """Adds control tokens, such as placeholders."""
        self.tokenizer.add_special_tokens(list(tokens))

    def state(self) -> dict[str, Any]:
        """What ``chat_template.renderer_of`` makes the renderer from, as a checkpoint holds it."""
        return {"tokenizer": self.tokenizer.to_str()}

    def id_of(self, token: str) -> int:
        """Id of a control token or of a medium's placeholder.

        Raises:
            UserError: the tokenizer has no such token.
        """
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise UserError(f"the thinker's tokenizer lacks the token {token}")
        return number

    def token_of(self, number: int) -> str:
        """The token of an id."""
        return str(self.tokenizer.id_to_token(number))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text.strip(), add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an answer, special tokens left out."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    def render(self, messages: Sequence[Message], slot_counts: Sequence[int] = ()) -> Rendered:
        """Renders whole turns.

        Args:
            messages: the conversation.
            slot_counts: feature rows of each medium, in the order in which media stand.

        Returns:
            ids, mask and slots; every token of an assistant turn is supervised, its end included,
            unless its weight is 0.
        """
        counts = iter(slot_counts)
        out = Rendered()
        for index, message in enumerate(messages):
            self._append(out, [self.id_of(f"<|{message.role}|>")])
            start = len(out.tokens)
            supervised = message.learnt
            for part in message.parts:
                self._append_part(out, part, counts, supervised)
            self._append(out, [self.end], supervised)
            if supervised:
                out.turns.append((index, start, len(out.tokens)))
            elif message.role == "assistant":
                out.masked.append((start, len(out.tokens)))
        return out

    def render_prompt(
        self, messages: Sequence[Message], slot_counts: Sequence[int] = ()
    ) -> Rendered:
        """Renders the turns so far and opens the assistant's."""
        out = self.render(messages, slot_counts)
        self._append(out, [self.id_of("<|assistant|>")])
        return out

    def _append(self, out: Rendered, tokens: Sequence[int], supervised: bool = False) -> None:
        out.tokens.extend(tokens)
        out.supervised.extend([supervised] * len(tokens))

    def _append_part(
        self, out: Rendered, part: ContentPart, counts: Iterator[int], supervised: bool
    ) -> None:
        if isinstance(part, Text):
            self._append(out, self.encode(part.text), supervised)
        elif isinstance(part, Media):
            slots = Slots(part, len(out.tokens), next(counts))
            out.slots.append(slots)
            self._append(out, [self.id_of(placeholder(part.modality))] * slots.count)
        else:
            for first, *others in part.positions(self.encode, self.id_of):
                out.added += [(token, len(out.tokens)) for token in others]
                self._append(out, [first])
