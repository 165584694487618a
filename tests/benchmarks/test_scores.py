"""The table of scores: mean, spread and whether a goal is met."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scores
from benchmarks.scores import kinds_table, page, table, train
from omnitune.sample import UserError
from omnitune.tiny.side_by_side import Job


def results(image_qa: float, wer: float, loss: float) -> dict[str, Any]:
    kinds = {"count": image_qa - 0.1, "digits": image_qa}
    tasks = {
        "image_qa": {"exact_match": image_qa, "kinds": kinds},
        "transcription": {"wer": wer},
    }
    return {"loss": loss, "seconds": 60.0, "cores": 2, "splits": {"test": {"tasks": tasks}}}


def row(lines: list[str], name: str) -> list[str]:
    found = [line for line in lines if line.startswith(f"| {name}")]
    assert len(found) == 1
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_means_and_spreads_of_the_seeds() -> None:
    lines = table([0, 7], [results(0.9, 0.02, 0.2), results(0.96, 0.04, 0.5)])
    assert row(lines, "image QA, exact match")[1:] == [
        "93.0%", "6.0%", "90.0%", "96.0%", "≥ 95.0%", "missed",
    ]  # fmt: skip
    assert row(lines, "image QA, the weakest kind")[1] == "83.0%"
    assert row(lines, "WER, new sentences")[1:] == [
        "3.0%", "2.0%", "2.0%", "4.0%", "≤ 3.0%", "reached",
    ]  # fmt: skip
    assert row(lines, "mean supervised loss")[-2:] == ["≤ 0.300", "missed"]
    assert not [line for line in lines if "unseen voices" in line]  # no such split was scored
    assert len({line.count("|") for line in lines}) == 1
    assert "seed 0 | seed 7" in lines[0]


def test_page_holds_the_kinds_too() -> None:
    found = [results(0.9, 0.02, 0.2), results(0.8, 0.02, 0.2)]
    assert row(kinds_table(found), "count")[1:3] == ["75.0%", "10.0%"]
    text = page([0, 7], found)
    assert "seeds 0, 7" in text
    assert "took 1.0, 1.0 minutes on 2 cores" in text
    assert "minutes on 1 core.\n" in page([0], [found[0] | {"cores": 1}])


@pytest.mark.parametrize("change", [-0.1, 0.1])
def test_text_is_held_against_the_thinker_before(change: float) -> None:
    found = results(1, 0, 0) | {"text_guard": {"loss": 1 + change, "start": 1.0}}
    cells = row(table([3], [found]), "text loss")
    assert cells[1] == f"{change:.3f}"
    assert cells[-1] == ("reached" if change < 0 else "missed")


@pytest.mark.parametrize("status", [0, 2])
def test_a_seed_trains_its_parts_and_joins_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    jobs: list[Job] = []
    joined: list[str] = []

    def run(command: Sequence[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert len(jobs) == 3, "stage E came before its parts"
        joined.extend(command)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(scores, "run_side_by_side", jobs.extend)
    monkeypatch.setattr(scores.subprocess, "run", run)
    if status:
        with pytest.raises(UserError, match="status 2"):
            train(7, Path("data"), tmp_path)
        return
    assert train(7, Path("data"), tmp_path) == tmp_path / "omni_sft_tiny"
    thinker, *encoders = jobs
    assert thinker.makes == tmp_path / "thinker_tiny/tokenizer.json"
    assert all(job.needs == thinker.makes for job in encoders)
    assert all(str(thinker.makes) in job.command for job in encoders)
    for command in (joined, *(job.command for job in jobs)):
        assert command[command.index("--seed") + 1] == "7"
    for name in ("thinker_tiny/thinker_best.pt", "audio_enc_tiny/audio_enc.pt"):
        assert str(tmp_path / name) in joined
