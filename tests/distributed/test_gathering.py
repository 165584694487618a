"""A divided model that is made whole again: the same weights, and never twice in memory."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import tiny_model
from rank_helpers import Held, needs_fork, on_ranks, whole
from torch import nn

from omnitune.config.parallel import ParallelSettings
from omnitune.distributed import sharding
from omnitune.distributed.opening import open_ranks
from omnitune.storage import write_checkpoint

pytestmark = needs_fork
SETTINGS = ParallelSettings(mode="fsdp")
WIDTH, LAYERS = 64, 8


def made_whole(rank: int, everywhere: bool) -> dict[str, Any]:
    with open_ranks(SETTINGS, torch.device("cpu")) as ranks, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "fits_whole", lambda *_: everywhere)
        model = tiny_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        ranks.prepare(model)
        assert ranks.make_whole(model) is everywhere
        if rank and not everywhere:
            return {"has": sum(p.numel() for p in model.parameters())}
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
        assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
        model.load_state_dict(before)
        assert not ranks.sharded
        return {"has": sum(p.numel() for p in model.parameters())}


@pytest.mark.parametrize("everywhere", [True, False])
def test_the_weights_are_those_that_were_divided(everywhere: bool) -> None:
    first, second = whole(on_ranks(2, partial(made_whole, everywhere=everywhere)))
    assert first["has"] > 0
    assert second["has"] == (first["has"] if everywhere else 0)


class Large(nn.Module):
    """Has what is asked of a model to divide it."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers = [nn.Linear(width, width, bias=False) for _ in range(LAYERS)]
        self.thinker = nn.Module()
        self.thinker.layers = nn.ModuleList(layers)
        self.thinker.get_decoder = lambda: SimpleNamespace(layers=self.thinker.layers)  # type: ignore[assignment]
        self.encoders = nn.ModuleDict()


def peak_of(rank: int, folder: Path) -> float:
    """Most bytes of tensors at a time, as a share of the model's, while rank 0 gathers it."""
    with open_ranks(SETTINGS, torch.device("cpu")) as ranks, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "fits_whole", lambda *_: False)
        model = Large()
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        ranks.prepare(model)
        with Held() as held:
            ranks.make_whole(model)
            if rank == 0:
                write_checkpoint(folder / "omni.pt", {"model": model.state_dict()})
        return held.most / size


def test_no_rank_holds_the_model_twice(tmp_path: Path) -> None:
    first, second = whole(on_ranks(2, partial(peak_of, folder=tmp_path)))
    assert 1.0 <= first < 1.3
    assert 0 < second < 0.9
