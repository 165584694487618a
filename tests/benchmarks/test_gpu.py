"""The benchmark of real sizes, at its toy size: every version trains, and the table is whole."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import TOY, WhisperWindow, make
from benchmarks.sft import step_flops
from benchmarks.trainer import WARM_UP, LibraryTrainer
from benchmarks.versions import Omnitune
from omnitune.data.packing import pack


def test_both_engines_train_on_all_three_sources(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    bench = make(TOY, tmp_path, batch_size=4)
    assert isinstance(bench.model.modalities["audio"], WhisperWindow)
    items = [bench.items(bench.reader(), k, 0.0)[0] for k in range(8)]
    batch = pack(items)
    assert set(batch.media) == {"image", "audio"}
    slots = {name: len(rows.slots_R) // len(rows.inputs) for name, rows in batch.media.items()}
    assert slots == {"image": 4, "audio": 10}
    flops, supervised = step_flops(bench, 0, 2)
    assert flops > 1e6
    assert supervised > 4 * TOY.words / 2
    before = bench.model.proj_a.down.weight.clone()
    engines = (
        Omnitune(bench, 0.0),
        LibraryTrainer(bench, 0.0, False),
    )
    for engine in engines:
        timing = engine.run(0, 2)
        engine.close()
        assert len(timing.seconds) == 2
        assert all(seconds > 0 for seconds in timing.seconds)
    assert WARM_UP > 0
    assert not torch.equal(bench.model.proj_a.down.weight, before)


@pytest.mark.slow
def test_program_prints_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate")
    path = tmp_path / "found.json"
    names = ("Trainer, padded rows", "omnitune")
    sizes = ["--batch", "2", "--rounds", "1", "--steps", "1"]
    gpu.main(["--toy", *sizes, "--versions", "|".join(names), "--json", str(path)])
    said = capsys.readouterr().out
    assert "toy size" in said
    assert all(name in said for name in names)
    found = json.loads(path.read_text())
    assert found["speedup_vs_trainer"]["toy"] > 0
    row = found["workloads"]["toy"]["versions"]["omnitune"]
    assert row["flops_share"]["float32"] > 0
    assert row["peak_memory_mb"] > 0
