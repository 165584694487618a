"""How projected media come to stand in the sequence that the thinker reads.

The packed model of training and the standard model share it.

Shape suffixes: T tokens, E embedding width, R feature rows or slots, D feature width, V words,
M media.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from omnitune.encoders.projectors import Projector
from omnitune.encoders.vocab_head import VocabHead


def project(
    features_RD: Tensor,
    rows_M: Sequence[int],
    projector: Projector,
    readout: VocabHead | None,
    words: Callable[[], Tensor],
    silence_RE: Tensor,
) -> Tensor:
    """What the thinker reads in the slots of some media: ``[R, E]``.

    Args:
        rows_M: feature rows of each medium.
        readout: what names the thinker's words in the features, if anything does.
        words: gives the embeddings of the thinker's words ``[V, E]``.
        silence_RE: what stands in the slots without media, read with a readout only; its number
            format is the result's.
    """
    # In its own number format: a fresh projector's is fp32 before a thinker in half precision.
    own = next((p.dtype for p in projector.parameters()), silence_RE.dtype)
    rows_RE = projector(features_RD.to(own), rows_M).to(silence_RE.dtype)
    if readout is None:
        return rows_RE
    return rows_RE + readout.soft_embed(features_RD, words(), silence_RE).to(silence_RE.dtype)


def word_embeddings(embeddings: nn.Module) -> Tensor:
    """How the decoder reads each word of the vocabulary: ``[V, E]``."""
    weight: Tensor = embeddings.weight  # type: ignore[assignment]
    if type(embeddings) is nn.Embedding:
        return weight
    # Some families scale them (Gemma).
    return embeddings(torch.arange(len(weight), device=weight.device))


def zero_term(unused: Iterable[nn.Module], like: Tensor) -> Tensor:
    """Zero that depends on every trained weight of projector and encoder of a medium not shown.

    Every process then has a gradient for the same parameters, whatever its batch holds; otherwise
    a text-only batch on one of them would leave the others waiting.

    Args:
        like: gives device and number format.
    """
    trained = [p for module in unused for p in module.parameters() if p.requires_grad]
    zero = like.new_zeros(())
    if not trained:
        return zero
    # Of a weight that is sharded, this process may hold nothing.
    firsts = torch.stack([p.reshape(-1)[:1].to(zero).sum() for p in trained])
    return 0.0 * firsts.sum()


def keep_statistics(encoders: nn.ModuleDict) -> None:
    """Leaves encoders without gradients, and every BatchNorm, in evaluation mode.

    BatchNorm in an encoder stays with the statistics it was pretrained with: those of the few
    media of a batch would be others than in scoring, and than the cached features have.
    """
    for encoder in encoders.values():
        frozen = not any(p.requires_grad for p in encoder.parameters())
        for module in encoder.modules():
            if frozen or isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
