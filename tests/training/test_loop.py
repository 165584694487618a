"""The loop: it steps, accumulates by token, saves on Ctrl-C, and goes on exactly."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import (
    assert_same,
    eight_samples,
    metrics,
    press_ctrl_c,
    settings,
    start,
    use_plain_descent,
    weights,
)
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.data.packing import Shard
from omnitune.sample import Sample
from omnitune.training import checkpoint
from omnitune.training.loop import train
from omnitune.training.optim import build_optimizer
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan, Run


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return eight_samples(tmp_path_factory.mktemp("media"))


def test_accumulated_micro_batches_equal_one_batch(samples: list[Sample], tmp_path: Path) -> None:
    """Normalised over the step's tokens: were each micro-batch, unequal counts would show."""
    runs = []
    for size, accumulation in ((8, 1), (4, 2), (1, 8)):
        config = settings(
            tmp_path / str(size), batch_size=size, gradient_accumulation=accumulation, max_steps=2
        )
        run = start(config, samples)
        use_plain_descent(run)
        before = weights(run)
        counts = [run.batch_at(n).num_targets for n in range(accumulation)]
        assert accumulation == 1 or len(set(counts)) > 1
        train(run)
        assert run.step == 2
        assert not torch.equal(weights(run)["proj_v.up.weight"], before["proj_v.up.weight"])
        runs.append(run)
    for other in runs[1:]:
        for name, tensor in weights(other).items():
            torch.testing.assert_close(
                tensor,
                weights(runs[0])[name],
                atol=1e-6,
                rtol=1e-5,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    losses = [metrics(run.config.out)[0]["train"] for run in runs]
    assert losses[1]["loss"] == pytest.approx(losses[0]["loss"], rel=1e-5)
    assert losses[2]["grad_norm"] == pytest.approx(losses[0]["grad_norm"], rel=1e-3)


def test_gradient_of_a_step_is_that_of_the_mean_over_its_tokens(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(
        tmp_path, batch_size=3, gradient_accumulation=2, max_steps=1, max_grad_norm=9e9
    )
    run, reference = start(config, samples), start(config, samples)
    seen: dict[str, Tensor] = {}

    def look(*arguments: object, **named: object) -> None:
        seen.update({n: p.grad.clone() for n, p in run.model.named_parameters() if p.requires_grad})

    monkeypatch.setattr(run.optimizer, "step", look)
    train(run)
    reference.model.train()
    pairs = [reference.model(reference.batch_at(n)) for n in range(2)]
    (sum(p[0].sum() for p in pairs) / sum(p[1].sum() for p in pairs)).backward()
    for name, parameter in reference.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(seen[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_it_learns(samples: list[Sample], tmp_path: Path) -> None:
    run = start(settings(tmp_path, max_steps=20, log_every=1), samples)
    train(run)
    losses = [entry["train"]["loss"] for entry in metrics(tmp_path)]
    assert len(losses) == 20
    assert losses[-1] < 0.3 * losses[0]


def test_gradients_are_clipped(samples: list[Sample], tmp_path: Path) -> None:
    run = start(settings(tmp_path, max_grad_norm=0.01, max_steps=1), samples)
    use_plain_descent(run, 1.0)
    before = weights(run)
    train(run)
    moved = sum((t.float() - before[n].float()).square().sum() for n, t in weights(run).items())
    assert float(moved.sqrt()) == pytest.approx(0.01, rel=1e-2)
    assert metrics(tmp_path)[0]["train"]["grad_norm"] > 0.01  # what is logged is not clipped


def test_rate_follows_the_schedule(samples: list[Sample], tmp_path: Path) -> None:
    run = start(settings(tmp_path, log_every=1, max_steps=30), samples)
    train(run)
    rates = [entry["train"]["learning_rate"] for entry in metrics(tmp_path)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert rates[3] == 1e-2
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 1e-3 < rates[-1] < 2.5e-3


@pytest.mark.parametrize("freeze", [True, False])
def test_interrupted_equals_uninterrupted(
    samples: list[Sample], tmp_path: Path, freeze: bool
) -> None:
    accumulation = 2 if freeze else 1
    rest = {"batch_size": 2, "gradient_accumulation": accumulation, "save_every": 4}
    straight = start(settings(tmp_path / "straight", **rest), samples, freeze=freeze)
    train(straight)

    def stop_at_five(number: int, part: Shard) -> Any:
        if number >= 5 * accumulation:
            first.updating = True  # as if killed: nothing is saved on the way out
            raise SystemExit
        return first.stream(number, part)

    first = start(settings(tmp_path / "broken", **rest), samples, freeze=freeze)
    first.stream = first.batch_at  # type: ignore[attr-defined]
    first.batch_at = stop_at_five
    with pytest.raises(SystemExit):
        train(first)
    second = start(settings(tmp_path / "broken", **rest), samples, freeze=freeze)
    assert checkpoint.restore(second)
    assert second.step == 4
    train(second)
    assert_same(weights(second), weights(straight))
    assert [e["step"] for e in metrics(tmp_path / "broken")] == [2, 4, 6, 8]
    for one, other in zip(
        metrics(tmp_path / "broken"), metrics(tmp_path / "straight"), strict=True
    ):
        assert one["train"]["loss"] == other["train"]["loss"]
        assert one["epoch"] == other["epoch"]


def assert_gone_on_as_if_never_stopped(samples: list[Sample], folder: Path, **rest: Any) -> None:
    straight = start(settings(folder / "straight", **rest), samples)
    train(straight)
    again = start(settings(folder / "broken", **rest), samples)
    assert checkpoint.restore(again)
    assert again.step < straight.step
    train(again)
    assert_same(weights(again), weights(straight))


@pytest.mark.parametrize("call", [1, 4])
def test_ctrl_c_saves_what_can_be_gone_on_from(
    samples: list[Sample], tmp_path: Path, call: int
) -> None:
    """At whatever micro-batch: half a step is thrown away and done again."""
    rest = {"batch_size": 2, "gradient_accumulation": 2, "max_steps": 4}
    broken = start(settings(tmp_path / "broken", **rest), samples)
    forward, calls = broken.model.forward, []

    def interrupted(batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == call + 1:
            press_ctrl_c()
        return forward(batch)

    broken.model.forward = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    assert_gone_on_as_if_never_stopped(samples, tmp_path, **rest)


def test_ctrl_c_during_the_update_does_not_apply_it_twice(
    samples: list[Sample], tmp_path: Path
) -> None:
    """Python acts on the signal when the optimiser returns, before the step is counted."""
    rest = {"batch_size": 2, "max_steps": 4}
    broken = start(settings(tmp_path / "broken", **rest), samples)
    update = broken.optimizer.step

    def interrupted() -> None:
        update()
        if broken.step == 1:
            press_ctrl_c()

    broken.optimizer.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    assert_gone_on_as_if_never_stopped(samples, tmp_path, **rest)


@pytest.mark.parametrize("step", [2, 4])
def test_ctrl_c_while_scoring_loses_no_score(
    samples: list[Sample], tmp_path: Path, step: int
) -> None:
    """The moment that was being scored is scored when the run goes on, the last one too."""

    def impatient(at: int, ended: bool) -> dict[str, Any]:
        if at == step:
            press_ctrl_c()
        return {"loss": float(at)}

    config = settings(tmp_path, max_steps=4, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        train(start(config, samples, impatient))
    again = start(config, samples)
    assert checkpoint.restore(again)
    train(again)
    assert again.step == 4
    entries = metrics(tmp_path)
    assert [(e["step"], e["validation"]) for e in entries] == [(2, {"loss": 2}), (4, {"loss": 4})]
    assert [e["epoch_ended"] for e in entries] == [False, True]


def test_scores_are_taken_in_evaluation_mode_every_so_often_and_after_each_epoch(
    samples: list[Sample], tmp_path: Path
) -> None:
    seen = []

    def score(step: int, ended: bool) -> dict[str, Any]:
        seen.append((step, ended, run.model.training))
        return {}

    config = settings(tmp_path, batch_size=3, num_epochs=2, log_every=2, max_steps=None)
    run = start(config, samples, score)
    train(run)  # three batches an epoch
    assert seen == [
        (0, False, False),
        (2, False, False),
        (3, True, False),
        (4, False, False),
        (6, True, False),
    ]
    assert run.model.training
    assert [e["epoch"] for e in metrics(tmp_path)] == [1, 1, 2, 2]


class Fragile(nn.Module):
    """One weight; the gradient of a batch is that batch's number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        return (self.weight * batch.value).sum()[None], torch.ones(1)


class Number:
    num_targets = 1

    def __init__(self, value: float) -> None:
        self.value = value

    def to(self, device: torch.device) -> "Number":
        return self


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_skips_the_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: float
) -> None:
    config = settings(tmp_path, max_steps=4, log_every=1, save_every=1)
    seen = []

    def score(step: int, ended: bool) -> dict[str, Any]:
        seen.append(model.weight.item())
        return {}

    model = Fragile()
    run = Run(
        model=model,
        optimizer=build_optimizer(model, config),
        batch_at=lambda n, part: Number(bad if n == 2 else 1.0),
        plan=Plan(10, 4),
        config=config,
        log=RunLog(config, ["all"], lambda step, entry: [], 1),
        groups=["all"],
        score=score,
    )
    train(run)
    assert run.step == 4
    assert seen[3] == seen[2]
    assert seen[0] > seen[1] > seen[2] > seen[4]
    assert "step 3: the loss is not finite; the update is left out" in capsys.readouterr().out
    assert all(e["train"]["grad_norm"] >= 0 for e in metrics(tmp_path))


def test_the_first_line_of_the_log_is_of_before_the_first_step(
    samples: list[Sample], tmp_path: Path
) -> None:
    run = start(settings(tmp_path, max_steps=2), samples)
    train(run)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["step"], first["epoch_ended"]) == (0, False)
    assert first["validation"] == {"loss": 0.0}
    assert "loss" not in first["train"]  # nothing was trained, which is no loss of zero


@pytest.mark.parametrize(
    ("batches", "rest", "expected"),
    [
        (10, {"num_epochs": 3}, (10, 30)),
        (10, {"num_epochs": 3, "gradient_accumulation": 4}, (3, 9)),
        (10, {"num_epochs": 3, "max_steps": 7}, (10, 7)),
        (10, {"num_epochs": 3, "max_steps": 700}, (10, 700)),
        (1, {"num_epochs": 2, "gradient_accumulation": 8}, (1, 2)),
    ],
)
def test_plan(batches: int, rest: dict[str, int], expected: tuple[int, int]) -> None:
    plan = Plan.of(SftConfig(output_dir=Path("x"), **rest), batches)
    assert (plan.steps_per_epoch, plan.total_steps) == expected
    assert plan.epoch(1) == plan.epoch(plan.steps_per_epoch) == 1
    assert plan.epoch(plan.steps_per_epoch + 1) == 2


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ({"max_steps": 700, "warmup_steps": 70}, ["training goes on into epoch 70"]),
        ({"max_steps": 11, "num_epochs": 1, "warmup_steps": 1}, ["1 epoch holds 10 steps"]),
        ({"max_steps": 20, "warmup_steps": 2}, []),
        ({"warmup_steps": 50}, ["warmup_steps is 50, more than a tenth .* 30 .* over 3$"]),
        ({"max_steps": 4, "warmup_steps": 500}, ["over 1$"]),
    ],
)
def test_what_differs_from_the_settings_is_said(rest: dict[str, int], said: list[str]) -> None:
    plan = Plan.of(SftConfig(output_dir=Path("x"), **{"num_epochs": 3, **rest}), 10)
    assert len(plan.notes) == len(said)
    for note, pattern in zip(plan.notes, said, strict=True):
        assert re.search(pattern, note)
