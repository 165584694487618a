"""The benchmark of growth: its records, and one run of it in miniature."""

import json
import tempfile
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import COLUMNS, make_data, records
from benchmarks.workload import WEIGHTS
from omnitune.data.mixture import Mixture
from omnitune.data.reading import DataPlace, join, read_available, split_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))  # which the benchmark sets
    return tmp_path


def test_smaller_data_are_the_beginning_of_larger() -> None:
    for source in WEIGHTS:
        assert list(records(source, 5)) == list(islice(records(source, 50), 5))
        texts = {pair["question"] for r in records(source, 50) for pair in r["qa"]}
        assert len(texts) == 100


@pytest.mark.parametrize("container", ["json", "jsonl", "parquet"])
def test_data_can_be_read_and_share_their_media(home: Path, container: str) -> None:
    folder = make_data(200, container)
    assert make_data(200, container) == folder
    found = read_available(folder)
    assert {name: len(samples) for name, samples in found.items()} == {
        "text_only": 80,
        "image_text": 60,
        "audio_text": 60,
    }
    everything = join(found.values())
    assert everything.splits == {"train", "validation"}
    assert len(list(everything.media())) == 2 * scale.MEDIA
    sizes = {name: len(split_of(samples, "train")) for name, samples in found.items()}
    assert Mixture(sizes, WEIGHTS, 0).epoch_size < 200


def test_records_are_the_same_in_shards(home: Path) -> None:
    lists, shards = make_data(50), make_data(50, "tar")
    own = scale.settings(shards).own_sources
    assert list(own) == [f"{name}_shards" for name in WEIGHTS]
    found = read_available(DataPlace(None, own))
    for name, samples in read_available(lists).items():
        same = found[f"{name}_shards"]
        texts = [[m.text for m in sample.messages] for sample in samples]
        assert [[m.text for m in sample.messages] for sample in same] == texts
        assert [len(s.media) for s in same] == [len(s.media) for s in samples]


@pytest.mark.slow
def test_miniature(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "found.json"
    scale.main(["--sizes", "100,200", "--rounds", "1", "--steps", "2", "--json", str(path)])
    found = json.loads(path.read_text())["sizes"]
    assert list(found) == ["100 json", "200 json"]
    for row in found.values():
        assert set(row) == set(COLUMNS)
        assert all(value > 0 for value in row.values())
    assert "stage E by number of records" in capsys.readouterr().out
    assert found["200 json"]["resumed_at_step"] > found["100 json"]["resumed_at_step"]
