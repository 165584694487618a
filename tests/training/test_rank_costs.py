"""What a plan says of several ranks."""

from pathlib import Path

import pytest
from helpers import sft_settings, tiny_model

from omnitune.sample import UserError
from omnitune.training.estimate import plan_run
from omnitune.training.memory import weight_bytes
from omnitune.training.plan_lines import plan_lines
from omnitune.training.rank_costs import gathered_bytes, sent_bytes


def test_bytes_follow_the_ring_algorithms(tmp_path: Path) -> None:
    model = tiny_model()
    config = sft_settings(tmp_path, gradient_accumulation=3)
    whole = weight_bytes(model)
    trained = sum(4 * p.numel() for p in model.parameters())
    layers = sum(weight_bytes(layer) for layer in model.thinker.get_decoder().layers)
    assert sum(sent_bytes(config, model, "ddp", 4, 1)) == pytest.approx(1.5 * trained)
    assert sum(sent_bytes(config, model, "fsdp", 4, 1)) == pytest.approx(
        3 * 0.75 * (whole + layers + trained)
    )
    # Groups that hold the weights once each add their parts of the gradients up.
    assert sent_bytes(config, model, "fsdp", 2, 2) == pytest.approx(
        (3 * 0.5 * (whole + layers + trained), 3 * trained / 2)
    )
    assert sum(sent_bytes(config, model, "ddp", 1, 1)) == 0
    assert gathered_bytes(model) <= whole


def test_each_rank_takes_less_and_sends_something(home: Path) -> None:
    config = sft_settings(home)
    alone = plan_run(config, "h100")
    assert "ranks" not in alone
    found = {}
    for mode in ("ddp", "fsdp"):
        asked = config.model_copy(
            update={"parallel": config.parallel.model_copy(update={"mode": mode})}
        )
        plan = plan_run(asked, "h100", ranks=16, per_machine=8)
        found[mode] = plan["ranks"]
        assert any(f"16 ranks on 2 machines, {mode}" in line for line in plan_lines(plan))
    for name in ("weights", "gradients", "optimiser"):
        assert found["fsdp"]["memory"][name] == alone["memory"][name] // 16
        assert found["ddp"]["memory"][name] == alone["memory"][name]
    assert found["ddp"]["memory"]["activations"] < alone["memory"]["activations"]
    assert found["fsdp"]["largest"]["fsdp"] > 10 * found["fsdp"]["largest"]["ddp"]
    low, high = found["ddp"]["hours"]
    assert low <= high


def test_ranks_of_one_machine_share_its_processor(home: Path) -> None:
    plan = plan_run(sft_settings(home), "cpu", ranks=4, per_machine=2)
    assert plan["ranks"]["machines"] == 2
    assert plan["ranks"]["computing_seconds"] == pytest.approx(plan["step_seconds"] / 2)
    # Where the model is read, four bytes of each weight lie beside the shares of two ranks in four.
    assert plan["ranks"]["largest"]["fsdp"] <= 0.9 * plan["device_memory"] / (4 * 1.5)
    assert any("rank 0 reads the model" in line for line in plan_lines(plan))


def test_a_grid_that_does_not_fit_is_refused(home: Path) -> None:
    config = sft_settings(home, parallel={"mode": "fsdp", "shard": 3, "replicate": 2})
    with pytest.raises(UserError, match="--ranks 8"):
        plan_run(config, "h100", ranks=8)


def test_copies_of_machines_send_less_between_machines(home: Path) -> None:
    seconds = {}
    for copies in (1, 2):
        config = sft_settings(home, parallel={"mode": "fsdp", "replicate": copies})
        found = plan_run(config, "h100", ranks=16, per_machine=8)["ranks"]
        seconds[copies] = found["sending_seconds"]
    assert seconds[2] < seconds[1] / 3
