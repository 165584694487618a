"""The progress bar."""

import sys

import pytest

from omnitune.console import progress_bar


def test_a_bar_needs_no_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has none where it was closed (``>&-``)."""
    monkeypatch.setattr(sys, "stdout", None)
    with progress_bar("counting", 2) as advance:
        advance()
