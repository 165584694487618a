"""Reading a run's folder: lenient about what is in it, clear about what is not."""

import json
from pathlib import Path

import pytest
from made_up import RESULTS, entry, write_run

from omnitune.data.reading import DataPlace
from omnitune.evaluation.runs import data_of, flatten, read_run, splits_of
from omnitune.sample import UserError


def test_an_unfinished_run_is_read(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", None, [entry(10, False)]))
    assert (len(run.entries), run.results, run.config) == (1, {}, {})
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n[2]\n{"step"', encoding="utf-8")
    assert read_run(tmp_path / "run").entries == [{"step": 1}]


def test_a_folder_without_a_run_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: no such folder"):
        read_run(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no run"):
        read_run(tmp_path)


def test_top_scores_are_those_of_the_main_split() -> None:
    splits = splits_of({**RESULTS, "intervals": {"loss": [0, 1]}, "mix": {"a": 1}, "seconds": None})
    assert list(splits) == ["test", "test_voices"]
    assert splits["test"]["intervals"] == {"loss": [0, 1]}
    assert "mix" not in splits["test"]
    assert splits_of({}) == {}


def test_settings_are_flattened() -> None:
    found = flatten({"a": {"b": 1, "c": None}, "d": "x"})
    assert found == [("a.b", "1"), ("a.c", "null"), ("d", "x")]


def test_the_data_of_a_run_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "checkpoints" / "run"
    run.mkdir(parents=True)
    (tmp_path / "my_data").mkdir()
    (run / "run.json").write_text(json.dumps({"config": {"data_dir": "my_data"}}))
    monkeypatch.chdir(tmp_path / "checkpoints")
    assert data_of(run) == DataPlace(tmp_path / "my_data")
    monkeypatch.chdir(tmp_path)
    assert data_of(run) == DataPlace(Path("my_data"))
