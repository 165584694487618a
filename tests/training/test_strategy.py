"""Strategies in a run: frozen is frozen, resumed equals straight, and what is logged."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import MIX, shorten_answers
from helpers import sft_settings as settings
from loop_helpers import use_plain_descent
from rank_helpers import needs_fork, on_ranks, whole

from omnitune.config.sft import SftConfig
from omnitune.data.packing import Batch
from omnitune.distributed.opening import open_ranks
from omnitune.sample import UserError
from omnitune.training.caching import encode_media
from omnitune.training.loop import train
from omnitune.training.run import Run
from omnitune.training.sft import TrainingSetup, build_training, finetune

PROJECTORS = {"until": 0.5, "train": ["proj_v", "proj_a"]}
STRATEGIES: dict[str, dict[str, Any]] = {
    "two stages": {"phases": [PROJECTORS | {"data_mix": {"image_text": 1, "audio_text": 1}}, {}]},
    "late encoders": {
        "phases": [
            {"until": 0.3},
            {
                "until": 0.7,
                "train": ["thinker", "proj_a", "audio_encoder"],
                "learning_rate": 1e-4,
            },
            {"max_difficulty": 0.6},
        ]
    },
    "curriculum": {"curriculum": 0.8, "gradient_accumulation": 2},
    "balance by loss": {"adaptive_mix": "loss", "log_every": 2},
    "balance by score": {"adaptive_mix": "score", "phases": [{"until": 0.4}, {"data_mix": MIX}]},
    "all, by tokens": {
        "phases": [PROJECTORS, {"train": ["thinker", "vision_encoder"]}],
        "curriculum": 0.6,
        "adaptive_mix": "loss",
        "log_every": 1,
        "tokens_per_batch": 120,
        "gradient_accumulation": 2,
    },
}


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_answers(monkeypatch, 3)


def config_of(home: Path, name: str, **rest: Any) -> SftConfig:
    values = {"max_steps": 12, "num_epochs": 9, "save_every": 4, "log_every": 3}
    return settings(home, name, **{**values, "probe_questions": 1, "epoch_questions": 1, **rest})


def lines(run: Run) -> list[dict[str, Any]]:
    """What was logged, without the clock's share."""
    text = (run.config.out / "metrics.jsonl").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    for entry in entries:
        del entry["scoring_seconds"], entry["train"]["seconds"]
    return entries


def weights(setup: TrainingSetup) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_interrupted_equals_uninterrupted(home: Path, name: str) -> None:
    """Broken off in steps 8 and 12: in the middle of a phase, between two decisions."""
    straight = build_training(config_of(home, f"straight {name}", **STRATEGIES[name]))
    train(straight.run)
    config = config_of(home, f"broken {name}", **STRATEGIES[name])
    for stop in (7, 11):
        broken = build_training(config, resume=True).run
        stream = broken.batch_at

        def until(number: int, *part: Any, stream: Any = stream, stop: int = stop) -> Any:
            if number >= stop * config.gradient_accumulation:
                raise SystemExit
            return stream(number, *part)

        broken.batch_at = until
        with pytest.raises(SystemExit):
            train(broken)
    again = build_training(config, resume=True)
    assert again.run.step == 11
    train(again.run)
    expected = weights(straight)
    assert [n for n, t in weights(again).items() if not torch.equal(t, expected[n])] == []
    assert lines(again.run) == lines(straight.run)
    assert again.run.state["mix"] == straight.run.state["mix"]
    assert again.run.state.get("weights") == straight.run.state.get("weights")
    assert again.run.state["receipt"] == straight.run.state["receipt"]
    assert again.strategy.hash.value == straight.strategy.hash.value


def test_frozen_parts_do_not_move_at_all(home: Path) -> None:
    """No decay, no momentum, no statistics: before they are trained, and after."""
    parts = [["proj_v"], ["thinker", "audio_encoder"], ["proj_v", "proj_a"]]
    phases = [{"until": (n + 1) / 3, "train": names} for n, names in enumerate(parts)]
    config = config_of(home, "frozen", phases=phases, weight_decay=0.5, log_every=4)
    setup = build_training(config)
    moved: list[set[str]] = []
    before = weights(setup)

    def compare(step: int, ended: bool) -> dict[str, Any]:
        nonlocal before
        if step and step % 4 == 0:
            after = weights(setup)
            moved.append({n for n, t in after.items() if not torch.equal(t, before[n])})
            before = after
        return {"loss": 0.0}

    setup.run.score = compare
    train(setup.run)
    prefixes = {"audio_encoder": "encoders.audio", "vision_encoder": "encoders.image"}
    names = {name for name, _ in setup.model.named_parameters()}
    for trained, found in zip(parts, moved, strict=True):
        starts = tuple(f"{prefixes.get(name, name)}." for name in trained)
        assert found == {name for name in names if name.startswith(starts)}
    phase = {entry["step"]: entry["phase"] for entry in lines(setup.run) if entry["step"]}
    assert {step: phase[step] for step in (4, 8, 12)} == {4: 1, 8: 2, 12: 3}


def test_phase_that_trains_an_encoder_reads_raw_media_from_there_on(home: Path) -> None:
    setup = build_training(config_of(home, "raw", **STRATEGIES["late encoders"]))
    first = setup.strategy.phases.firsts[1]
    assert first == 4
    for step in range(12):
        batch = setup.run.batch_at(step)
        assert isinstance(batch, Batch)
        cached = {name: rows.features_RD is not None for name, rows in batch.media.items()}
        assert cached.get("image", True)
        assert cached.get("audio", step < first) is (step < first)
    assert set(setup.strategy.reader_at(first - 1).features) == {"image", "audio"}
    assert set(setup.reader.features) == {"image"}


