"""Real files that nobody here made: each trains, is scored, validated, converted and inspected.

Some lie in ``tests/foreign``. ``OMNITUNE_FOREIGN`` names a folder with more of them.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from omnitune.cli import main
from omnitune.data.reading import DataPlace, read_available

FOREIGN = Path(__file__).parent / "foreign"
MORE = Path(os.environ.get("OMNITUNE_FOREIGN") or FOREIGN)
# Path, further settings of the source, what the log calls it, and how many records it has.
SOURCES: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "librispeech": ("librispeech", {"split": "auto"}, "LibriSpeech (2 files, lines)", 4),
    "digits": (
        "wds_testdata/sample.tgz", {"prompt": "which digit?"}, "WebDataset samples (1 file", 90,
    ),
    "swift": ("ms_swift/data/swift_multi.jsonl", {}, "ms-swift records (1 file, jsonl)", 3),
    "sharegpt": ("ms_swift/data/sharegpt.jsonl", {}, "ms-swift records (1 file, jsonl)", 3),
    "chatml": ("ms_swift/data/chatml.jsonl", {}, "(1 file, jsonl)", 3),
    "alpaca": ("ms_swift/data/alpaca.csv", {}, "Alpaca instructions (1 file, csv)", 3),
    "common_voice": ("common_voice_en", {}, "Common Voice (1 file, tsv)", 24),
    "spoken_digits": (
        "fsdd", {"prompt": ["which digit is it?"]}, "a folder of media by class", 120,
    ),
    "cloth": ("textile_faults", {"prompt": "is it sound?"}, "a folder of media by class", 60),
    "prompts": ("asterisk_en/core-sounds-en.kept.txt", {}, "(1 file, lines)", 40),
}  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ready-made tiny parts."""
    folder = tmp_path_factory.mktemp("parts")
    assert main(["parts", "--checkpoints", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", SOURCES)
def test_each_trains_is_scored_validated_converted_and_inspected(
    parts: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place, settings, title, count = SOURCES[name]
    path = next((root / place for root in (FOREIGN, MORE) if (root / place).exists()), None)
    if path is None:
        pytest.skip(f"{place} is not here; OMNITUNE_FOREIGN names the folder of more such files")
    config = tmp_path / "run.json"
    run: dict[str, Any] = {
        "sources": {name: {"path": str(path)} | settings},
        "thinker_ckpt": str(parts / "thinker_tiny" / "thinker_best.pt"),
        "vision_ckpt": str(parts / "vision_tiny" / "vision.pt"),
        "audio_ckpt": str(parts / "audio_enc_tiny" / "audio_enc.pt"),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 20,
        "batch_size": 4,
        "log_every": 20,
        "max_interpolation": 0,
    }
    config.write_text(json.dumps(run))
    assert main(["sft", "--config", str(config)]) == 0
    said = capfd.readouterr()
    assert f"{name}: " in said.err
    assert title in said.err
    assert "preflight: " in said.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["receipt"]
    assert main(["evaluate", "--ckpt_dir", str(tmp_path / "out")]) == 0
    assert main(["replay", "--ckpt_dir", str(tmp_path / "out"), "--step", "20"]) == 0
    assert main(["validate", str(config)]) in (0, 1)
    told = capfd.readouterr().out
    assert f"{count} records" in told
    native = tmp_path / "native.jsonl"
    assert main(["convert", str(path), str(native), "--to", "native", "--copy-media"]) == 0
    [before] = read_available(DataPlace.of(path)).values()
    [after] = read_available(DataPlace.of(native)).values()
    texts = [[m.text for m in sample.messages] for sample in before]
    assert [[m.text for m in sample.messages] for sample in after] == texts
    assert len(before) == count
    assert main(["inspect", str(native), "--sample", "0"]) == 0


@pytest.mark.parametrize("name", ["multi_modal_1", "multi_modal_2", "multi_modal_3"])
def test_media_that_are_web_addresses_are_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FOREIGN / "ms_swift" / "data" / f"{name}.jsonl"
    assert main(["inspect", str(path), "--sample", "0"]) == 2
    assert "a web address, and nothing is fetched for a record" in capsys.readouterr().err
