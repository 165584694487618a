"""Projectors: from an encoder's rows of features to the thinker's embeddings.

Shape suffixes: N or R rows, D feature width, E embedding width, S slots of a picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """LayerNorm, Linear, GELU, Linear: [N, feature_dim] -> [N, width]."""

    def __init__(self, feature_dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_dim)
        self.up = nn.Linear(feature_dim, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, features_ND: Tensor) -> Tensor:
        """Projects rows of features to rows of embeddings."""
        hidden = nn.functional.gelu(self.up(self.norm(features_ND)))
        return self.down(hidden)

    @torch.no_grad()
    def match_scale(self, embeddings_VD: Tensor) -> None:
        """Scales the outputs to the spread of the thinker's embeddings.

        A fresh projector is many times louder or quieter than words are; the first hundreds of
        steps would go into correcting that.
        """
        probe = torch.randn(256, self.norm.normalized_shape[0], device=embeddings_VD.device)
        ratio = embeddings_VD.float().std() / self(probe.to(self.up.weight.dtype)).float().std()
        self.down.weight.mul_(ratio)
        self.down.bias.zero_()

    @torch.no_grad()
    def zero_init_(self) -> None:
        """Makes every output zero, to begin with."""
        self.down.weight.zero_()
        self.down.bias.zero_()


class GridProjector(Projector):
    """Adds to each slot an embedding of its place, so that "top left" can be looked up at once."""

    def __init__(self, feature_dim: int, width: int, slots: int) -> None:
        super().__init__(feature_dim, width)
        self.place_SE = nn.Parameter(torch.randn(slots, width) * 0.02)

    def forward(self, features_RD: Tensor) -> Tensor:
        """Projects the rows of whole pictures, ``[pictures * slots, D]``."""
        rows_RE = super().forward(features_RD)
        pictures = -(-len(rows_RE) // len(self.place_SE))
        return rows_RE + self.place_SE.repeat(pictures, 1)[: len(rows_RE)]

    @torch.no_grad()
    def match_scale(self, embeddings_VD: Tensor) -> None:
        """Scales features and places to the spread of the thinker's embeddings."""
        self.place_SE.zero_()
        super().match_scale(embeddings_VD)
        # Two independent parts of half the power each are together as loud as one word.
        self.down.weight.mul_(0.5**0.5)
        self.place_SE.normal_(std=float(embeddings_VD.float().std()) * 0.5**0.5)

    @torch.no_grad()
    def zero_init_(self) -> None:
        """Features and places are zero."""
        super().zero_init_()
        self.place_SE.zero_()
