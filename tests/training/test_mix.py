"""The realised mix: shares of sums, and when it is worth a line."""

from typing import Any

import pytest

from omnitune.training.mix import MEASURES, add_step, mix_lines, shares

GROUPS = ["text_only", "image_text"]


def step(samples: list[float], tokens: list[float]) -> dict[str, list[float]]:
    return {"samples": samples, "tokens": tokens, "supervised": [3, 1], "loss": [1, 3]}


def test_shares_are_of_the_sums_and_not_of_the_steps() -> None:
    sums: dict[str, dict[str, float]] = {}
    add_step(sums, {"text_only": 0.5, "image_text": 0.5}, GROUPS, step([1, 1], [30, 10]))
    add_step(sums, {"image_text": 1.0}, GROUPS, step([0, 6], [0, 160]))
    found = shares(sums)
    assert found["text_only"] == pytest.approx(
        {"asked": 1 / 8, "samples": 1 / 8, "tokens": 30 / 200, "supervised": 0.75, "loss": 0.25}
    )
    for measure in MEASURES:
        assert sum(row[measure] for row in found.values()) == pytest.approx(1)


def test_nothing_counted_is_no_share() -> None:
    assert shares({}) == {}
    assert shares({"text_only": dict.fromkeys(MEASURES, 0.0)})["text_only"]["loss"] == 0


@pytest.mark.parametrize(
    ("ended", "got", "lines"), [(True, 0.7, 1), (False, 0.7, 0), (True, 0.52, 0)]
)
def test_line_at_an_epochs_end_where_it_is_notable(ended: bool, got: float, lines: int) -> None:
    row = {"asked": 0.5, "samples": 0.5, "tokens": 0.9, "supervised": got, "loss": 0.5}
    other = row | {"tokens": 0.1, "supervised": 1 - got}
    entry: dict[str, Any] = {"epoch_ended": ended, "mix": {"text_only": row, "image_text": other}}
    found = mix_lines(entry)
    assert len(found) == lines
    assert not lines or "text_only 50% → 50%/70%/50%; image_text 50% → 50%/30%/50%" in found[0]


def test_entry_of_a_stage_without_a_mix() -> None:
    assert mix_lines({"epoch_ended": True}) == []
