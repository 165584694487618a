"""The card tells what the run's files tell, and never more."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model

from omnitune.serving.web.card import Card, card_of

RESULTS = {
    "loss": 1.25,
    "image_qa_acc": 0.75,
    "intervals": {"loss": [1.0, 1.5], "image_qa_acc": [0.5, 0.875]},
    "tasks": {"image_qa": {"exact_match": 0.75, "questions": 80}},
    "seconds": 90,
    "run_hash": {"hash": "abc", "steps": 1200},
    "receipt": {
        "total": {
            "mine": {
                "asked": 0.5,
                **{
                    name: {"asked": 3, "got": 3, "share": 0.5}
                    for name in ("samples", "tokens", "supervised")
                },
            }
        }
    },
}
RUN = {
    "config": {
        "data_mix": {"mine": 1},
        "learning_rate": 0.1,
        "thinker_ckpt": "/home/somebody/parts/thinker.pt",
        "data_dir": "/home/somebody/data",
        "sources": {"mine": {"path": "/home/somebody/mine.jsonl"}},
    },
    "environment": {"torch": "2.13", "omnitune": "0.1"},
}


def card(folder: Path, **files: Any) -> Card:
    for name, values in files.items():
        text = values if isinstance(values, str) else json.dumps(values)
        (folder / f"{name}.json").write_text(text)
    return card_of("a model", folder, tiny_model())


def test_scores_with_intervals(tmp_path: Path) -> None:
    found = card(tmp_path, results=RESULTS, run=RUN)
    [loss, accuracy] = found.scores
    assert (loss.value, loss.interval, loss.share) == ("1.250", "1.000–1.500", None)
    assert (accuracy.value, accuracy.interval) == ("75.0 %", "50.0–87.5")
    assert (accuracy.share, accuracy.low, accuracy.high) == (0.75, 0.5, 0.875)
    assert found.split == "test"
    facts = dict(found.facts)
    assert facts["Steps"] == "1,200"
    assert facts["Trained for"] == "90 s"
    assert facts["Reads"] == "text, picture, sound"


def test_the_mix_is_the_receipt_s(tmp_path: Path) -> None:
    found = card(tmp_path, results=RESULTS, run=RUN)
    assert [len(row) for row in found.mix] == [len(found.mix_columns)]
    assert found.mix[0][:3] == ["mine", "50.0 %", "3 (50.0 %)"]
    without = card(tmp_path, results={})
    assert without.mix == [["mine", "1"]]
    assert len(without.mix_columns) == 2


def test_it_tells_no_place_of_the_machine(tmp_path: Path) -> None:
    found = card(tmp_path, results=RESULTS, run=RUN)
    told = json.dumps(found.values())
    assert "somebody" not in told
    assert "thinker.pt" in told
    assert str(tmp_path) not in told


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tasks": 3, "receipt": []}', "[" * 5000])
def test_damaged_files_leave_a_smaller_card(tmp_path: Path, content: str) -> None:
    found = card(tmp_path, results=content, run=content)
    assert found.scores == []
    assert dict(found.facts)["Reads"] == "text, picture, sound"
