"""Two runs that share one data folder's caches: both read what is right, and neither's is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny_model, write_image, write_source

from omnitune.data import index
from omnitune.data.feature_cache import FeatureStore
from omnitune.data.feature_table import Table
from omnitune.data.reading import read_source

TESTS = Path(__file__).resolve().parents[1]
# Encodes pictures one by one, each kept at once, after a start that all processes have together.
ENCODE = """
import sys, time
from pathlib import Path
from helpers import tiny_model
from omnitune.containers.cache import taking_turns
from omnitune.data import feature_cache
from omnitune.data.feature_cache import FeatureStore
feature_cache.KEEP_EVERY = 0.0
folder, first, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = tiny_model()
paths = sorted((folder / "media").glob("*.png"))
print("ready", flush=True); sys.stdin.readline()
for n in range(len(paths)):
    path = paths[(first + step * n) % len(paths)]
    store = FeatureStore(model.modalities["image"], model.encoders["image"], folder / "cache")
    store.prepare([path])
    if n % 5 == 0:  # as a process that was killed while it wrote
        with taking_turns(store._lock), store._file.open("ab") as file:
            file.write(b"x" * (1 + n))
"""
INDEX = """
import sys
from pathlib import Path
from omnitune.data import index
from omnitune.data.reading import read_source
index.KEEP_FROM = 0
print("ready", flush=True); sys.stdin.readline()
for n in range(25):
    samples = read_source(Path(sys.argv[1]), "text_only")
    assert [sample.id for sample in samples] == sys.argv[2].split(), n
    assert [sample.messages[1].text for sample in samples] == [f"number {k}." for k in range(40)]
"""


def side_by_side(script: str, *arguments: list[str]) -> None:
    """Runs a script in a process for each list of arguments, all from one moment on."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": paths}
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [*command, *words], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        for words in arguments
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors


def test_features_of_two_processes_are_those_of_their_media(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    paths = [write_image(tmp_path / "media" / f"{n:02}.png", seed=n) for n in range(20)]
    side_by_side(ENCODE, [str(tmp_path), "0", "1"], [str(tmp_path), "19", "-1"])
    model = tiny_model()
    store = FeatureStore(model.modalities["image"], model.encoders["image"], tmp_path / "cache")
    assert store.missing(paths) == []
    for path in paths:
        expected = model.encode("image", [model.modalities["image"].read(path)])[0].detach()
        torch.testing.assert_close(store(path), expected, atol=4e-3, rtol=2e-3)


def test_an_index_that_two_processes_make_and_replace_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"question": "what?", "answer": f"number {n}.", "split": "train"} for n in range(40)]
    path = write_source(tmp_path, "text_only", records)
    samples = read_source(tmp_path, "text_only")
    ids = " ".join(sample.id for sample in samples)
    monkeypatch.setattr(index, "KEEP_FROM", 0)
    side_by_side(INDEX, [str(tmp_path), ids], [str(tmp_path), ids])
    assert [sample.id for sample in read_source(tmp_path, "text_only")] == ids.split()
    assert len(json.loads(path.read_text())) == 40


def test_what_another_process_entered_is_kept(tmp_path: Path) -> None:
    one, other = Table(tmp_path / "table"), Table(tmp_path / "table")
    one.put("a" * 32, (1, 2))
    other.put("b" * 32, (3, 4))
    one.keep()
    other.keep()
    again = Table(tmp_path / "table")
    assert (again.get("a" * 32), again.get("b" * 32)) == ((1, 2), (3, 4))
    again.clear()
    again.put("c" * 32, (5, 6))
    again.keep()
    last = Table(tmp_path / "table")
    assert (last.get("a" * 32), last.get("c" * 32)) == (None, (5, 6))
