"""Spotting: which words are seen in which slots, learnt from captions that say none of the places.

Shape suffixes: B pictures, S slots, W words, M words that captions have, K numbers of slots.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

ACROSS = 2  # slots that show the same thing, where it stands on their border
NEVER = -1e4  # log-likelihood; finite, so that its gradient is


def word_presence_loss(logits_BSW: Tensor, counts_BW: Tensor) -> Tensor:
    """Negative log-likelihood (nats, summed) of the words that captions have, in any slots.

    A word that the caption has n times is seen in one slot at least and in ``ACROSS`` times n at
    most, every other word in none. (With no bound, as in a noisy-or, nothing keeps a slot from
    saying what its neighbours show.)

    Args:
        logits_BSW: log-odds that a slot shows a word.
        counts_BW: how often the caption has it.
    """
    logits_BSW = logits_BSW.float()
    picture_M, word_M = counts_BW.nonzero(as_tuple=True)
    there_MS = logits_BSW.transpose(1, 2)[picture_M, word_M]
    slots = there_MS.shape[1]
    most_M = (ACROSS * counts_BW[picture_M, word_M]).clamp(max=slots)
    number_MK = slots_that_show(there_MS, int(most_M.max()) if len(most_M) else 0)
    beyond_MK = torch.arange(number_MK.shape[1], device=most_M.device) > most_M[:, None]
    allowed_MK = number_MK.masked_fill(beyond_MK, NEVER)[:, 1:]
    absent = logsigmoid(-logits_BSW).sum() - logsigmoid(-there_MS).sum()
    return -(allowed_MK.logsumexp(dim=1).sum() + absent)


def slots_that_show(logits_MS: Tensor, most: int) -> Tensor:
    """Log-likelihoods that none, one, ..., ``most`` of independent slots show a word: ``[M, K]``.

    Slot after slot (the Poisson binomial distribution, by its usual recursion).
    """
    number_MK = logits_MS.new_full((len(logits_MS), most + 1), NEVER)
    number_MK[:, 0] = 0.0
    for logit_M in logits_MS.unbind(dim=1):
        one_more_MK = number_MK[:, :-1] + logsigmoid(logit_M)[:, None]
        number_MK = number_MK + logsigmoid(-logit_M)[:, None]
        number_MK = torch.cat(
            [number_MK[:, :1], torch.logaddexp(number_MK[:, 1:], one_more_MK)], dim=1
        )
    return number_MK
