"""The thinker's operators in fewer passes are the library's own."""

import sys

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Ernie4_5Config,
    Gemma2Config,
    HeliumConfig,
    LlamaConfig,
    Olmo2Config,
    PretrainedConfig,
    Qwen3Config,
)
from transformers.models.qwen3 import modeling_qwen3

from omnitune.models.kernels import cpu as operators

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.fixture(params=[Qwen3Config, LlamaConfig, Gemma2Config])
def thinker(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(request.param(**SIZES, pad_token_id=0))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, 1.0, 0.3)
    return model


def passes(model: nn.Module) -> list[Tensor]:
    """Logits and every gradient."""
    tokens = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    logits = model(tokens).logits
    logits.logsumexp(-1).square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters())]


def close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= tolerance * float(other.norm())


def the_librarys(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> list[Tensor]:
    """What the library's own operators give."""
    with monkeypatch.context() as patch:
        patch.setattr(operators, "one_by_one", lambda x: False)
        return passes(model)


def test_frozen_norm_passes_its_gradient_on() -> None:
    x, weight = torch.randn(5, 32, requires_grad=True), torch.randn(32)
    found = operators.RmsNorm.apply(x, weight, 1e-6)
    (ours,) = torch.autograd.grad(found.sin().sum(), x)
    expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight
    (plain,) = torch.autograd.grad(expected.sin().sum(), x)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_results_and_gradients_are_the_librarys(
    monkeypatch: pytest.MonkeyPatch, thinker: nn.Module, bf16: bool
) -> None:
    before = passes(thinker)
    operators.install_cpu_kernels(thinker)
    operators.install_cpu_kernels(thinker)  # once is as good as twice
    tolerance = 2e-2 if bf16 else 1e-5
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        close(passes(thinker), the_librarys(monkeypatch, thinker), tolerance)
    close(passes(thinker), before, 1e-5)


def test_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Qwen3, for its norms and its positions, unless a compiler or a GPU does better."""
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES))
    operators.install_cpu_kernels(model)
    used: list[str] = []
    for kind in (operators.RmsNorm, operators.Rotary):
        apply = kind.apply
        monkeypatch.setattr(
            kind, "apply", lambda *a, k=kind, f=apply: (used.append(k.__name__), f(*a))[1]
        )
    passes(model)
    assert used.count("RmsNorm") == 2 * 4 + 1
    assert used.count("Rotary") == 2 * 2
    used.clear()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    passes(model)
    assert not used


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 5])
def test_without_gradients_the_numbers_are_the_same(tokens: int) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(3, heads, tokens, 8, generator=draw) for heads in (4, 2))
    cos, sin = torch.randn(2, 3, tokens, 8, generator=draw)
    weight = torch.randn(8, generator=draw)
    with torch.enable_grad():
        turned = operators._turn_both(q, k, cos, sin)
        normed = operators.rms_norm(q, weight, 1e-6)
    assert all(map(torch.equal, operators._turn_both(q, k, cos, sin), turned))
    assert torch.equal(operators.rms_norm(q, weight, 1e-6), normed)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    """Gemma's weights are added to one."""
    model = AutoModelForCausalLM.from_config(Gemma2Config(**SIZES, pad_token_id=0))
    operators.install_cpu_kernels(model)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("kind", [CohereConfig, Ernie4_5Config, HeliumConfig])
def test_a_rotary_of_another_kind_is_left_alone(kind: type[PretrainedConfig]) -> None:
    """They turn neighbours, not halves; the same function serves every model of the file."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**SIZES, pad_token_id=0, initializer_range=0.3))
    file = sys.modules[type(model).__module__]
    own = file.apply_rotary_pos_emb
    before = passes(model)
    operators.install_cpu_kernels(model)
    assert file.apply_rotary_pos_emb is own
    close(passes(model), before, 1e-5)


class DoubledRMSNorm(nn.Module):
    """Named and made as a norm, but twice as loud where weights are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.variance_epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (2 * self.weight - 1) * x * scale


def test_a_norm_is_tried_with_weights_of_its_own() -> None:
    own = DoubledRMSNorm.forward
    operators.install_cpu_kernels(nn.Sequential(DoubledRMSNorm()))
    assert DoubledRMSNorm.forward is own


def test_a_norm_keeps_the_type_it_gives_back() -> None:
    """OLMo 2 rounds what it makes of bf16, Qwen3 does not."""
    model = AutoModelForCausalLM.from_config(Olmo2Config(**SIZES, pad_token_id=0))
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = model.model.norm(x)
    operators.install_cpu_kernels(model)
    assert model.model.norm(x).dtype == expected.dtype == torch.bfloat16


def test_looking_for_them_draws_no_numbers() -> None:
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES))
    state = torch.get_rng_state()
    operators.install_cpu_kernels(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_other_ways_to_call_are_the_librarys() -> None:
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES))
    operators.install_cpu_kernels(model)
    q, k = torch.randn(2, 1, 3, 5, 8).unbind()
    angles = torch.randn(1, 5, 8)
    plain = modeling_qwen3.apply_rotary_pos_emb.__wrapped__
    found = modeling_qwen3.apply_rotary_pos_emb(q, k, angles.cos(), angles.sin(), 1)
    for one, other in zip(found, plain(q, k, angles.cos(), angles.sin(), 1), strict=True):
        assert torch.equal(one, other)
