"""The table of scores: mean, spread and whether a goal is met."""

from typing import Any

import pytest

from benchmarks.scores import kinds_table, page, table


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
