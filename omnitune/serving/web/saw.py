"""What a model saw of a conversation: its row of tokens, where it looked, what it might have said.

Shape suffixes: T tokens of the row, A tokens of the answer (its end included), C candidates,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from omnitune.data.audit.sample_view import pieces_of
from omnitune.data.packing import Item
from omnitune.data.template import ChatRenderer, Slots
from omnitune.generation import left_pad
from omnitune.media.registry import MEDIA
from omnitune.models.attention import watched_attention
from omnitune.models.omni import OmniModel
from omnitune.reporting.sample_lines import role_of
from omnitune.sample import UserError

CANDIDATES = 8
LONGEST = 1024  # tokens of an answer that are looked at


@dataclass(frozen=True)
class Token:
    """A token of the answer.

    Attributes:
        p: how likely the model held it. candidates: the likeliest tokens in its place.
    """

    text: str
    p: float
    candidates: list[tuple[str, float]]


@dataclass(frozen=True)
class Looked:
    """How a medium was looked at, token by token of the answer.

    Attributes:
        index: of the medium among those of the conversation.
        columns: of the grid in which its slots lie; 0 where they follow each other in time.
        attention: of each token, what part of its attention each slot had, mean over heads and
            layers. share: the sum of that.
    """

    index: int
    slots: int
    columns: int
    attention: list[list[float]]
    share: list[float]


@dataclass(frozen=True)
class Saw:
    """What a model saw.

    Attributes:
        tokens: length of the row. pieces: the row, as ``{"text", "role", "count"}``.
    """

    tokens: int
    pieces: list[dict[str, Any]]
    steps: list[Token]
    media: list[Looked]

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@torch.inference_mode()
def look_back(
    model: OmniModel, renderer: ChatRenderer, prompt: Item, answer: str, labels: Sequence[str]
) -> Saw:
    """Reads a prompt with its answer again and keeps what is otherwise thrown away.

    Args:
        prompt: the assistant's turn opened.
        answer: what the model said; its tokens are made of the text again.
        labels: of the conversation's media, in order, as they stand in the prompt.

    Raises:
        UserError: the answer is empty, or longer than is looked at.
    """
    said = [*renderer.encode(answer), renderer.end]
    context = model.thinker.config.max_position_embeddings
    room = min(LONGEST, context - len(prompt.rendered.tokens))
    if not 1 < len(said) <= room:
        raise UserError(
            f"the answer has {len(said) - 1:,} tokens, expected 1 to {max(1, room - 1):,}"
        )
    rendered = replace(
        prompt.rendered,
        tokens=[*prompt.rendered.tokens, *said],
        supervised=[False] * len(prompt.rendered.tokens) + [True] * len(said),
    )
    logits_AV, attention_AT = _read(model, replace(prompt, rendered=rendered), len(said))
    return Saw(
        len(rendered.tokens),
        [
            {"text": piece.text, "role": role_of(piece), "count": piece.count}
            for piece in pieces_of(rendered, renderer)
        ],
        _steps(renderer, logits_AV, said),
        [_looked(slots, attention_AT, labels) for slots in rendered.slots],
    )


def _read(model: OmniModel, item: Item, count: int) -> tuple[Tensor, Tensor]:
    """Logits before each of the last ``count`` tokens, and where their attention lay."""
    embeds_1TE, valid_1T = left_pad(model, [item])
    embeds_1TE, length = embeds_1TE[:, :-1], valid_1T.shape[1] - 1  # nothing follows the end
    positions_1T = torch.arange(length, device=embeds_1TE.device)[None]
    mask_TT = torch.ones(length, length, dtype=torch.bool, device=embeds_1TE.device).tril()
    with watched_attention(count) as watch:
        hidden_1TE = model.thinker.get_decoder()(
            inputs_embeds=embeds_1TE,
            attention_mask=mask_TT[None, None],
            position_ids=positions_1T,
            use_cache=False,
        ).last_hidden_state
    return model.head(hidden_1TE[0, -count:]).float(), watch.mean_QK.cpu()


def _steps(renderer: ChatRenderer, logits_AV: Tensor, said: Sequence[int]) -> list[Token]:
    shares_AV = logits_AV.softmax(dim=-1).cpu()
    top_AC = shares_AV.topk(min(CANDIDATES, shares_AV.shape[1]), dim=-1)
    steps = []
    for n, token in enumerate(said):
        pairs = zip(top_AC.indices[n].tolist(), top_AC.values[n].tolist(), strict=True)
        found = [(text_of(renderer, other), share) for other, share in pairs]
        steps.append(Token(text_of(renderer, token), float(shares_AV[n, token]), found))
    return steps


def text_of(renderer: ChatRenderer, token: int) -> str:
    """A token as people read it; half a character as the tokenizer names it."""
    text = renderer.tokenizer.decode([token], skip_special_tokens=False)
    return text if text and "\N{REPLACEMENT CHARACTER}" not in text else renderer.token_of(token)


def _looked(slots: Slots, attention_AT: Tensor, labels: Sequence[str]) -> Looked:
    shares_AS = attention_AT[:, slots.start : slots.start + slots.count]
    side = math.isqrt(slots.count)
    is_grid = MEDIA[slots.media.modality].is_spatial and side * side == slots.count
    return Looked(
        list(labels).index(str(slots.media.path)),
        slots.count,
        side if is_grid else 0,
        [[round(share, 5) for share in row] for row in shares_AS.tolist()],
        [round(share, 5) for share in shares_AS.sum(dim=1).tolist()],
    )
