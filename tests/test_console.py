"""The progress bar."""

import sys

import pytest

from omnitune import console
from omnitune.console import progress_bar


def test_a_bar_needs_no_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has none where it was closed (``>&-``)."""
    monkeypatch.setattr(sys, "stdout", None)
    with progress_bar("counting", 2) as advance:
        advance()


def test_a_log_has_no_lines_of_quick_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress_bar("counting", 20) as advance:
        for _ in range(20):
            advance()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console, "QUICK", 0.0)
    with progress_bar("counting", 20) as advance:
        for _ in range(20):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert all(line == line.rstrip() for line in lines)


def test_a_line_that_says_something_is_always_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("training", 4) as advance:
        for _ in range(4):
            advance(note="loss 1.000")
    assert len(capsys.readouterr().err.splitlines()) == 4
