"""Versions in processes of their own."""

import multiprocessing
from functools import partial

import pytest

from benchmarks.sft import _take_turns


def test_a_version_that_fails_ends_the_comparison_and_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken = partial(int, "no such workload")
    with pytest.raises(SystemExit, match="a version has failed"):
        _take_turns(broken, [("omnitune", False), ("omnitune", True)], 1, 1, (1.0, "cpu"))
    assert multiprocessing.active_children() == []
    assert "no such workload" in capfd.readouterr().err
