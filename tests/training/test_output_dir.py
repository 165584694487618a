"""The output folder: never trained over, never lost."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.training.output_dir import finish, prepare_output_dir


def settings(folder: Path, **rest: Any) -> SftConfig:
    return SftConfig(output_dir=folder / "run", **rest)


def open_output(config: SftConfig, resume: bool = False, overwrite: bool = False) -> bool:
    output = prepare_output_dir(config, config.out / "omni.pt", resume, overwrite)
    if output is not None:
        output.open()
    return output is None


def leave_unfinished(config: SftConfig) -> list[Path]:
    """What a run leaves that was stopped."""
    assert not open_output(config)
    names = ("omni_step_4.pt", "metrics.jsonl", "notes.txt", "tensorboard/events.out.tf.1")
    paths = [config.out / name for name in names]
    paths[-1].parent.mkdir()
    for path in paths:
        path.write_text("x")
    return paths


def test_new_folder_is_opened_with_its_settings(tmp_path: Path) -> None:
    config = settings(tmp_path, seed=5)
    assert not open_output(config)
    found = json.loads((config.out / "run.json").read_text())
    assert found["finished"] is False
    assert found["config"]["seed"] == 5
    assert SftConfig(**found["config"]) == config


def test_finished_run_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path)
    open_output(config)
    (config.out / "omni.pt").write_text("model")
    finish(config)
    for resume in (False, True):
        assert open_output(config, resume)
        said = capsys.readouterr().out
        assert "omni.pt is there and complete; nothing to do" in said
    assert open_output(
        settings(tmp_path, log_every=7, device="cpu")
    )  # how it is watched may differ
    assert not open_output(config, overwrite=True)
    assert json.loads((config.out / "run.json").read_text())["finished"] is False


def test_finished_run_without_its_result_is_trained_again(tmp_path: Path) -> None:
    config = settings(tmp_path)
    open_output(config)
    finish(config)
    assert not open_output(config)


def test_resuming_a_run_without_its_record_says_that_nothing_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(tmp_path)
    leave_unfinished(config)
    assert not open_output(config, resume=True)
    assert "note: " not in capsys.readouterr().out
    (config.out / "run.json").unlink()
    assert not open_output(config, resume=True)
    assert f"note: {config.out / 'run.json'} is missing: nobody can" in capsys.readouterr().out


@pytest.mark.parametrize("resume", [False, True])
def test_other_settings_are_listed(tmp_path: Path, resume: bool) -> None:
    paths = leave_unfinished(settings(tmp_path, learning_rate=1e-3))
    mix = {"text_only": 1.0}
    with pytest.raises(UserError) as error:
        open_output(settings(tmp_path, seed=3, data_mix=mix, log_every=9), resume)
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert "holds a run with other settings" in lines[0]
    assert "learning_rate: 0.001 there, 0.0001 now" in lines
    assert "seed: 0 there, 3 now" in lines
    assert sum(" there, " in line for line in lines) == 3
    assert any(line.startswith("data_mix: ") for line in lines)
    assert "--overwrite" in lines[-1]
    assert all(path.exists() for path in paths)


def test_a_setting_that_an_older_run_did_not_know_had_its_default(tmp_path: Path) -> None:
    leave_unfinished(settings(tmp_path))
    path = tmp_path / "run" / "run.json"
    run = json.loads(path.read_text())
    del run["config"]["loss_length_exponent"]
    path.write_text(json.dumps(run))
    assert not open_output(settings(tmp_path), resume=True)
    path.write_text(json.dumps(run))
    with pytest.raises(UserError, match=r"loss_length_exponent: 0\.0 there, 0\.5 now"):
        open_output(settings(tmp_path, loss_length_exponent=0.5), resume=True)


def test_unfinished_run_needs_a_decision(tmp_path: Path) -> None:
    config = settings(tmp_path)
    paths = leave_unfinished(config)
    with pytest.raises(UserError, match=r"unfinished run; --resume .* --overwrite"):
        open_output(config)
    assert all(path.exists() for path in paths)
    assert not open_output(config, resume=True)
    assert all(path.exists() for path in paths)


def test_overwriting_takes_away_the_run_and_nothing_else(tmp_path: Path) -> None:
    paths = leave_unfinished(settings(tmp_path))
    assert not open_output(settings(tmp_path, seed=8), overwrite=True)
    assert [path.name for path in paths if path.exists()] == ["notes.txt"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["seed"] == 8


def test_run_that_saved_nothing_starts_again(tmp_path: Path) -> None:
    config = settings(tmp_path)
    open_output(config)
    (config.out / "metrics.jsonl").write_text("x")
    assert not open_output(config)
    assert not (config.out / "metrics.jsonl").exists()


def test_checkpoints_of_nobody_known_are_not_deleted(tmp_path: Path) -> None:
    """Without its run.json a folder's checkpoints may be anybody's."""
    config = settings(tmp_path)
    config.out.mkdir()
    strange = config.out / "step_1000.pt"
    strange.write_text("three weeks of work")
    with pytest.raises(UserError, match="--overwrite"):
        open_output(config)
    assert strange.exists()


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_damaged_run_file_is_named(tmp_path: Path, content: str) -> None:
    config = settings(tmp_path)
    config.out.mkdir()
    (config.out / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json: cannot be read"):
        open_output(config)
    assert not open_output(config, overwrite=True)


def test_folder_that_is_a_file_or_lies_in_one(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    for folder in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(UserError, match="run is a file, expected a folder"):
            open_output(SftConfig(output_dir=folder))


def test_nothing_is_written_or_taken_away_before_the_folder_is_opened(tmp_path: Path) -> None:
    """What is refused after the folder was examined costs nothing."""
    config = settings(tmp_path)
    assert prepare_output_dir(config, config.out / "omni.pt", False, False) is not None
    assert not config.out.exists()
    paths = leave_unfinished(config)
    assert prepare_output_dir(config, config.out / "omni.pt", False, overwrite=True) is not None
    assert all(path.exists() for path in paths)


def test_the_same_files_in_another_place_are_the_same_run(tmp_path: Path) -> None:
    first, second = settings(tmp_path), settings(tmp_path, data_dir=tmp_path / "." / "elsewhere")
    data = tmp_path / "data.json"
    data.write_text("[]")
    moved = tmp_path / "moved.json"
    result = first.out / "omni.pt"

    def examine(config: SftConfig, path: Path) -> bool:
        output = prepare_output_dir(config, result, True, False, {"text/data.json": path})
        assert output is not None
        output.open()
        return True

    assert examine(first, data)
    (first.out / "omni_step_4.pt").write_text("x")
    data.rename(moved)
    assert examine(second, moved)
    moved.write_text("[1]")
    with pytest.raises(UserError, match=r"other inputs:\n  text/data\.json: "):
        examine(second, moved)


def test_environment_and_every_command_are_kept(tmp_path: Path) -> None:
    config = settings(tmp_path)
    leave_unfinished(config)
    open_output(config, resume=True)
    found = json.loads((config.out / "run.json").read_text())
    assert found["environment"]["torch"]
    assert len(found["commands"]) == 2
    open_output(config, overwrite=True)
    assert len(json.loads((config.out / "run.json").read_text())["commands"]) == 1


def test_a_new_run_has_a_new_name_for_trackers_a_resumed_one_the_old(tmp_path: Path) -> None:
    config = settings(tmp_path)
    leave_unfinished(config)
    (config.out / "trackers.json").write_text("{}")
    open_output(settings(tmp_path, trackers=[]), resume=True)  # how it is watched may differ
    assert (config.out / "trackers.json").exists()
    open_output(config, overwrite=True)
    assert not (config.out / "trackers.json").exists()


def test_missing_tracker_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    config = settings(tmp_path, trackers=["wandb"])
    with pytest.raises(UserError, match="pip install wandb"):
        open_output(config)
    assert not config.out.exists()


def test_half_files_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    config = settings(tmp_path)
    leave_unfinished(config)
    for name in ("omni_step_3.pt.tmp", "run.json.tmp", "manifest.json.tmp", "notes.txt.tmp"):
        (config.out / name).write_text("half")
    assert not open_output(config, resume=True)
    assert [path.name for path in config.out.glob("*.tmp")] == ["notes.txt.tmp"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"config": 3}', "\xff", "[" * 100_000])
def test_damaged_record_of_a_run_is_told(tmp_path: Path, content: str) -> None:
    config = settings(tmp_path)
    leave_unfinished(config)
    (config.out / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"run\.json: cannot be read.*--overwrite"):
        open_output(config, resume=True)
    assert not open_output(config, overwrite=True)


def test_the_model_of_a_run_that_is_replaced_goes_with_it(tmp_path: Path) -> None:
    """Else a chat would answer with it as if the new run had made it."""
    leave_unfinished(settings(tmp_path))
    model = tmp_path / "run" / "omni.pt"
    model.write_text("the old one")
    assert not open_output(settings(tmp_path), resume=True)
    assert model.exists()
    assert not open_output(settings(tmp_path, seed=8), overwrite=True)
    assert not model.exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_result_that_no_run_here_made_is_not_replaced(tmp_path: Path, resume: bool) -> None:
    config = settings(tmp_path)
    config.out.mkdir()
    (config.out / "omni.pt").write_text("somebody's")
    with pytest.raises(UserError, match=r"omni\.pt is there, and no run .*--overwrite replaces it"):
        open_output(config, resume)
    assert (config.out / "omni.pt").read_text() == "somebody's"
    assert not open_output(config, overwrite=True)
