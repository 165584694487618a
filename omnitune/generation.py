"""Prefill and decode with a key-value cache: batched, greedy, streaming.

Shape suffixes: B prompts, P longest prompt, E embedding width or ends, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from omnitune.config.dealing import dealt
from omnitune.data.packing import Item, of_like_length, pack
from omnitune.models.omni import OmniModel
from omnitune.models.slots import Slots

CACHED_POSITIONS = 1 << 14  # whose keys and values are held at a time


@torch.inference_mode()
def stream(
    model: OmniModel,
    prompts: Sequence[Item],
    ends: Collection[int],
    max_new_tokens: int | Sequence[int],
) -> Iterator[list[tuple[int, int]]]:
    """Decodes greedily; each step yields (prompt number, token) of the prompts not yet done.

    Args:
        model: in evaluation mode.
        prompts: rendered with the assistant's turn opened.
        ends: tokens that end an answer; they are not yielded.
        max_new_tokens: longest answer, of all or of each.
    """
    limits = _of_each(max_new_tokens, prompts)
    logits_BV, cache, lengths = prefill(model, prompts)
    slots, device = Slots(), logits_BV.device
    slots.join(cache, lengths, range(len(prompts)))
    rows = torch.arange(len(prompts), device=device)
    limit_B = torch.tensor(limits, device=device)
    ends_E = torch.tensor(sorted(ends), dtype=torch.long, device=device)
    for length in range(max(limits)):
        tokens_B = logits_BV.argmax(dim=-1)
        going = torch.isin(tokens_B, ends_E, invert=True)
        if length in limits:
            going &= limit_B[rows] > length
        if not going.any():
            return
        if not going.all():
            order = slots.keep(going.nonzero().squeeze(1).tolist())
            rows, tokens_B = rows[order], tokens_B[order]
        yield list(zip(rows.tolist(), tokens_B.tolist(), strict=True))
        logits_BV = decode_step(model, tokens_B, slots)


def prefill(model: OmniModel, prompts: Sequence[Item]) -> tuple[Tensor, DynamicCache, list[int]]:
    """Reads prompts: the logits behind each ``[B, V]``, keys and values, lengths."""
    lengths = [len(prompt.rendered.tokens) for prompt in prompts]
    embeds_BPE, valid_BP = left_pad(model, prompts)
    positions_BP = (valid_BP.cumsum(1) - 1).clamp(min=0)
    seen_BP = None if min(lengths) == max(lengths) else valid_BP
    cache = DynamicCache()
    return model.predict(embeds_BPE, seen_BP, positions_BP, cache), cache, lengths


def decode_step(model: OmniModel, tokens_B: Tensor, slots: Slots) -> Tensor:
    """Reads one token of each answer: the logits behind it ``[B, V]``."""
    seen_BL, position_B = slots.open_step()
    embeds_B1E = model.embed(tokens_B, {}).unsqueeze(1)
    logits_BV = model.predict(embeds_B1E, seen_BL, position_B[:, None], slots)
    slots.close_step()
    return logits_BV


def generate(
    model: OmniModel,
    prompts: Sequence[Item],
    ends: Collection[int],
    max_new_tokens: int | Sequence[int],
    batch_size: int = 128,
    on_progress: Callable[[int], None] = lambda n: None,
) -> list[list[int]]:
    """Answers many prompts, those of like length together; returns each one's tokens in order.

    Args:
        max_new_tokens: longest answer, of all or of each.
        batch_size: prompts at a time, at most; fewer where they are long.
        on_progress: called with the number of prompts just answered.
    """
    limits = _of_each(max_new_tokens, prompts)
    lengths = [len(p.rendered.tokens) + n for p, n in zip(prompts, limits, strict=True)]
    answers: list[list[int]] = [[] for _ in prompts]
    chunks = list(of_like_length(lengths, batch_size, CACHED_POSITIONS))

    def answer(chunk: list[int]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in chunk]
        some, at_most = [prompts[n] for n in chunk], [limits[n] for n in chunk]
        for step in stream(model, some, ends, at_most):
            for row, token in step:
                found[row].append(token)
        on_progress(len(chunk))
        return found

    for chunk, found in zip(chunks, dealt(answer, chunks), strict=True):
        for n, tokens in zip(chunk, found, strict=True):
            answers[n] = tokens
    return answers


def _of_each(max_new_tokens: int | Sequence[int], prompts: Sequence[Item]) -> list[int]:
    if isinstance(max_new_tokens, int):
        return [max_new_tokens] * len(prompts)
    return list(max_new_tokens)


def left_pad(model: OmniModel, prompts: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Embeds the prompts as one packed row, then lines up their ends: ``[B, P, E]``, ``[B, P]``."""
    batch = pack(prompts).to(model.device)
    embeds_TE = model.embed_batch(batch)
    lengths = [len(prompt.rendered.tokens) for prompt in prompts]
    longest = max(lengths)
    embeds_BPE = embeds_TE.new_zeros(len(prompts), longest, embeds_TE.shape[1])
    valid_BP = torch.zeros(len(prompts), longest, dtype=torch.bool, device=embeds_TE.device)
    for row, piece in enumerate(embeds_TE.split(lengths)):
        embeds_BPE[row, longest - len(piece) :] = piece
        valid_BP[row, longest - len(piece) :] = True
    return embeds_BPE, valid_BP