def test_encoders_trained_from_the_start_are_not_cached(home: Path) -> None:
    late = [{"until": 0.5, "train": ["audio_encoder"]}, {"train": ["vision_encoder"]}]
    setup = build_training(config_of(home, "partly", phases=late))
    assert set(encode_media(setup.strategy.phases.config, setup.model, [], {})) == {"image"}
    config = config_of(home, "on", phases=late, feature_cache="on")
    with pytest.raises(UserError, match="feature_cache is on, but"):
        encode_media(config, setup.model, [], {})


def test_sources_of_every_phase_are_read(home: Path) -> None:
    phases = [
        {"until": 0.5, "data_mix": {"image_text": 1}},
        {"data_mix": {"text_only": 1, "image_text": 3}},
    ]
    setup = build_training(config_of(home, "sources", phases=phases, log_every=6))
    assert list(setup.samples) == ["text_only", "image_text"]
    train(setup.run)
    by_step = {entry["step"]: entry.get("mix") for entry in lines(setup.run)}
    assert by_step[6]["image_text"]["asked"] == by_step[6]["image_text"]["samples"] == 1
    assert by_step[6]["text_only"]["tokens"] == 0
    assert by_step[12]["text_only"]["asked"] == pytest.approx(1 / 8)
    assert by_step[12]["text_only"]["samples"] == pytest.approx(1 / 8, abs=1 / 48)


def test_decisions_hold_from_the_step_after_the_next(home: Path) -> None:
    """What was read ahead when it was decided stays what it was."""
    setup = build_training(config_of(home, "decided", **STRATEGIES["balance by loss"]))
    train(setup.run)
    decided = setup.run.state["weights"]
    assert len(decided) > 1
    assert [first % 4 for first, _ in decided] == [0] * len(decided)
    entries = {entry["step"]: entry for entry in lines(setup.run)}
    for first, factors in decided:
        made_after = first // 4 - 1
        assert set(factors) == set(MIX)
        assert entries[made_after]["weights"] == setup.strategy.schedule.shares_at(first)
    assert json.loads(json.dumps(setup.run.state["weights"])) == setup.run.state["weights"]


def test_window_of_tokens_is_not_parted_by_a_decision(home: Path) -> None:
    config = config_of(home, "window", adaptive_mix="loss", tokens_per_batch=120)
    strategy = build_training(config).strategy
    size = 16 * strategy.stream.batch_size
    assert strategy.decide(2, {"text_only": 2.0}) == size
    assert strategy.decide(15, {"text_only": 0.5}) == size
    assert strategy.decide(16, {"text_only": 0.7}) == 2 * size


@pytest.mark.slow
def test_run_tells_of_phases_and_mix(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phases = [PROJECTORS | {"learning_rate": 2e-3, "max_difficulty": 0.9}, {"data_mix": MIX}]
    config = config_of(home, "described", phases=phases, adaptive_mix="score", log_every=6)
    finetune(config)
    said = capsys.readouterr().out
    assert "phase 1 of 2 from step 1: training proj_v, proj_a" in said
    assert "learning rate 0.002; difficulty up to 0.9" in said
    assert "phase 2 of 2 from step 7: training thinker, proj_v, proj_a" in said
    mix = json.loads((config.out / "results.json").read_text())["mix"]
    assert set(mix) == set(MIX)
    last = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["mix"] == mix
    assert sum(last["weights"].values()) == pytest.approx(1)


def follow(rank: int, home: Path, name: str, mode: str) -> tuple[dict[str, Any], Any]:
    config = config_of(home, f"{mode} {name}", parallel={"mode": mode}, **STRATEGIES[name])
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        run = build_training(config, ranks=ranks).run
        use_plain_descent(run, 1e-2)
        train(run)
        return run.state, ranks.whole_state(run.model)


@needs_fork
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["late encoders", "all, by tokens"])
def test_two_processes_follow_the_same_strategy(home: Path, name: str, mode: str) -> None:
    one, alone = follow(0, home, name, "auto")
    (two, shared), (other, _) = whole(on_ranks(2, partial(follow, home=home, name=name, mode=mode)))
    if "weights" not in one:  # decisions follow scores, which processes round in another way
        assert (one["run_hash"], one["receipt"]) == (two["run_hash"], two["receipt"])
    for source, row in one["mix"].items():
        assert two["mix"][source] == pytest.approx(row, rel=3e-3)
    assert [k for k, _ in one.get("weights", [])] == [k for k, _ in two.get("weights", [])]
    assert two.get("weights") == other.get("weights")
    for name, tensor in alone.items():
        # Clips are padded to the longest of a rank's part, which rounds their features otherwise.
        torch.testing.assert_close(shared[name], tensor, atol=2e-4, rtol=1e-3)


def test_a_source_without_the_usual_tasks_is_checked_between_epochs_too(home: Path) -> None:
    path = home / "data/audio/audio_qa.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace('"transcription"', '"qa"'), encoding="utf-8")
    try:
        tasks = build_training(config_of(home, "probes")).strategy.probed
    finally:
        path.write_text(before, encoding="utf-8")
    assert tasks == ("text", "image_qa", "transcription", "audio_qa")
