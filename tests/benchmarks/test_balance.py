"""The benchmark of even ranks: each sample is dealt once, and what is told is the slowest rank."""

from pathlib import Path

import pytest
from rank_helpers import needs_fork

from benchmarks import balance


@needs_fork
def test_a_short_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--ranks", "2", "--steps", "1", "--batch-size", "4"]
    assert balance.main([*given, "--json", str(tmp_path / "found.json")]) == 0
    told = capsys.readouterr().out
    assert "2 ranks, step 1: by turns" in told
    assert "by cost" in told
    assert (tmp_path / "found.json").exists()


def test_the_slowest_rank_is_held_against_the_mean() -> None:
    assert balance.spreads([[3.0, 1.0], [2.0, 2.0]]) == [1.5, 1.0]
    [row] = balance.rows({2: {"by turns": [[3.0, 1.0], [2.0, 2.0]]}})
    assert row == ("2", "by turns", "1.25", "1.50", "20%")
