"""The benchmark of strategies: what it compares, and all of them once at toy size."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import shorten_answers

from benchmarks import strategies
from benchmarks.strategies import COLUMNS, NAMES, ROOT, STRATEGIES, curve, main
from omnitune.config.settings import load_config
from omnitune.config.sft import SftConfig


def entry(step: int, ended: bool, **scores: float) -> str:
    return json.dumps({"step": step, "epoch_ended": ended, "validation": scores}) + "\n"


@pytest.mark.parametrize("strategy", STRATEGIES, ids=NAMES)
def test_strategies_differ_from_plain_in_their_own_keys_only(strategy: Any) -> None:
    def settings(chosen: Any) -> dict[str, Any]:
        path = ROOT / "configs" / f"{chosen.config}.json"
        return load_config(SftConfig, path, list(chosen.options)).model_dump()

    own = {"phases", "curriculum", "adaptive_mix", "encoder_learning_rate", "output_dir"}
    plain, other = settings(STRATEGIES[0]), settings(strategy)
    different = {key for key in plain if plain[key] != other[key]}
    assert different <= own
    assert (different & own - {"output_dir"} == set()) is (strategy.name == "plain")


def test_curve_is_the_mean_of_the_moments_that_all_runs_have(tmp_path: Path) -> None:
    for n, last in enumerate((30, 40)):
        folder = tmp_path / str(n)
        folder.mkdir()
        lines = [entry(10, False, loss=1.0 + n), entry(20, True, loss=0.5 + n), entry(last, True)]
        (folder / "metrics.jsonl").write_text("".join(lines))
    paths = [tmp_path / "0", tmp_path / "1"]
    assert curve(paths, "loss", False) == ([10], [1.5])
    assert curve(paths, "loss", True) == ([20], [1.0])
    assert curve(paths, "wer", True) == ([], [])


def test_unknown_strategy_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--strategies", "plain,fancy"])
    assert "no such strategy: fancy" in capsys.readouterr().err


@pytest.mark.slow
def test_miniature(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten_answers(monkeypatch, 3)
    arguments = ["--epochs", "1", "--folder", str(home / "s"), "--json", str(home / "s.json")]
    arguments += ["--out", str(home / "img" / "s.png"), "--data-dir", str(home / "data")]
    arguments += ["--thinker-ckpt", str(home / "thinker.pt"), "--vision-ckpt"]
    arguments += [str(home / "image.pt"), "--audio-ckpt", str(home / "audio.pt")]
    arguments += ["--batch-size", "2", "--log-every", "3"]
    main(arguments)
    found = json.loads((home / "s.json").read_text())["strategies"]
    assert list(found) == NAMES
    assert all(set(COLUMNS) == set(row["0"]) for row in found.values())
    assert (home / "img" / "s.png").stat().st_size > 5000
    assert "balance_score" in capsys.readouterr().out
    before = (home / "s" / "plain-0" / "omni.pt").stat().st_mtime_ns
    monkeypatch.setattr(strategies, "draw", lambda *a: None)
    main([*arguments, "--strategies", "plain"])
    assert (home / "s" / "plain-0" / "omni.pt").stat().st_mtime_ns == before
