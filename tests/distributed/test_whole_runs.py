"""Whole runs of stage E on two ranks: results, checkpoints, logs."""

import json
import resource
import shutil
from collections import namedtuple
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings, shorten_answers
from rank_helpers import needs_fork, on_ranks, whole

from omnitune.config.parallel import own_rank
from omnitune.distributed.opening import open_ranks
from omnitune.evaluation import scoring
from omnitune.evaluation.evaluate import evaluate_checkpoint
from omnitune.models.loading import load_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.storage import NoRoomError, read_checkpoint
from omnitune.training import checkpoint, sft, sharded_checkpoint
from omnitune.training.loop import train
from omnitune.training.progress import BEST_FILE
from omnitune.training.sft import build_training, finetune

pytestmark = needs_fork


def finetune_on(rank: int, home: Path, name: str, mode: str, rest: dict[str, Any]) -> Any:
    """A whole run, or where it was refused what it said."""
    config = sft_settings(home, name, parallel={"mode": mode}, **rest)
    try:
        return {"results": finetune(config, overwrite=True)}
    except UserError as error:
        return {"error": str(error), "kind": type(error).__name__}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_answers(monkeypatch, 3)


@pytest.mark.parametrize(
    ("mode", "rest"),
    [
        ("ddp", {"max_interpolation": 0}),
        ("fsdp", {"max_interpolation": 0.5}),
        ("fsdp", {"lora": {"r": 2}, "freeze_encoders": True}),
    ],
)
def test_two_ranks_leave_what_one_does(home: Path, mode: str, rest: dict[str, Any]) -> None:
    finetune_on(0, home, "alone", "auto", rest)
    ends = whole(on_ranks(2, partial(finetune_on, home=home, name=mode, mode=mode, rest=rest)))
    assert ends[0] == ends[1]
    one, two = home / "alone", home / mode
    found, expected = (json.loads((f / "results.json").read_text()) for f in (two, one))
    for split, scores in expected["splits"].items() if "splits" in expected else ():
        assert found["splits"][split]["loss"] == pytest.approx(scores["loss"], rel=1e-3)
    lines = [(f / "metrics.jsonl").read_text().splitlines() for f in (one, two)]
    for a, b in zip(*(map(json.loads, found) for found in lines), strict=True):
        assert b["step"] == a["step"]
        assert b["validation"]["loss"] == pytest.approx(a["validation"]["loss"], rel=1e-3)
        if mode == "ddp" and not a["step"]:  # the same weights: batches are dealt as they are
            assert b["validation"] == a["validation"]
    models = [load_omni(f / "omni.pt")[0].state_dict() for f in (one, two)]
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, atol=1e-4, rtol=1e-3)
    logs = sorted(path.name for path in (two / "logs").iterdir())
    assert logs == ["rank_0.log", "rank_1.log"]
    assert not list(two.glob("*.tmp"))


def scored_on(rank: int, home: Path, name: str, mode: str, rest: dict[str, Any]) -> Any:
    """A whole run; says too how many batches this rank scored at the end."""
    real, scored = sft.final_scores, 0

    def counted(*arguments: Any) -> Any:
        token_scores = OmniModel.token_scores

        def counting(model: OmniModel, batch: Any) -> Any:
            nonlocal scored
            scored += 1
            return token_scores(model, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OmniModel, "token_scores", counting)
            return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "final_scores", counted)
        found = finetune_on(rank, home, name, mode, rest)
    return found | {"scored": scored}


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_final_scores_are_shared_out_and_those_of_one_process(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(scoring, "SCORE_BATCH", 1)
    rest = {"keep_best": "loss", "use_best": True, "max_interpolation": 0.5}
    work = partial(scored_on, home=home, name=f"best {mode}", mode=mode, rest=rest)
    first, second = whole(on_ranks(2, work))
    assert first["results"] == second["results"]
    assert abs(first["scored"] - second["scored"]) <= first["scored"] / 2 > 0
    results, folder = first["results"], home / f"best {mode}"
    alone = evaluate_checkpoint(folder, home / "data", "all")
    for split, scores in results["splits"].items():
        expected = {k: v for k, v in alone["splits"][split].items() if isinstance(v, float)}
        assert {k: scores[k] for k in expected} == pytest.approx(expected, rel=1e-6)
    best = read_checkpoint(folder / BEST_FILE)
    assert best["best"] == results["best"]
    assert read_checkpoint(folder / "omni.pt")["step"] == best["step"]


def failing_on(rank: int, home: Path) -> Any:
    """A whole run of which rank 1 cannot score a batch at the end."""

    def fail(*arguments: Any) -> Any:
        if own_rank() == 1:
            raise UserError("record 7 is wrong")
        return real(*arguments)

    real = OmniModel.token_scores
    with pytest.MonkeyPatch.context() as patch:
        final = sft.final_scores
        patch.setattr(
            sft,
            "final_scores",
            lambda *a: (patch.setattr(OmniModel, "token_scores", fail), final(*a))[1],
        )
        return finetune_on(rank, home, "failing", "ddp", {"max_interpolation": 0})


def test_what_goes_wrong_in_the_scores_of_one_rank_ends_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SCORE_BATCH", 1)
    first, second = whole(on_ranks(2, partial(failing_on, home=home)))
    assert second == {"error": "record 7 is wrong", "kind": "UserError"}
    assert first["kind"] == "OfFirstRank"
    assert "record 7 is wrong" in first["error"]


def test_what_rank_0_refuses_ends_all_ranks(home: Path) -> None:
    rest = {"data_dir": home / "nowhere"}
    first, second = whole(
        on_ranks(2, partial(finetune_on, home=home, name="no", mode="ddp", rest=rest))
    )
    assert "nowhere" in first["error"]
    assert second["kind"] == "OfFirstRank"
    assert not (home / "no").exists()


class StoppedError(Exception):
    """Ends a run in its middle."""


def steps_on(
    rank: int, home: Path, name: str, mode: str, steps: int, resume: bool = False
) -> dict[str, torch.Tensor]:
    """Trains up to a step of eight; returns the weights."""
    config = sft_settings(
        home, name, parallel={"mode": mode}, max_steps=8, max_interpolation=0, log_every=100
    )
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        run = build_training(config, resume, ranks).run
        run.score = lambda step, ended: {"loss": float(step)}
        batch_at = run.batch_at

        def until(number: int, *shard: Any) -> Any:
            if number == steps:
                raise StoppedError
            return batch_at(number, *shard)

        run.batch_at = until
        with suppress(StoppedError):
            train(run)
        return ranks.whole_state(run.model)


def train_without_room(rank: int, home: Path, name: str, on_full_disk: str) -> dict[str, Any]:
    """Trains a divided model where no file may have more than a few bytes."""
    config = sft_settings(
        home, name, parallel={"mode": "fsdp"}, max_steps=8, save_every=2, on_full_disk=on_full_disk
    )
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        run = build_training(config, False, ranks).run
        run.score = lambda step, ended: {"loss": float(step)}
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limit[1]))
        try:
            train(run)
        except NoRoomError as error:
            return {"said": str(error), "step": run.step}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    return {}


