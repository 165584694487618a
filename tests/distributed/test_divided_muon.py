"""Muon on matrices that are divided among ranks does what it does on whole ones."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from rank_helpers import needs_fork, on_ranks, whole
from torch import Tensor

from omnitune.config.sft import SftConfig
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.sharding import divided_like
from omnitune.training import optim

STEPS = 3


def steps_on(rank: int, parallel: dict[str, object]) -> tuple[dict[str, Tensor], int]:
    """Steps by gradients that are drawn; the weights, and how many matrices this rank turned."""
    config = SftConfig(output_dir=Path("x"), optimizer="muon", parallel=parallel)
    turned, real = 0, optim.orthogonalize

    def counted(matrices_BMN: Tensor, products: torch.dtype) -> Tensor:
        nonlocal turned
        turned += len(matrices_BMN)
        return real(matrices_BMN, products)

    with (
        open_ranks(config.parallel, torch.device("cpu")) as ranks,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(optim, "orthogonalize", counted)
        torch.manual_seed(0)
        model = tiny_model()
        ranks.prepare(model)
        optimizer = optim.build_optimizer(model, config)
        for _ in range(STEPS):
            for parameter in model.parameters():
                parameter.grad = divided_like(parameter, torch.randn(parameter.shape))
            optimizer.step()
        return ranks.whole_state(model), turned


@needs_fork
@pytest.mark.parametrize(
    ("count", "grid"),
    [(2, {}), pytest.param(4, {"shard": 2, "replicate": 2}, marks=pytest.mark.slow)],
)
def test_ranks_share_the_matrices_and_end_with_the_same_weights(
    count: int, grid: dict[str, int]
) -> None:
    alone, all_of_them = steps_on(0, {})
    found = whole(on_ranks(count, partial(steps_on, parallel={"mode": "fsdp", **grid})))
    for name, tensor in alone.items():
        torch.testing.assert_close(found[0][0][name], tensor, atol=1e-6, rtol=1e-5)
    first, second = (turned for _, turned in found[:2])
    assert first + second == all_of_them
    assert abs(first - second) < all_of_them / 2
