"""The benchmark of answering: every kind of prompt is timed, and the numbers are written."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import mixed_samples, tiny_model, tiny_reader

from benchmarks import inference


def test_every_kind_is_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    samples = mixed_samples(tmp_path)
    bench = SimpleNamespace(
        model=model,
        training={"short": samples[:1], "long": samples[3:4]},
        reader=lambda: tiny_reader(model),
    )
    monkeypatch.setattr(inference, "make", lambda workload, data: bench)
    path = tmp_path / "found.json"
    options = ["--rounds", "2", "--tokens", "4", "--batch", "3"]
    inference.main([*options, "--data", str(tmp_path), "--json", str(path)])
    found = json.loads(path.read_text())["inference"]
    assert list(found) == ["short, one", "long, one", "mixed, 3 together"]
    for row in found.values():
        assert row["first_token_ms"] > 0
        assert row["tokens_per_second"] > 0


def test_prompts_are_repeated_in_turn(tmp_path: Path) -> None:
    samples = mixed_samples(tmp_path)[:2]
    prompts = inference.prompts_of(samples, 3)
    assert prompts == [samples[n].messages[:1] for n in (0, 1, 0)]
