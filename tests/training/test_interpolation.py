"""Blending with the start: the share with the least loss, and no other weights than of the line."""

import pytest
import torch
from helpers import SENTENCES, conversation, tiny_model, tiny_reader
from torch import Tensor

from omnitune.data.packing import Item, pack
from omnitune.evaluation.scoring import token_scoreboard
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.training.interpolation import interpolate_weights


def weights(model: OmniModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.thinker.state_dict().items()}


@pytest.fixture(scope="module")
def items() -> list[Item]:
    reader = tiny_reader(tiny_model())
    return [reader.item(conversation(f"{n}", "say it.", s)) for n, s in enumerate(SENTENCES[:4])]


@pytest.fixture(scope="module")
def taught(items: list[Item]) -> dict[str, Tensor]:
    """Weights of a thinker that learnt the items."""
    model = tiny_model().train()
    optimizer = torch.optim.AdamW(model.thinker.parameters(), lr=3e-3)
    for _ in range(20):
        sums, counts = model(pack(items, 1))
        (sums.sum() / counts.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model.eval())


def test_what_was_unlearnt_comes_back(items: list[Item], taught: dict[str, Tensor]) -> None:
    model = tiny_model()
    model.thinker.load_state_dict(taught)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in model.thinker.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 * float(parameter.std()))
    end = weights(model)
    found = interpolate_weights(model, taught, items, 0.5)
    assert list(found["losses"]) == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert found["share"] == 0.5
    for name, parameter in model.thinker.named_parameters():
        expected = 0.5 * end[name] + 0.5 * taught[name]
        torch.testing.assert_close(parameter.data, expected)
    assert found["losses"]["0.5"] < found["losses"]["0"]
    loss = token_scoreboard(model, items)["loss"]
    assert loss == pytest.approx(found["losses"]["0.5"], rel=1e-5)


def test_what_was_learnt_is_kept(items: list[Item], taught: dict[str, Tensor]) -> None:
    model = tiny_model()
    start = weights(tiny_model(seed=1))
    model.thinker.load_state_dict(taught)
    assert interpolate_weights(model, start, items, 0.9)["share"] == 0
    assert all(torch.equal(tensor, taught[name]) for name, tensor in weights(model).items())


def test_weights_that_are_shared_stay_shared(items: list[Item]) -> None:
    settings = tiny_model().config.thinker | {"tie_word_embeddings": True}
    torch.manual_seed(0)
    model, other = (OmniModel(OmniConfig(settings)).eval() for _ in range(2))
    end, start = weights(model), weights(other)
    share = interpolate_weights(model, start, items, 1.0)["share"]
    head, table = model.thinker.lm_head.weight, model.thinker.get_input_embeddings().weight
    assert head is table
    key = "model.embed_tokens.weight"
    torch.testing.assert_close(table.data, torch.lerp(end[key], start[key], share))


def test_a_thinker_that_was_frozen_is_left_alone(items: list[Item]) -> None:
    model = tiny_model()
    start = weights(model)
    assert interpolate_weights(model, start, items, 0.3) == {"share": 0.0, "losses": {}}
    assert all(torch.equal(tensor, start[name]) for name, tensor in weights(model).items())
