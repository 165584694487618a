"""Whether keeping the features of frozen encoders pays, from a trial on some of the media."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from omnitune.data.feature_cache import FeatureStore
from omnitune.data.reading import media_of
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample

TRIED = 64  # media of a modality that are encoded both ways
AT_A_STEP = 4  # media that a step of a few samples encodes together
SPARED = 0.5  # of the free disk is left alone


@dataclass(frozen=True)
class Estimate:
    """What encoding each medium once, and keeping its rows, is expected to cost and to save.

    Attributes:
        media: to be encoded. once, each_time: seconds for the whole run, with and without.
        size: bytes of the rows. free: bytes of disk.
    """

    media: int
    once: float
    each_time: float
    size: int
    free: int

    @property
    def fits(self) -> bool:
        """Whether the disk has room enough."""
        return self.size <= self.free * (1 - SPARED)

    @property
    def pays(self) -> bool:
        """Whether to keep the rows."""
        return self.fits and self.once < self.each_time

    def __str__(self) -> str:
        told = (
            f"features of {self.media} media: encoded once about {self.once:.0f} s and "
            f"{self.size / 1e6:.0f} MB, at every step {self.each_time:.0f} s"
        )
        if self.pays:
            return f"{told}; each is encoded once"
        why = "" if self.fits else f" (the disk has {self.free / 1e6:.0f} MB left)"
        return f"{told}; nothing is kept{why}"


def estimate(
    model: OmniModel, samples: Sequence[Sample], root: Path, uses: Mapping[str, float]
) -> Estimate | None:
    """Measures on the first media of each modality; what is encoded for it is kept.

    Args:
        root: folder of the stores.
        uses: how often each medium will be asked for in the run, by modality.

    Returns:
        None where the first media are there from an earlier run, or they are few anyway.
    """
    model.eval()
    paths: dict[str, list[Path]] = {}
    for medium, _ in media_of(samples):
        if medium.modality in uses:
            paths.setdefault(medium.modality, []).append(medium.path)
    media, once, each_time, size = 0, 0.0, 0.0, 0
    for name, found in paths.items():
        modality, encoder = model.modalities[name], model.encoders[name]
        store = FeatureStore(modality, encoder, root)
        tried = store.missing(found[:TRIED]) if len(found) > TRIED else []
        if not tried:
            continue
        started = time.perf_counter()
        store.prepare(tried)
        once += len(found) * (time.perf_counter() - started) / len(tried)
        rows = sum(len(store(path)) for path in tried)
        size += 2 * modality.feature_dim * rows * len(found) // len(tried)
        started = time.perf_counter()
        for first in range(0, len(tried), AT_A_STEP):
            some = tried[first : first + AT_A_STEP]
            inputs = [modality.read(path).to(model.device) for path in some]
            with torch.inference_mode():
                modality.encode(encoder, inputs)
        each_time += uses[name] * len(found) * (time.perf_counter() - started) / len(tried)
        media += len(found)
    if not media:
        return None
    root.mkdir(parents=True, exist_ok=True)
    return Estimate(media, once, each_time, size, shutil.disk_usage(root).free)
