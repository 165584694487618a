"""The best checkpoint: chosen by a held-out score, kept whatever comes later, used if asked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings
from loop_helpers import eight_samples, settings, start
from pydantic import ValidationError

from omnitune.config.sft import SftConfig
from omnitune.sample import Sample, UserError
from omnitune.storage import NoRoomError, read_checkpoint
from omnitune.training import best, checkpoint, sft
from omnitune.training.checkpoint import step_files
from omnitune.training.loop import train
from omnitune.training.progress import BEST_FILE
from omnitune.training.run import Run


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return eight_samples(tmp_path_factory.mktemp("media"))


def scored(
    samples: list[Sample], folder: Path, values: dict[int, float], name: str, **rest: Any
) -> Run:
    """A run of four epochs of two steps, whose scores after each are given."""
    config = settings(folder, batch_size=4, keep_best=name, keep_checkpoints=1, **rest)
    return start(config, samples, lambda step, ended: {name: values.get(step, -9.0)})


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("loss", {2: 3.0, 4: 1.0, 6: 1.0, 8: 2.0}, 4),
        ("audio_wer", {2: 0.3, 4: 0.4, 6: 0.2, 8: 0.5}, 6),
        ("image_qa_acc", {2: 0.1, 4: 0.9, 6: 0.5, 8: 0.9}, 4),
    ],
)
def test_the_best_is_kept_whatever_comes_later(
    samples: list[Sample], tmp_path: Path, name: str, values: dict[int, float], expected: int
) -> None:
    run = scored(samples, tmp_path, {0: 0.0} | values, name, log_every=1, save_every=1)
    seen: dict[int, Any] = {}
    run.score, score = (lambda step, ended: (seen_at(step), score(step, ended))[1]), run.score

    def seen_at(step: int) -> None:
        seen[step] = run.model.state_dict()["proj_v.up.weight"].clone()

    train(run)
    assert [path.name for path in step_files(tmp_path)] == ["omni_step_8.pt"]
    found = read_checkpoint(tmp_path / BEST_FILE)
    assert found["step"] == expected
    assert found["best"] == {"score": name, "value": values[expected], "step": expected}
    assert torch.equal(found["model"]["proj_v.up.weight"], seen[expected])
    assert BEST_FILE in json.loads((tmp_path / "manifest.json").read_text())
    assert best.take_best(run) == expected
    assert torch.equal(run.model.state_dict()["proj_v.up.weight"], seen[expected])


def test_the_best_survives_a_resume(samples: list[Sample], tmp_path: Path) -> None:
    values = {0: 5.0, 2: 1.0, 4: 3.0, 6: 2.0, 8: 4.0}
    run = scored(samples, tmp_path, values, "loss", save_every=3)
    run.batch_at, real = (lambda n, part: real(n, part) if n < 5 else 1 / 0), run.batch_at  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        train(run)
    again = scored(samples, tmp_path, values, "loss", save_every=3)
    assert checkpoint.restore(again)
    train(again)
    assert again.state["best"]["step"] == 2
    assert best.take_best(again) == 2


def test_a_best_of_another_moment_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    run = scored(samples, tmp_path, {0: 5.0, 2: 1.0, 4: 3.0}, "loss", max_steps=4)
    train(run)
    run.state["best"] = {"score": "loss", "value": 0.5, "step": 4}
    with pytest.raises(UserError, match=r"omni_best\.pt: is of .*'step': 2.*'step': 4"):
        best.take_best(run)


def test_a_score_that_the_data_do_not_give_is_told_before_the_first_step(
    samples: list[Sample], tmp_path: Path
) -> None:
    run = start(settings(tmp_path, keep_best="audio_wer"), samples)
    with pytest.raises(UserError, match=r"keep_best is audio_wer, but .* they give: loss"):
        train(run)
    assert run.step == 0


def test_scores_between_epochs_do_not_count(samples: list[Sample], tmp_path: Path) -> None:
    values = {0: 9.0, 1: 0.1, 2: 2.0, 3: 0.1, 4: 3.0}
    run = scored(samples, tmp_path, values, "loss", log_every=1, max_steps=4)
    train(run)
    assert run.state["best"]["step"] == 2


@pytest.mark.parametrize("on_full_disk", ["go_on", "stop"])
def test_where_the_best_finds_no_room(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_full_disk: str
) -> None:
    def full(path: Path, values: Any) -> None:
        raise NoRoomError(f"{path}: cannot be written")

    monkeypatch.setattr(best, "write_checkpoint", full)
    run = scored(samples, tmp_path, {2: 1.0}, "loss", on_full_disk=on_full_disk)
    if on_full_disk == "go_on":
        train(run)
        assert "best" not in run.state
        return
    with pytest.raises(NoRoomError, match=r"omni_best\.pt"):
        train(run)
    assert [path.name for path in step_files(tmp_path)] == ["omni_step_2.pt"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep_best": "audio_wre"}, "did you mean audio_wer"),
        ({"keep_best": "x"}, "expected one of loss, text_acc"),
        ({"use_best": True}, "give keep_best a score"),
    ],
)
def test_wrong_names_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SftConfig(**given)


def test_the_model_is_of_the_best_checkpoint_if_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sft_settings(home, "best", keep_best="loss", use_best=True, max_interpolation=0)
    real = sft.build_run

    def worse_and_worse(*arguments: Any) -> Run:
        run = real(*arguments)
        score = run.score
        run.score = lambda step, ended: score(step, ended) | {"loss": float(step)}
        return run

    monkeypatch.setattr(sft, "build_run", worse_and_worse)
    results = sft.finetune(config)
    assert results is not None
    assert results["best"] == {"score": "loss", "value": 3.0, "step": 3}
    kept, whole = read_checkpoint(config.out / BEST_FILE), read_checkpoint(config.out / "omni.pt")
    assert whole["step"] == 3
    for name, tensor in whole["proj_v"].items():
        assert torch.equal(tensor, kept["model"][f"proj_v.{name}"])
