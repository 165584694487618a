"""Replaying a run: its records again, the same hash, and the step at which it is another."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import sft_settings as settings
from helpers import shorten_answers

from omnitune import cli
from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.training.loop import train
from omnitune.training.output_dir import OutputDir
from omnitune.training.replay import replay, replay_lines
from omnitune.training.sft import build_training, finetune

SETTINGS: dict[str, Any] = {
    "max_steps": 8,
    "num_epochs": 9,
    "log_every": 3,
    "save_every": 4,
    "adaptive_mix": "loss",
    "phases": [{"until": 0.5, "train": ["proj_v", "proj_a"]}, {"train": ["audio_encoder"]}],
    "probe_questions": 1,
    "epoch_questions": 1,
}


@pytest.fixture(scope="module")
def config(home: Path) -> SftConfig:
    with pytest.MonkeyPatch.context() as patch:
        shorten_answers(patch, 3)
        made = settings(home, "replayed", **SETTINGS)
        finetune(made)
    return made


def test_the_hash_is_the_same_to_the_end(config: SftConfig) -> None:
    found = replay(config.out)
    results = json.loads((config.out / "results.json").read_text())
    assert found["same"]
    assert found["steps"] == results["run_hash"]["steps"] == 8
    assert found["hash"] == results["run_hash"]["hash"]
    last = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["hash"].startswith(last["run_hash"])
    assert replay_lines(found) == [f"the hash is the same after 8 steps: {found['hash']}"]


def test_batches_of_so_many_tokens_are_replayed_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_answers(monkeypatch, 3)
    rest = {"tokens_per_batch": 120, "gradient_accumulation": 2, "curriculum": 0.6, "max_steps": 9}
    made = settings(home, "by tokens", **{**SETTINGS, **rest, "save_every": 9, "log_every": 9})
    setup = build_training(made)
    OutputDir(made.out, made.out / "omni.pt", run_record(made), keep=False).open()
    train(setup.run)
    found = replay(made.out, 9)
    assert found["same"]
    assert found["hash"] == setup.strategy.hash.value
    assert setup.strategy.stream.balanced


def run_record(config: SftConfig) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json"), "inputs": {}}


@pytest.mark.parametrize("step", [1, 6, 8])
def test_a_step_is_what_the_stream_gave(config: SftConfig, step: int) -> None:
    made = build_training(config)
    results = json.loads((config.out / "results.json").read_text())
    made.run.state["weights"] = results["run_hash"]["weights"]
    stream = made.strategy.stream
    samples = stream.read_batch(step - 1)
    found = replay(config.out, step)
    assert found["same"]
    assert found["steps"] == step
    origins = [items[0].origin for items in samples]
    assert [s["sample"] for s in found["samples"]] == [o.k for o in origins if o]
    records = [stream.record_at(o.k) for o in origins if o]
    assert [s["record"] for s in found["samples"]] == [record.number + 1 for record in records]
    assert [s["id"] for s in found["samples"]] == [record.id for record in records]
    batch = stream(step - 1)
    assert batch is not None
    assert sum(s["supervised"] for s in found["samples"]) == len(batch.labels_N)
    for sample in found["samples"]:
        assert Path(sample["file"]).is_file()
        assert sample["asked"][0]["question"] == "what is it?"
        assert sample["asked"][0]["answer"].startswith("number ")


def test_a_changed_record_is_found_at_its_step(config: SftConfig, home: Path) -> None:
    path = next(p for p in (home / "data").rglob("*.json") if "image_qa" in p.name)
    before = path.read_text(encoding="utf-8")
    record = next(
        (step, s["record"])
        for step in range(1, 9)
        for s in replay(config.out, step)["samples"]
        if s["source"] == "image_text"
    )
    step, number = record
    values = json.loads(before)
    values[number - 1]["answer"] = "another."
    path.write_text(json.dumps(values), encoding="utf-8")
    try:
        found = replay(config.out)
    finally:
        path.write_text(before, encoding="utf-8")
    assert not found["same"]
    assert found["differs_at"] == found["step"] == step
    assert any(s["record"] == number for s in found["samples"])
    assert [str(path) in note for note in found["notes"]] == [True]
    assert f"the hash differs at step {step}:" in replay_lines(found)[-1]


def test_a_run_that_is_not_finished_is_replayed_from_its_checkpoint(
    config: SftConfig, tmp_path: Path
) -> None:
    """Also where the data are named from another folder, and lines of the log are lost."""
    folder = shutil.copytree(config.out, tmp_path / "run")
    (folder / "results.json").unlink()
    assert replay(folder)["same"]
    (folder / "metrics.jsonl").write_text("")
    found = replay(folder, 5)
    assert not found["same"]
    assert found["differs_at"] is None
    assert "nothing is known of the hash after step 5" in replay_lines(found)[-1]
    assert replay(folder)["same"]


def test_what_cannot_be_replayed_is_said(config: SftConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made the steps 1 to 8"):
        replay(config.out, 9)
    with pytest.raises(UserError, match="no such folder"):
        replay(tmp_path / "none")
    folder = shutil.copytree(config.out, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"config": {"stage": "pretrain_lm"}}))
    with pytest.raises(UserError, match="is no run of `omnitune sft`"):
        replay(folder)
    config_of_another = run["config"] | {"unheard_of": 1}
    (folder / "run.json").write_text(json.dumps(run | {"config": config_of_another}))
    with pytest.raises(UserError, match=r"unheard_of: .* another version"):
        replay(folder)
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="settings of the run are needed"):
        replay(folder)
    for path in [*folder.glob("*step_*.pt"), folder / "results.json"]:
        path.unlink()
    with pytest.raises(UserError, match="no run hash is kept here"):
        replay(folder)


def test_the_command_prints_writes_and_judges(
    config: SftConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "found.json"
    status = cli.main(
        ["replay", "--ckpt_dir", str(config.out), "--step", "2", "--json", str(where)]
    )
    printed = capsys.readouterr().out.splitlines()
    assert status == 0
    assert printed[0].startswith("step 2: ")
    assert printed[-1].startswith("the hash is the same after 2 steps: ")
    found = json.loads(where.read_text())
    assert len(found["samples"]) == sum(" record " in line for line in printed)
    metrics = config.out / "metrics.jsonl"
    before = metrics.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    for line in lines:
        if "step_hashes" in line:
            line["step_hashes"] = "0" * len(line["step_hashes"])
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        assert cli.main(["replay", "--ckpt_dir", str(config.out)]) == 1
    finally:
        metrics.write_text(before)
    assert "differs at step 1" in capsys.readouterr().out


def test_lines_of_a_question_stand_below_its_sample() -> None:
    asked = [{"question": "which?\nA. red\nB. blue", "answer": "red"}]
    sample = {"source": "a", "record": 1, "id": "a/0", "file": "a.json", "tokens": 9}
    sample |= {"supervised": 2, "media": [], "asked": asked}
    found = {"notes": [], "step": 1, "samples": [sample], "update_left_out": False, "steps": 1}
    found |= {"same": True, "differs_at": None, "hash": "0"}
    told = "\n".join(replay_lines(found))
    assert "    which?\n    A. red\n    B. blue -> red\n" in told
