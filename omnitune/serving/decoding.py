"""Answers of many requests, decoded together: new ones join between two steps.

The library's own manager of continuous batches takes token ids only, and media are embeddings; so
what is said here is who is in the batch, and ``Slots`` holds what each has read.

Shape suffixes: B answers in the batch, V vocabulary, S sampled answers.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from omnitune.data.packing import Item
from omnitune.generation import decode_step, prefill
from omnitune.models.omni import OmniModel
from omnitune.models.slots import Slots

STOP, LENGTH = "stop", "length"  # why an answer ended, as the OpenAI API says it


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 takes the most likely token each time.
        top_p: share of the probability that is drawn from, the most likely tokens first.
        seed: of the draws; None: other answers each time.
        top_logprobs: how many likely tokens are told beside each chosen one; None: not even the
            probability of that.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | str | None = None
    top_logprobs: int | None = None

    def of_choice(self, number: int, room: int) -> Sampling:
        """The same for one of several answers, each with draws of its own.

        Args:
            room: tokens that it may have at most.
        """
        seed = None if self.seed is None else f"{self.seed}/{number}"
        return replace(self, max_new_tokens=min(self.max_new_tokens, room), seed=seed)


class Drawn(NamedTuple):
    """A token of an answer: its logarithmic probability and likely others, where asked for."""

    token: int
    logprob: float = 0.0
    others: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Row:
    """An answer that is being written.

    Attributes:
        finish: why it ended; "" while it goes on. Whoever sets it takes the answer out of the
            batch before the next step.
        length: its tokens so far.
    """

    item: Item
    sampling: Sampling
    finish: str = ""
    length: int = 0
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.sampling.seed)

    @property
    def most_positions(self) -> int:
        """What it may take of the cache."""
        return len(self.item.rendered.tokens) + self.sampling.max_new_tokens


class RunningBatch:
    """The answers that are decoded together. A step is ``draw``, then ``advance``.

    Each answer is what it would be alone: its draws are its own, and padding is not seen.

    Args:
        model: in evaluation mode.
        ends: tokens that end an answer.

    Attributes:
        rows: the answers, in the order of the cache.
    """

    def __init__(self, model: OmniModel, ends: Collection[int]) -> None:
        self.model, self.ends = model, frozenset(ends)
        self.rows: list[Row] = []
        self._cache = Slots()
        self._logits_BV = torch.empty(0)
        self._next: list[int] = []  # tokens that were drawn and are not read yet

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Reads the prompts of new answers. A prompt that several share is read once."""
        items = list({id(row.item): row.item for row in rows}.values())
        places = {id(item): place for place, item in enumerate(items)}
        which = [places[id(row.item)] for row in rows]
        logits_BV, cache, lengths = prefill(self.model, items)
        logits_BV = logits_BV[which]
        if self.rows:
            logits_BV = torch.cat([self._logits_BV, logits_BV])
        self._cache.join(cache, lengths, which)
        self._logits_BV = logits_BV
        self.rows += rows

    @torch.inference_mode()
    def draw(self) -> list[tuple[Row, Drawn | None]]:
        """Chooses the next token of each answer; None where the answer has ended before it."""
        logits_BV = self._logits_BV.float()
        tokens_B = logits_BV.argmax(dim=-1)
        drawn = [n for n, row in enumerate(self.rows) if row.sampling.temperature > 0]
        if drawn:
            tokens_B[drawn] = _sample(logits_BV[drawn], [self.rows[n] for n in drawn])
        self._next = tokens_B.tolist()
        told = self._logprobs(logits_BV, tokens_B)
        steps: list[tuple[Row, Drawn | None]] = []
        for place, (row, token) in enumerate(zip(self.rows, self._next, strict=True)):
            if token in self.ends or row.sampling.max_new_tokens < 1:
                row.finish = row.finish or (STOP if token in self.ends else LENGTH)
                steps.append((row, None))
                continue
            row.length += 1
            if row.length >= row.sampling.max_new_tokens:
                row.finish = row.finish or LENGTH
            steps.append((row, told.get(place, Drawn(token))))
        return steps

    @torch.inference_mode()
    def advance(self) -> None:
        """Reads the tokens that were drawn; answers that ended leave the batch."""
        keep = [place for place, row in enumerate(self.rows) if not row.finish]
        if not keep:
            self.rows, self._cache = [], Slots()
            return
        if len(keep) < len(self.rows):
            order = self._cache.keep(keep)
            self.rows = [self.rows[place] for place in order]
            self._next = [self._next[place] for place in order]
        tokens_B = torch.tensor(self._next, device=self.model.device)
        self._logits_BV = decode_step(self.model, tokens_B, self._cache)

    def _logprobs(self, logits_BV: Tensor, tokens_B: Tensor) -> dict[int, Drawn]:
        """By place in the batch, what is told of the tokens of answers that ask for it."""
        asking = {n: row.sampling.top_logprobs for n, row in enumerate(self.rows)}
        wanted = {n: count for n, count in asking.items() if count is not None}
        if not wanted:
            return {}
        logs_SV = logits_BV[list(wanted)].log_softmax(dim=-1)
        found: dict[int, Drawn] = {}
        for logs_V, (place, count) in zip(logs_SV, wanted.items(), strict=True):
            token = int(tokens_B[place])
            top = logs_V.topk(min(count, len(logs_V)))
            others = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            found[place] = Drawn(token, float(logs_V[token]), tuple(others))
        return found


def _sample(logits_SV: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draws a token for each answer from the likeliest that together have its ``top_p``: ``[S]``.

    Holtzman et al. 2020. The random numbers are the answer's own, whoever is beside it.
    """
    device = logits_SV.device
    temperature_S = torch.tensor([row.sampling.temperature for row in rows], device=device)
    top_p_S = torch.tensor([row.sampling.top_p for row in rows], device=device)
    random_S = torch.tensor([row.draw.random() for row in rows], device=device)
    # Less the greatest first: a low temperature would make numbers that are none.
    logits_SV = logits_SV - logits_SV.max(dim=-1, keepdim=True).values
    shares_SV = (logits_SV / temperature_S[:, None]).softmax(dim=-1)
    sorted_SV, tokens_SV = shares_SV.sort(dim=-1, descending=True, stable=True)
    before_SV = sorted_SV.cumsum(dim=-1) - sorted_SV
    kept_SV = sorted_SV * (before_SV < top_p_S[:, None])
    kept_SV[:, 0] = sorted_SV[:, 0]
    total_SV = kept_SV.cumsum(dim=-1)
    place_S = (total_SV <= random_S[:, None] * total_SV[:, -1:]).sum(dim=-1)
    most_S = (kept_SV > 0).sum(dim=-1) - 1
    return tokens_SV.gather(1, place_S.minimum(most_S)[:, None])[:, 0]
