"""The end of stage E: the thinker's weights are interpolated with those that the run began with.

On the straight line from its last weights to its first ones, what was forgotten returns before what
is new is lost (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from omnitune.data.packing import Item
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.evaluation.scoring import token_scoreboard
from omnitune.models.omni import OmniModel
from omnitune.training.checkpoint import copied

SHARES_TRIED = 6  # evenly from none to the largest


@torch.no_grad()
def interpolate_weights(
    model: OmniModel,
    start: Mapping[str, Tensor],
    items: Sequence[Item],
    largest: float,
    ranks: Distributed | None = None,
) -> dict[str, Any]:
    """Interpolates the thinker with its start, by the share of it that has the least loss.

    Args:
        model: in evaluation mode.
        items: held-out samples, none of them of the splits that are scored at the end.
        start: by name, weights of the thinker that bring back how it began; others stay.
        largest: share of ``start`` up to which is tried.
        ranks: share the scoring; rank 0 alone has ``start``, and sends the others the weights.

    Returns:
        the ``share`` that was taken, 0 for none, and the ``losses`` by share: means over the
        supervised tokens.
    """
    ranks = ranks or SingleProcess()
    names = set(ranks.share(list(start)))
    trained = {name: p for name, p in model.thinker.named_parameters() if name in names}
    end = copied(trained, None) if ranks.rank == 0 else {}
    same = (torch.equal(weight, start[name].to(weight.dtype)) for name, weight in end.items())
    if ranks.share(all(same)):
        return {"share": 0.0, "losses": {}}  # it was frozen
    losses: dict[float, float] = {}
    for n in range(SHARES_TRIED):
        share = float(f"{largest * n / (SHARES_TRIED - 1):.4g}")
        _interpolate(trained, end, start, share, ranks)
        losses[share] = ranks.scores(model, lambda: token_scoreboard(model, items)["loss"])
    best = min(losses, key=lambda share: (losses[share], share))
    _interpolate(trained, end, start, best, ranks)
    return {"share": best, "losses": {f"{share:g}": loss for share, loss in losses.items()}}


def _interpolate(
    trained: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    share: float,
    ranks: Distributed,
) -> None:
    for name, weight in end.items():
        trained[name].copy_(torch.lerp(weight, start[name].to(weight.dtype), share))
    ranks.send(list(trained.values()))
