"""Runs that leave out what is wrong: counted by reason, the same in any order, up to a limit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import sft_settings

from omnitune.config.sft import SftConfig
from omnitune.data.loader import BatchStream
from omnitune.evaluation.evaluate import evaluate_checkpoint
from omnitune.evaluation.runs import data_of
from omnitune.sample import UserError
from omnitune.sources import SOURCES
from omnitune.training import sft
from omnitune.training.sft import build_training, finetune

SKIP: dict[str, Any] = {"bad_samples": "skip", "max_bad_samples": 0.9}
SOURCE = "image_text"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """Parts and data of this test's own."""
    return Path(shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("*/.*")))


Records = list[dict[str, Any]]


def change(home: Path, edit: Callable[[Records], object]) -> Path:
    """Changes the records of a source; returns their folder."""
    path = home / "data" / SOURCES[SOURCE].file
    records = json.loads(path.read_text())
    edit(records)
    path.write_text(json.dumps(records))
    return path.parent


def cut(path: Path) -> None:
    """Leaves the header and a little more."""
    path.write_bytes(path.read_bytes()[:100])


def of_split(records: Records, split: str) -> list[dict[str, Any]]:
    return [record for record in records if record.get("split") == split]


def test_wrong_records_and_missing_media_are_left_out(own: Path) -> None:
    def edit(records: Records) -> None:
        first, second, *_ = of_split(records, "train")
        first["anser"] = "typo"
        second["image"] = "gone.png"

    change(own, edit)
    config = sft_settings(own)
    with pytest.raises(UserError, match="unknown key"):
        build_training(config)
    setup = build_training(sft_settings(own, **SKIP))
    assert setup.bad is not None
    found = setup.bad.as_json()["sources"][SOURCE]
    assert found["reasons"] == {"unknown-key": 1, "missing-media": 1}
    shown = {str(m.path) for held in setup.samples.values() for m, _ in held.media()}
    assert not any("gone.png" in path for path in shown)


@pytest.mark.parametrize("cached", ["on", "off"])
def test_what_breaks_in_training_is_dropped_and_counted(own: Path, cached: str) -> None:
    names = []

    def edit(records: Records) -> None:
        names.append(of_split(records, "train")[0]["image"])
        names.append(of_split(records, "test")[0]["image"])

    folder = change(own, edit)
    for name in names:
        cut(folder / name)
    config = sft_settings(own, **SKIP, feature_cache=cached, max_steps=6)
    results = finetune(config)
    assert results is not None
    assert results["bad_samples"]["sources"][SOURCE]["reasons"] == {"unreadable-media": 2}
    assert results == json.loads((config.out / "results.json").read_text())
    again = evaluate_checkpoint(config.out, data_of(config.out), "test")
    assert any(f"left out of {SOURCE}" in warning for warning in again["warnings"])
    assert again["loss"] == pytest.approx(results["loss"], abs=1e-4)


def streams(config: SftConfig) -> BatchStream:
    setup = build_training(config)
    return setup.strategy.stream


def test_the_same_samples_are_dropped_in_any_order(own: Path) -> None:
    names: list[str] = []
    folder = change(own, lambda records: names.append(of_split(records, "train")[0]["image"]))
    cut(folder / names[0])
    config = sft_settings(own, **SKIP, feature_cache="off")
    one, other = streams(config), streams(config)
    numbers = range(40)
    straight = [bool(one.items_at(k)) for k in numbers]
    assert [bool(other.items_at(k)) for k in reversed(numbers)] == straight[::-1]
    assert not all(straight)
    whole = [len(one.read_batch(n)) for n in range(5)]
    assert whole == [sum(straight[4 * n : 4 * n + 4]) for n in range(5)]


def test_too_many_stop_the_run_with_the_most_common_reason(own: Path) -> None:
    def edit(records: Records) -> None:
        for record in of_split(records, "train")[:3]:
            record["anser"] = "typo"

    change(own, edit)
    with pytest.raises(UserError, match=r"3 of \d+ .* most common reason is unknown-key \(3\)"):
        build_training(sft_settings(own, bad_samples="skip", max_bad_samples=0.01))


@pytest.mark.slow
def test_a_run_that_goes_on_still_counts_what_was_dropped(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    folder = change(own, lambda records: names.append(of_split(records, "train")[0]["image"]))
    cut(folder / names[0])
    config = sft_settings(own, **SKIP, feature_cache="off", max_steps=6)
    whole = finetune(config)
    again = sft_settings(own, "again", **SKIP, feature_cache="off", max_steps=6)
    original = sft.final_scores
    monkeypatch.setattr(
        sft, "final_scores", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        finetune(again)
    monkeypatch.setattr(sft, "final_scores", original)
    resumed = finetune(again, resume=True)
    assert whole is not None
    assert resumed is not None
    assert resumed["bad_samples"] == whole["bad_samples"]
    assert resumed["run_hash"] == whole["run_hash"]


@pytest.mark.parametrize("broken", ["record", "medium"])
def test_a_held_out_split_is_never_emptied_unsaid(own: Path, broken: str) -> None:
    names: list[str] = []

    def edit(records: Records) -> None:
        for record in of_split(records, "test"):
            names.append(record["image"])
            if broken == "record":
                record["anser"] = "typo"

    folder = change(own, edit)
    for source in SOURCES.values():  # no other source has any
        path = own / "data" / source.file
        records = json.loads(path.read_text()) if path.exists() else []
        others = [r for r in records if r.get("split") != "test" or source.name == SOURCE]
        if others:
            path.write_text(json.dumps(others))
    for name in names if broken == "medium" else ():
        cut(folder / name)
    config = sft_settings(own, bad_samples="skip", max_bad_samples=1.0)
    with pytest.raises(UserError, match="every record of the split test is left out"):
        build_training(config)
