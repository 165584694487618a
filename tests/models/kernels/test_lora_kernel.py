"""A layer under LoRA in one step gives what peft's own forward pass gives, and its gradients."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from omnitune.models.kernels import cpu as operators
from omnitune.models.kernels import lora


def adapted(dtype: torch.dtype = torch.float32, bias: bool = True, **settings: Any) -> nn.Module:
    """Two layers under adapters that have learnt something, in training."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(48, 80, bias=bias), nn.Linear(80, 64, bias=bias)).to(dtype)
    layers.requires_grad_(False)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["0", "1"], **settings)
    inject_adapter_in_model(config, layers)
    for name, weight in layers.named_parameters():
        if ".lora_" in name:
            weight.data = weight.data.float()
            nn.init.normal_(weight, 1.0 if "magnitude" in name else 0.0, 0.1)
    for layer in layers:
        lora.install(layer)
        lora.install(layer)  # once is as good as twice
    return layers.train()


def passes(layers: nn.Module, bf16: bool, dtype: torch.dtype, reads: bool = True) -> list[Tensor]:
    """The result, the gradient of what is read, and those of the adapters."""
    x_BTI = torch.randn(2, 99, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    x_BTI.requires_grad_(reads)
    layers.zero_grad()
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y_BTO = layers(x_BTI)
    y_BTO.float().sin().sum().backward()
    found = [y_BTO.detach(), *([x_BTI.grad] if reads else [])]
    return found + [p.grad for p in layers.parameters() if p.requires_grad]


def compare(
    monkeypatch: pytest.MonkeyPatch, layers: nn.Module, bf16: bool, dtype: torch.dtype, **rest: Any
) -> None:
    """In bf16 as near to the result in fp32 as peft's is."""
    found = passes(layers, bf16, dtype, **rest)
    with monkeypatch.context() as patch:
        patch.setattr(operators, "replaced", False)
        expected = passes(layers, bf16, dtype, **rest)
        exact = passes(copy.deepcopy(layers).float(), False, torch.float32, **rest)
    assert len(found) == len(expected)
    for one, other, best in zip(found, expected, exact, strict=True):
        assert one.dtype == other.dtype
        error = float((other - best).norm()) if bf16 else 1e-5 * float(best.norm())
        assert float((one - best).norm()) <= 1.2 * error


FORMATS = pytest.mark.parametrize(
    ("bf16", "dtype"),
    [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)],
)


@FORMATS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reads", [True, False])
def test_results_and_gradients_are_pefts(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, dtype: torch.dtype, bias: bool, reads: bool
) -> None:
    with monkeypatch.context() as patch:
        seen: list[Any] = []
        apply = lora.LoraProduct.apply
        patch.setattr(lora.LoraProduct, "apply", lambda *x: seen.append(x) or apply(*x))
        compare(monkeypatch, adapted(dtype, bias), bf16, dtype, reads=reads)
        assert len(seen) == 2  # once a layer, and peft's own without it


@FORMATS
@pytest.mark.parametrize(
    "settings",
    [{"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}],
)
def test_other_kinds_are_pefts_too(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    if settings.get("use_dora") and dtype == torch.bfloat16:
        pytest.skip("peft's own mixes formats there")
    compare(monkeypatch, adapted(dtype, **settings), bf16, dtype)


def test_adapter_that_is_switched_off_is_not_seen() -> None:
    layers = adapted()
    x = torch.randn(3, 48)
    for layer in layers:
        layer._disable_adapters = True
    torch.testing.assert_close(layers(x), layers[1].base_layer(layers[0].base_layer(x)))


def test_layer_that_is_trained_itself_has_its_gradients() -> None:
    layers = adapted()
    layers[0].base_layer.weight.requires_grad_(True)
    layers(torch.randn(3, 48)).sum().backward()
    assert float(layers[0].base_layer.weight.grad.norm()) > 0