@pytest.mark.parametrize(("on_full_disk", "until"), [("go_on", 8), ("stop", 4)])
def test_a_full_disk_is_told_of_and_stops_a_divided_run_if_that_was_asked_for(
    home: Path, on_full_disk: str, until: int
) -> None:
    work = partial(train_without_room, home=home, name=on_full_disk, on_full_disk=on_full_disk)
    for found in whole(on_ranks(2, work)):
        assert found["step"] == until
        assert "make room" in found["said"]
        assert "Traceback" not in found["said"]
    assert not list((home / on_full_disk).glob("*step_*"))


def test_older_folders_give_way_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a divided model is written: to write it once more would take all ranks."""
    for step in (2, 4, 6):
        (tmp_path / f"omni_step_{step}.dcp").mkdir()
        (tmp_path / f"omni_step_{step}.dcp" / "part").write_bytes(bytes(1_000))
    free = namedtuple("free", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free(1_000))
    checkpoint.make_room(tmp_path)
    assert len(checkpoint.step_files(tmp_path)) == 3
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free(999))
    checkpoint.make_room(tmp_path)
    assert [path.name for path in checkpoint.step_files(tmp_path)] == ["omni_step_6.dcp"]


@pytest.mark.parametrize(
    ("before", "after"), [("fsdp", "auto"), ("auto", "fsdp"), ("fsdp", "fsdp"), ("ddp", "auto")]
)
def test_a_run_goes_on_with_another_number_of_ranks(home: Path, before: str, after: str) -> None:
    def run(mode: str, name: str, steps: int, resume: bool) -> dict[str, torch.Tensor]:
        work = partial(steps_on, home=home, name=name, mode=mode, steps=steps, resume=resume)
        return work(0) if mode == "auto" else whole(on_ranks(2, work))[0]

    straight = run("auto", "straight", 8, False)
    name = f"{before} then {after}"
    run(before, name, 4, False)
    ending = ".dcp" if before == "fsdp" else ".pt"
    assert [p.name for p in checkpoint.step_files(home / name)][-1] == f"omni_step_4{ending}"
    resumed = run(after, name, 8, True)
    for key, tensor in straight.items():
        torch.testing.assert_close(resumed[key], tensor, atol=1e-4, rtol=1e-3)


def test_a_divided_checkpoint_becomes_a_file_and_damage_is_refused(home: Path) -> None:
    whole(on_ranks(2, partial(steps_on, home=home, name="divided", mode="fsdp", steps=2)))
    folder = home / "divided" / "omni_step_2.dcp"
    file = sharded_checkpoint.consolidate(folder)
    assert read_checkpoint(file)["step"] == 2
    assert read_checkpoint(file).keys() == sharded_checkpoint.read(folder).keys()
    part = next(folder.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is damaged"):
        sharded_checkpoint.read(folder)
    part.unlink()
    with pytest.raises(UserError, match="is missing"):
        sharded_checkpoint.read(folder)
