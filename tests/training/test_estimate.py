"""A plan: from settings alone, and what a run says beside it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ENCODERS, sft_settings
from torch.utils.flop_counter import FlopCounterMode

from omnitune.cli import main
from omnitune.config.lora import LoraSettings
from omnitune.config.sft import SftConfig
from omnitune.models import loading
from omnitune.sample import UserError
from omnitune.training import devices, sft
from omnitune.training.costs import encoder_cost, passes, thinker_flops
from omnitune.training.devices import DEVICES, find_device, this_device
from omnitune.training.estimate import empty_model, estimate_run, plan_run
from omnitune.training.plan_lines import MEASURED_STEPS, Comparison, plan_lines

H100 = DEVICES["h100"]


@pytest.fixture(scope="module")
def setup(home: Path) -> sft.TrainingSetup:
    return sft.build_training(sft_settings(home, "setup"))


def flat(config: SftConfig, **rest: Any) -> dict[str, Any]:
    return plan_run(config.model_copy(update=rest), "h100")


def test_no_weights_are_loaded_and_nothing_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, setup: sft.TrainingSetup
) -> None:
    config = sft_settings(home, "planned")
    monkeypatch.setattr(loading, "read_checkpoint", lambda *_: pytest.fail("weights are read"))
    model, _ = empty_model(config)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    there = {name: tensor.shape for name, tensor in setup.model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == there
    plan_run(config)
    assert not config.out.exists()


def test_parts_are_counted_as_they_are_trained(home: Path, setup: sft.TrainingSetup) -> None:
    parts = flat(sft_settings(home))["parts"]
    for name, part in setup.model.parts().items():
        count = sum(p.numel() for p in part.parameters())
        trained = 0 if name.endswith("_encoder") else count
        assert parts[name] == {"trained": trained, "frozen": count - trained}
    thawed = flat(sft_settings(home), freeze_encoders=False)["parts"]
    assert all(counts["frozen"] == 0 for counts in thawed.values())


def test_samples_are_measured_as_they_are_shown(home: Path, setup: sft.TrainingSetup) -> None:
    plan = flat(sft_settings(home))
    stream = setup.strategy.stream
    for name, kind in plan["samples"].items():
        numbers = [k for k in range(400) if stream.mixture.sample_at(k)[0] == name][:100]
        items = [item for k in numbers for item in stream.items_at(k)]
        tokens = sum(item.row_tokens for item in items) / len(numbers)
        assert kind["tokens"] == pytest.approx(tokens, rel=0.05)
        assert kind["longest"] == max(item.row_tokens for item in items)
    assert plan["samples"]["image_text"]["slots"] == {"image": 4}
    assert plan["batch"]["tokens"] <= plan["batch"]["largest"]


def test_a_plan_follows_the_settings(home: Path) -> None:
    config = sft_settings(home, max_interpolation=0)
    plan = flat(config)
    assert plan["steps"] == 4
    assert plan["memory_total"] == sum(plan["memory"].values())
    twice = flat(config, batch_size=8)
    assert twice["memory"]["activations"] > 1.5 * plan["memory"]["activations"]
    assert sum(twice["flops_per_step"].values()) == pytest.approx(
        2 * sum(plan["flops_per_step"].values()), rel=0.05
    )
    thawed = flat(config, freeze_encoders=False)
    assert thawed["memory"]["activations"] > plan["memory"]["activations"]
    assert thawed["flops_per_step"]["vision_encoder"] > 0
    assert "vision_encoder" not in plan["flops_per_step"]  # cached
    assert plan["feature_cache_bytes"] > 0
    assert flat(config, max_interpolation=0.5)["memory"]["start"] > 0
    assert plan["hours"] == pytest.approx(4 * plan["step_seconds"] / 3600)


def test_the_work_of_a_thinker_is_what_torch_counts(setup: sft.TrainingSetup) -> None:
    stream, model = setup.strategy.stream, setup.model
    items = [stream.items_at(k) for k in range(8)]
    batch = stream.pack(items)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()
        model(batch)
    model.train()
    flat_items = [item for found in items for item in found]
    squares = sum(item.row_tokens * len(item.rendered.tokens) for item in flat_items)
    found = thinker_flops(model, len(batch.tokens_T), len(batch.labels_N), squares)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.3)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_counted_without_values(setup: sft.TrainingSetup, name: str) -> None:
    encoder = setup.model.modalities[name]
    example = torch.randn(3, 32, 32) if name == "image" else torch.randn(80, 40)
    with torch.device("meta"):
        module = encoder.build()
    cost = encoder_cost(encoder, module, example)
    linear = sum(p.numel() for p in module.parameters() if p.ndim == 2)
    assert cost.flops > 2 * linear
    assert cost.kept > 4 * encoder.num_slots(example) * encoder.feature_dim


def test_a_frozen_part_hands_gradients_on_only() -> None:
    layer = torch.nn.Linear(4, 4)
    assert passes(layer) == 3
    assert passes(layer.requires_grad_(False)) == 2


def test_adapters_are_counted(home: Path) -> None:
    lora = LoraSettings(r=4, targets={"thinker": "q_proj"})
    model, _ = empty_model(sft_settings(home).model_copy(update={"lora": lora}))
    layers = model.thinker.config.num_hidden_layers
    query = model.thinker.get_decoder().layers[0].self_attn.q_proj
    trained = sum(p.numel() for p in model.parts()["thinker_adapter"].parameters())
    assert all(p.is_meta for p in model.parameters())
    assert trained == layers * 4 * (query.in_features + query.out_features)
    assert model.proj_v.up.weight.requires_grad


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("A100_80GB") is DEVICES["a100-80gb"]
    with pytest.raises(UserError, match=r"--device-name is 'h10'; known: cpu, .*mean h100\?"):
        find_device("h10")
    assert find_device("cpu").fp32 > 0
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 7})
    )
    assert this_device(torch.device("cuda")).bf16 == H100.bf16
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "of another maker")
    assert devices.this_device(torch.device("cuda")).bf16 != H100.bf16


def test_the_command_prints_a_page_or_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = sft_settings(home, "cli")
    path = home / "plan.json"
    path.write_text(config.model_dump_json(exclude_unset=True))
    asked = ["plan", "--config", str(path), "--device-name", "h100"]
    assert main([*asked, "--json", "--batch-size", "2"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["batch"]["samples"] == 2
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "4 steps on h100" in out
    assert "35% of its peak" in out
    assert main([*asked, "--thinker-ckpt", str(home / "none.pt")]) == 2
    assert "none.pt: no such checkpoint; make it with" in capsys.readouterr().err


def test_what_does_not_fit_is_told(setup: sft.TrainingSetup) -> None:
    stream = setup.strategy.stream
    plan = estimate_run(setup.run.config, setup.model, stream, H100, (), each=8)  # type: ignore[arg-type]
    assert "that does not fit" not in "\n".join(plan_lines(plan))
    assert "that does not fit" in "\n".join(plan_lines(plan | {"device_memory": 1}))


def test_the_first_steps_are_held_against_the_plan() -> None:
    plan = {"step_seconds": 0.5, "memory_total": 2**30}
    comparison = Comparison(plan, torch.device("cpu"), before=0)
    said = [comparison.step(0.25) for _ in range(MEASURED_STEPS + 5)]
    [line] = filter(None, said)
    assert said.index(line) == MEASURED_STEPS - 1
    assert line.startswith("after 20 steps: 0.25 s a step (planned 0.5), peak memory ")
    assert line.endswith("GiB (planned 1.00)")
    unknown = Comparison(plan | {"step_seconds": float("nan")}, torch.device("cpu"), before=0)
    assert "planned unknown" in [unknown.step(1.0) for _ in range(MEASURED_STEPS)][-1]
