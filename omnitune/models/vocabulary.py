"""A thinker's embeddings and its tokenizer's tokens: room for placeholders and what they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer

from omnitune.data.template import ChatRenderer, placeholder

VOCABULARY_STEP = 64  # rows of embeddings, to a multiple of which new ones are rounded up


@torch.no_grad()
def add_placeholders(thinker: Any, renderer: ChatRenderer, modalities: Iterable[str]) -> int:
    """Gives the tokenizer a placeholder for each medium that it lacks.

    A new embedding is the mean of the others (Hewitt 2021), though it is never read: features
    stand in its place. It is no answer either, so that it needs no training. The number of rows is
    rounded up to a multiple of ``VOCABULARY_STEP``, which matrix products like.

    Returns:
        words of the vocabulary before; 0 if it lacked none.
    """
    tokens = [placeholder(name) for name in modalities]
    missing = [token for token in tokens if renderer.tokenizer.token_to_id(token) is None]
    known, rows = num_ids(renderer.tokenizer), thinker.get_input_embeddings().weight.shape[0]
    if known > rows:
        print(
            f"warning: the thinker has embeddings of {rows} tokens and its tokenizer has {known}; "
            "the others begin as the mean of those, so see that both are of one model"
        )
    elif not missing:
        return 0
    renderer.add_tokens(missing)
    fit_vocabulary(thinker, known, num_ids(renderer.tokenizer))
    return known


def num_ids(tokenizer: Tokenizer) -> int:
    """One above the largest id; there may be fewer tokens, as some vocabularies have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


@torch.no_grad()
def fit_vocabulary(thinker: Any, known: int, size: int) -> None:
    """Makes room for ``size`` ids; those from ``known`` on are the mean of the others.

    Rows that no token has (some thinkers have more rows than tokens) stay as they are.
    """
    rows = thinker.get_input_embeddings().weight.shape[0]
    if size > rows:
        rounded = -(-size // VOCABULARY_STEP) * VOCABULARY_STEP
        thinker.resize_token_embeddings(rounded, mean_resizing=False)
    known = min(known, rows)
    heads = (thinker.get_input_embeddings(), thinker.get_output_embeddings())
    for weight in {id(module.weight): module.weight for module in heads}.values():
        mean = weight[:known].float().mean(dim=0).to(weight.dtype)
        weight[known:size] = mean
        weight[rows:] = mean
