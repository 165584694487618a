"""Whatever hits a run, it goes on, and ends as if nothing had happened."""

import os
import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from benchmarks.chaos_outcome import damage, difference, same
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def chaos(*arguments: str, seconds: float = 600) -> str:
    """What the command prints; in a process of its own, as it forks others."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_that_are_killed_at_random_moments_end_as_an_undisturbed_one() -> None:
    """In indexing, caching, training, saving, scoring or reporting."""
    said = chaos("--ranks=1", "--kills-only", "--faults=10", "--steps=12", "--seed=1")
    assert "killed (SIGKILL)" in said
    assert re.search(r"[1-9]\d* runs ended bit for bit as the undisturbed one", said)


def test_runs_that_anything_happens_to_end_as_an_undisturbed_one() -> None:
    said = chaos("--ranks=1", "--faults=8", "--steps=12", "--seed=5")
    assert len(re.findall(r"^survived", said, re.M)) >= 3
    assert re.search(r"[1-9]\d* runs ended bit for bit as the undisturbed one", said)


@pytest.mark.slow
def test_ranks_that_anything_happens_to_end_as_undisturbed_ones() -> None:
    """Whole models on two ranks, then divided ones; torchrun has tests/distributed/."""
    said = chaos("--ranks=2", "--torchrun=0", "--faults=3", "--steps=4", "--seed=4")
    assert re.search(r"^survived", said, re.M)
    assert re.search(r"[1-9]\d* runs ended bit for bit .*\(\w+, 2 ranks\)", said)


@pytest.mark.slow
@pytest.mark.skipif("OMNITUNE_LONG" not in os.environ, reason="takes up to an hour: OMNITUNE_LONG")
def test_a_hundred_kills() -> None:
    chaos("--ranks=1", "--kills-only", "--faults=100", "--seed=2", seconds=3000)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_refused_or_harmless(tmp_path: Path, seed: int) -> None:
    """With its manifest there, missing or junk; a bit of the padding may be anything."""
    path, values = tmp_path / "omni_step_1.pt", {"model": {"weight": torch.arange(900.0)}}
    write_checkpoint(path, values)
    damage(random.Random(seed), path)
    with suppress(UserError):
        assert same(read_checkpoint(path), values)


def test_what_differs_in_a_bit_is_not_the_same() -> None:
    one = {"a": [torch.zeros(3), {"b": 1.0}]}
    assert same(one, {"a": [torch.zeros(3), {"b": 1.0}]})
    assert not same(one, {"a": [torch.zeros(3) + 1e-45, {"b": 1.0}]})
    assert not same(one, {"a": [torch.zeros(3), {"b": 1.0, "c": 0}]})
    assert not same(one, {"a": [torch.zeros(3)]})
    assert difference(one, {"a": [torch.zeros(3), {"b": 2.0}]}) == ".a[1].b: 1.0, not 2.0"
