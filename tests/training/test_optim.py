"""The optimiser's groups and the schedule."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from torch import nn

from omnitune.config.sft import SftConfig
from omnitune.models.omni import OmniModel
from omnitune.training.optim import (
    Muon,
    build_optimizer,
    hidden_matrices,
    orthogonalize,
    rate_factor,
    set_rate,
    trainable,
)

CONFIG = SftConfig(output_dir=Path("x"), learning_rate=1e-3, weight_decay=0.1, adam_beta2=0.9)
RATES = {"proj": 1e-2, "encoders": 1e-5}


def by_name(model: OmniModel, key: str) -> dict[str, float]:
    """A setting of the optimiser by parameter name."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = build_optimizer(model, CONFIG, RATES).param_groups
    return {names[id(p)]: group[key] for group in groups for p in group["params"]}


def test_every_trained_weight_is_in_one_group() -> None:
    model = tiny_model()
    model.freeze_encoders()
    groups = build_optimizer(model, CONFIG).param_groups
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for _, p in trainable(model))
    assert not set(listed) & {id(p) for p in model.encoders.parameters()}


def test_norms_and_biases_do_not_decay() -> None:
    model = tiny_model()
    decays = by_name(model, "weight_decay")
    spared = {
        f"{place}.{name}".lstrip(".")
        for place, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if "norm" in type(module).__name__.lower() or name.startswith("bias")
    }
    assert any(name.startswith("thinker") for name in spared)
    wrong = {name for name, decay in decays.items() if (decay == 0.0) != (name in spared)}
    assert wrong == set()
    assert set(decays.values()) == {0.0, 0.1}


def test_projectors_and_encoders_have_their_own_rate() -> None:
    rates = by_name(tiny_model(), "peak_lr")
    expected = {"proj_v": 1e-2, "proj_a": 1e-2, "encoders": 1e-5, "thinker": 1e-3}
    assert {name.split(".")[0]: rate for name, rate in rates.items()} == expected
    assert all(rate == expected[name.split(".")[0]] for name, rate in rates.items())


def test_rate_is_a_share_of_each_groups_peak() -> None:
    optimizer = build_optimizer(tiny_model(), CONFIG, RATES)
    for factor in (0.5, 0.1, 1.0):
        set_rate(optimizer, factor)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(factor * group["peak_lr"])


def test_settings_of_adam() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), CONFIG)
    assert optimizer.defaults["betas"] == (0.9, 0.9)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}


def test_warm_up_is_linear_from_the_first_step() -> None:
    rates = [rate_factor(step, 1000, 100, 0.1) for step in range(100)]
    assert rates == pytest.approx([(step + 1) / 100 for step in range(100)])


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_cosine_falls_from_the_peak_to_the_floor(floor: float) -> None:
    rates = [rate_factor(step, 1000, 100, floor) for step in range(99, 1001)]
    assert rates[0] == rates[1] == 1.0
    assert rates[-1] == pytest.approx(floor)
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert rate_factor(550, 1000, 100, floor) == pytest.approx((1 + floor) / 2)  # half way
    quarter = rate_factor(325, 1000, 100, floor)
    assert quarter == pytest.approx(floor + (1 - floor) * (2 + 2**0.5) / 4)
    assert rate_factor(2000, 1000, 100, floor) == pytest.approx(floor)


@pytest.mark.parametrize("total", [1, 2, 3, 10, 999])
def test_short_run_reaches_its_peak(total: int) -> None:
    rates = [rate_factor(step, total, 500, 0.1) for step in range(total)]
    assert max(rates) == 1.0
    assert all(0 < rate <= 1 for rate in rates)
    assert rates.index(1.0) <= total // 2
    assert rate_factor(0, total, 0, 0.1) == 1.0


def test_decay_shrinks_weights_and_spares_norms() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    before = {name: p.clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, CONFIG).step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 1e-3 * 0.1))
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_orthogonalized_matrices_have_singular_values_near_one(products: torch.dtype) -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 8), (2, 24, 8), (2, 8, 24)):
        matrices = torch.randn(shape)
        found = orthogonalize(matrices, products)
        assert found.dtype == torch.float32
        values = torch.linalg.svdvals(found)
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4
        # The singular vectors stay: the product with the input's transpose is nearly symmetric.
        product = found @ matrices.mT
        assert float((product - product.mT).abs().max()) < 0.02 * float(product.abs().max())


def test_muon_takes_hidden_matrices_and_adam_the_rest() -> None:
    model = tiny_model()
    config = SftConfig(output_dir=Path("x"), optimizer="muon", muon_learning_rate=0.5)
    optimizer = build_optimizer(model, config, RATES)
    names = {id(p): name for name, p in model.named_parameters()}
    mine = {names[id(p)] for g in optimizer.param_groups if g["orthogonal"] for p in g["params"]}
    assert mine == {names[id(p)] for p in hidden_matrices(model)}
    assert any("q_proj" in name for name in mine)
    assert not any(part in name for name in mine for part in ("embed_tokens", "head", "norm"))


def test_a_step_of_muon_is_a_rotation_of_the_rates_size() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    config = SftConfig(
        output_dir=Path("x"), optimizer="muon", muon_learning_rate=0.1, weight_decay=0.0
    )
    optimizer = build_optimizer(layer, config)
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer(torch.randn(32, 16)).square().sum().backward()
    optimizer.step()
    moved = torch.linalg.svdvals(layer.weight.detach() - before)
    assert float(moved.min()) > 0.05
    assert float(moved.max()) < 0.14
    assert not torch.equal(layer.bias, bias)


def test_muon_goes_on_from_its_state() -> None:
    """Two steps in one go and one step, saved, loaded, and one more: the same weights."""
    config = SftConfig(output_dir=Path("x"), optimizer="muon")

    def step(layer: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        layer(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(1)
    whole = nn.Linear(6, 4)
    parts = nn.Linear(6, 4)
    parts.load_state_dict(whole.state_dict())
    optimizer = build_optimizer(whole, config)
    step(whole, optimizer, 2)
    step(whole, optimizer, 3)
    first = build_optimizer(parts, config)
    step(parts, first, 2)
    second = build_optimizer(parts, config)
    second.load_state_dict(first.state_dict())
    assert isinstance(second, Muon)
    step(parts, second, 3)
    torch.testing.assert_close(parts.weight, whole.weight, atol=0, rtol=0)
    torch.testing.assert_close(parts.bias, whole.bias, atol=0, rtol=0)
