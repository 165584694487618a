"""Histograms count every value once, between round edges."""

from pathlib import Path

import numpy as np
import pytest
from helpers import ENCODERS, conversation, tiny_renderer, write_image
from hypothesis import given
from hypothesis import strategies as st

from omnitune.data.audit import histograms
from omnitune.data.audit.histograms import BINS, Spread, histogram, name_of
from omnitune.data.audit.truncation import ReadLimits
from omnitune.encoders.registry import build_encoder
from omnitune.sample import Media

NUMBERS = st.one_of(st.integers(0, 10**9).map(float), st.floats(0, 1e9))


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_every_value_is_counted_once(values: list[float]) -> None:
    found = histogram(values)
    assert sum(found["counts"]) == found["count"] == len(values)
    assert len(found["edges"]) == len(found["counts"]) + 1 <= BINS + 3
    assert found["edges"][0] <= min(values) <= max(values) <= found["edges"][-1] * (1 + 1e-9) + 1e-9
    assert found["least"] <= found["median"] <= found["high"] <= found["most"]


def test_counts_lie_where_the_values_do() -> None:
    found = histogram(np.repeat([1.0, 2.0, 9.0], [5, 3, 1]))
    by_edge = dict(zip(found["edges"], found["counts"], strict=False))
    assert {edge: n for edge, n in by_edge.items() if n} == {1: 5, 2: 3, 9: 1}


def test_samples_are_counted(tmp_path: Path) -> None:
    medium = Media("image", write_image(tmp_path / "a.png"))
    encoders = {"image": build_encoder("image", ENCODERS["image"])}
    spread = Spread(ReadLimits(tiny_renderer(), encoders, 1024))
    spread.add(conversation("a", "what?", "no", media=(medium,)))
    spread.add(conversation("b", "what?", "no", "and?", "yes"))
    spread.add(conversation("c", "what?", "no", media=(Media("image", tmp_path / "none.png"),)))
    found = spread.found()
    assert found["tokens"]["count"] == 3
    assert (found["slots"]["most"], found["slots"]["count"]) == (4, 2)
    assert found["answers"] == {"count": 4, "different": 2, "common": [["no", 3], ["yes", 1]]}


def test_many_answers_take_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histograms, "MOST_ANSWERS", 10)
    spread = Spread(None)
    for n in range(100):
        spread.add(conversation("a", "?", f"rare {n}", "?", "often", "?", "x" * 500))
    assert len(spread.answers) <= 11
    common = spread.found()["answers"]["common"]
    assert common[0][1] == common[1][1] == 100
    assert max(len(text) for text, _ in common) < 100
    assert spread.found()["words"]["count"] == 100


def test_names() -> None:
    assert [name_of(unit) for unit in ("tokens", "seconds", "pixels")] == [
        "tokens a sample",
        "seconds a sound",
        "pixels a picture",
    ]
