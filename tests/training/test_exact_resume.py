"""A run that was broken off and gone on with is, bit for bit, the one that never was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings, shorten_answers

from benchmarks.chaos_outcome import same
from omnitune.storage import read_checkpoint
from omnitune.training import loop
from omnitune.training.loop import train
from omnitune.training.progress import BEST_FILE
from omnitune.training.sft import TrainingSetup, build_training

PHASES = [{"until": 0.5}, {"train": ["thinker", "audio_encoder"], "learning_rate": 1e-4}]
# By name: settings, the micro-batches that the run breaks off before, and whether it may save then.
# An epoch of batches of four is three steps, one of single samples is twelve.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], bool]] = {
    "in the second epoch": ({}, (4,), False),
    "within an accumulated step": ({"gradient_accumulation": 2}, (5, 9), True),
    "twice in one epoch": ({"batch_size": 1}, (5, 7), True),
    "across a phase, an encoder trained": ({"phases": PHASES}, (3, 5), False),
    "with an adaptive mix": ({"adaptive_mix": "score"}, (3, 7), True),
    "without a cache": ({"feature_cache": "off", "freeze_encoders": False}, (5,), True),
    "by tokens": ({"tokens_per_batch": 120, "adaptive_mix": "loss"}, (5, 6), False),
    "muon": ({"optimizer": "muon"}, (5,), True),
    "before the first checkpoint": ({}, (0, 1), False),
}


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_answers(monkeypatch, 3)


def built(home: Path, name: str, **rest: Any) -> TrainingSetup:
    values = {"max_steps": 8, "num_epochs": 9, "save_every": 2, "log_every": 2}
    few = {"probe_questions": 1, "epoch_questions": 1}
    return build_training(sft_settings(home, name, **{**values, **few, **rest}), resume=True)


def broken_off(setup: TrainingSetup, before: int, politely: bool) -> None:
    """Trains until a micro-batch is asked for; impolitely nothing is saved on the way out."""
    run, stream = setup.run, setup.run.batch_at

    def until(number: int, *part: Any) -> Any:
        if number >= before:
            run.updating = not politely
            raise SystemExit
        return stream(number, *part)

    run.batch_at = until
    with pytest.raises(SystemExit):
        train(run)


def everything(setup: TrainingSetup) -> dict[str, Any]:
    """All that a run has come to, without the clock's share."""
    lines = (setup.run.config.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    for entry in entries:
        del entry["scoring_seconds"], entry["train"]["seconds"]
    state = {name: value for name, value in setup.run.state.items() if name != "log"}
    return {
        "weights": setup.model.state_dict(),
        "optimiser": setup.run.optimizer.state_dict(),
        "random numbers": torch.get_rng_state(),
        "scores and order": entries,  # ``step_hashes`` stand for every record that was read
        "run hash": setup.strategy.hash.value,
        "state": state,
    }


@pytest.mark.parametrize("name", list(CASES))
def test_broken_off_and_gone_on_with_is_the_same_run(home: Path, name: str) -> None:
    rest, stops, politely = CASES[name]
    straight = built(home, f"straight {name}", **rest)
    train(straight.run)
    expected = everything(straight)
    assert expected["run hash"]
    for stop in stops:
        broken_off(built(home, f"broken {name}", **rest), stop, politely)
        torch.manual_seed(stop)  # another process has drawn other numbers
    again = built(home, f"broken {name}", **rest)
    train(again.run)
    found = everything(again)
    assert [key for key, value in expected.items() if not same(value, found[key])] == []
    steps = [entry["step"] for entry in found["scores and order"]]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("warm", [True, False])
def test_a_cache_that_is_there_or_gone_changes_nothing(home: Path, warm: bool) -> None:
    shutil.rmtree(home / "data" / ".features", ignore_errors=True)
    straight = built(home, f"straight, cache {warm}", feature_cache="on")
    train(straight.run)
    broken_off(built(home, f"broken, cache {warm}", feature_cache="on"), 5, True)
    if not warm:
        shutil.rmtree(home / "data" / ".features")
    again = built(home, f"broken, cache {warm}", feature_cache="on")
    train(again.run)
    one, other = everything(straight), everything(again)
    assert [key for key, value in one.items() if not same(value, other[key])] == []


@pytest.mark.parametrize("within", ["keep_best", "notes", "log"])
def test_broken_off_while_scores_are_written_down(
    home: Path, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    rest = {"adaptive_mix": "loss", "keep_best": "loss", "max_steps": 6}
    straight = built(home, "straight", **rest)
    train(straight.run)
    expected = everything(straight)
    setup = built(home, f"broken {within}", **rest)
    owner, name = {
        "keep_best": (loop, "keep_best"),
        "notes": (setup.strategy, "notes"),
        "log": (setup.run.log, "scores"),
    }[within]
    real = getattr(owner, name)

    def broken(*arguments: Any) -> Any:
        if setup.run.step == 3:
            if within != "keep_best":
                real(*arguments)
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(KeyboardInterrupt):
            train(setup.run)
    again = built(home, f"broken {within}", **rest)
    train(again.run)
    assert same(everything(again), expected)
    assert_best(straight, again)


def assert_best(one: TrainingSetup, other: TrainingSetup) -> None:
    """Both have kept the same best checkpoint."""
    kept = [read_checkpoint(setup.run.config.out / BEST_FILE) for setup in (one, other)]
    assert same(*[values["model"] for values in kept])
    assert same(*[values["best"] for values in kept])
