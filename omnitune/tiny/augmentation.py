"""Media that never sound or look twice alike, so that no encoder learns them by heart.

What is changed is what is new in a held-out medium: the voice, the tempo, the hand, the place.

Shape suffixes: T frames, M mel bins, B pictures (each CHW values), N rows, K places.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClipChange:
    """How clips are changed.

    Attributes:
        warp: share by which the mel bins are squeezed or stretched, at most.
        tempo: share by which a clip grows longer or shorter, at most.
        band: share of the mel bins that is blanked, at most.
    """

    warp: float = 0.0
    tempo: float = 0.0
    band: float = 0.0

    def __call__(self, mel_TM: Tensor, draw: random.Random) -> Tensor:
        """A changed clip, of another length where ``tempo`` says so."""
        mel_TM = warped(mel_TM, self.warp, draw) if self.warp else mel_TM
        mel_TM = hurried(mel_TM, self.tempo, draw) if self.tempo else mel_TM
        return blanked(mel_TM, self.band, draw) if self.band else mel_TM


def warped(mel_TM: Tensor, at_most: float, draw: random.Random) -> Tensor:
    """The clip as a longer or shorter vocal tract would say it (Jaitly and Hinton 2013, "VTLP")."""
    bins = mel_TM.shape[1]
    place_M = torch.arange(bins) * (1 + draw.uniform(-at_most, at_most))
    return between(mel_TM.T, place_M.clamp(max=bins - 1)).T


def hurried(mel_TM: Tensor, at_most: float, draw: random.Random) -> Tensor:
    """The clip said faster or slower at the same pitch.

    Ko et al. 2015, "Audio augmentation for speech recognition", where the pitch moves too.
    """
    frames = len(mel_TM)
    count = max(2, round(frames * (1 + draw.uniform(-at_most, at_most))))
    return between(mel_TM, torch.arange(count) * ((frames - 1) / (count - 1)))


def between(rows_NM: Tensor, place_K: Tensor) -> Tensor:
    """Rows at places (from 0 to N - 1) between rows, by linear interpolation: ``[K, M]``."""
    below_K = place_K.long().clamp(max=len(rows_NM) - 2)
    return torch.lerp(rows_NM[below_K], rows_NM[below_K + 1], (place_K - below_K)[:, None])


def blanked(mel_TM: Tensor, at_most: float, draw: random.Random) -> Tensor:
    """The clip without a band of bins (SpecAugment, Park et al. 2019; no stretch of time)."""
    mel_TM = mel_TM.clone()
    bins = mel_TM.shape[1]
    width = draw.randint(0, int(bins * at_most))
    start = draw.randrange(max(1, bins - width))
    mel_TM[:, start : start + width] = 0
    return mel_TM


@dataclass(frozen=True)
class PictureChange:
    """How pictures are changed.

    Attributes:
        degrees: by which they are turned, at most.
        scale: share by which width and height, each, are stretched, at most.
        translate: share of a side by which they are moved, at most.
        brightness: share of a pixel's whole range by which they are lit, at most.
    """

    degrees: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    brightness: float = 0.0

    def __call__(self, pixels_BCHW: Tensor, draws: Sequence[random.Random]) -> Tensor:
        """Changed pictures, values from -1 to 1 before their light; ``draws`` has one of each."""
        affine_B23 = torch.tensor([self._affine(draw) for draw in draws])
        light_B = torch.tensor([2 * draw.uniform(-1, 1) * self.brightness for draw in draws])
        grid = nn.functional.affine_grid(affine_B23, list(pixels_BCHW.shape), align_corners=False)
        moved = nn.functional.grid_sample(
            pixels_BCHW, grid, padding_mode="border", align_corners=False
        )
        return moved + light_B[:, None, None, None]

    def _affine(self, draw: random.Random) -> list[list[float]]:
        """From places in the new picture, whose sides are 2 long, to places in the old one."""
        angle = math.radians(self.degrees * draw.uniform(-1, 1))
        wide, high = (1 + self.scale * draw.uniform(-1, 1) for _ in range(2))
        right, down = (2 * self.translate * draw.uniform(-1, 1) for _ in range(2))
        cos, sin = math.cos(angle), math.sin(angle)
        return [[cos * wide, -sin * high, right], [sin * wide, cos * high, down]]
