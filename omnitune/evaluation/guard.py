"""Whether language is being lost: the text loss now against that of the starting thinker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from omnitune.data.loader import SampleReader
from omnitune.evaluation.bootstrap import Ratio, Records
from omnitune.evaluation.scoring import token_totals
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample
from omnitune.tasks import task_of

TEXT_TASK = task_of(())  # of samples that hold no medium


def text_losses(
    model: OmniModel, reader: SampleReader, singles: Sequence[Sample]
) -> list[tuple[float, int]]:
    """Summed loss of each sample and its supervised tokens; always in fp32, to be comparable."""
    with torch.autocast(model.device.type, enabled=False):
        totals = token_totals(model, [reader.item(single) for single in singles])
    return [(nll, count) for nll, _, count in totals]


def text_guard(
    now: Sequence[Sequence[float]], start: Sequence[Sequence[float]], singles: Sequence[Sample]
) -> dict[str, Any]:
    """Compares text losses with those of the starting thinker.

    Args:
        now: what :func:`text_losses` gives for the samples.
        start: what it gave before the first step.
        singles: the samples, of text alone.

    Returns:
        ``loss`` and ``start``, means over the supervised tokens, ``interval``, of their difference
        (95 %, paired bootstrap), above zero is worse, and ``records`` that it rests on.
    """
    number = Records()
    records = np.array([number(single) for single in singles], dtype=int)
    nll, count = np.array(now, dtype=float).reshape(-1, 2).T
    after = Ratio(nll, count, records)
    before = Ratio(np.array([nll for nll, _ in start]), count, records)
    return {
        "loss": after.value,
        "start": before.value,
        "interval": after.minus(before).interval(),
        "records": len(np.unique(records)),
    }


def language_lost(guard: Mapping[str, Any]) -> list[str]:
    """A warning if the text loss has grown by more than the noise."""
    interval = guard.get("interval")
    if not interval or interval[0] <= 0:
        return []
    return [
        f"language is being lost: the held-out text loss is {guard['loss']:.3f}, the starting "
        f"thinker's was {guard['start']:.3f} (95 % interval of the change {interval[0]:.3f} to "
        f"{interval[1]:.3f}); a larger share of text in the mix (text_only or "
        "a source of your own) or a lower learning_rate keeps more of it"
    ]
