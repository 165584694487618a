"""Bootstrap intervals: over records, of sums over sums, the same from the same seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import conversation

from omnitune.evaluation import bootstrap as module
from omnitune.evaluation.bootstrap import RESAMPLES, Ratio, Records
from omnitune.sample import Media


def hits(count: int, share: float = 0.7, seed: int = 0) -> Ratio:
    """Right and wrong answers, each of a record of its own."""
    right = np.random.default_rng(seed).random(count) < share
    return Ratio(right.astype(float), np.ones(count), np.arange(count))


def width(ratio: Ratio) -> float:
    low, high = ratio.interval() or [0.0, 0.0]
    return high - low


def test_covers_the_truth_as_often_as_it_says() -> None:
    found = [hits(100, seed=seed).interval() for seed in range(200)]
    covered = [low <= 0.7 <= high for low, high in filter(None, found)]
    assert 0.9 <= sum(covered) / 200 <= 0.985


def test_same_seed_same_interval() -> None:
    ratio = hits(60)
    assert ratio.interval(3) == ratio.interval(3)
    assert ratio.interval(3) != ratio.interval(4)


def test_more_records_are_surer() -> None:
    assert width(hits(50)) > 1.5 * width(hits(500)) > 0


def test_questions_of_one_record_are_drawn_together() -> None:
    """Asking each question ten times more tells nothing new."""
    ratio = hits(40)
    tenfold = Ratio(*(np.repeat(x, 10) for x in (ratio.above_N, ratio.below_N, ratio.record_N)))
    assert tenfold.interval() == pytest.approx(ratio.interval())
    apart = replace(tenfold, record_N=np.arange(400))
    assert width(apart) < 0.5 * width(ratio)


def test_each_resample_is_a_sum_over_a_sum() -> None:
    """Word errors: a short wrong sentence beside a long right one is not half of a rate."""
    edits, words = np.array([1.0, 0, 2]), np.array([1.0, 99, 10])
    rng = np.random.default_rng(0)
    drawn = rng.integers(3, size=(RESAMPLES, 3))
    rates = [edits[some].sum() / words[some].sum() for some in drawn]
    expected = np.quantile(rates, [0.025, 0.975]).tolist()
    ratio = Ratio(edits, words, np.arange(3))
    assert ratio.value == pytest.approx(3 / 110)
    assert ratio.interval(0) == pytest.approx(expected)


@pytest.mark.parametrize("at_once", [1, 500, 10**6])
def test_pieces_do_not_change_it(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    expected = hits(70).interval()
    monkeypatch.setattr(module, "DRAWN", at_once)
    assert hits(70).interval() == expected


def test_paired_difference_is_surer_than_its_parts() -> None:
    one = hits(80)
    other = replace(one, above_N=np.maximum(one.above_N - 0.25, 0))
    assert one.minus(one).interval() == [0, 0]
    assert width(one.minus(other)) < 0.5 * width(one)
    assert one.minus(other).value == pytest.approx(one.value - other.value)


def test_what_shows_no_spread_has_no_interval() -> None:
    assert replace(hits(9), record_N=np.zeros(9)).interval() is None
    nothing = Ratio(np.array([1.0, 0]), np.zeros(2), np.arange(2))
    assert (nothing.value, nothing.interval()) == (1.0, None)
    assert Ratio(np.zeros(0), np.zeros(0), np.zeros(0, int)).interval() is None


def test_some_of_the_entries() -> None:
    ratio = Ratio(np.array([1.0, 0, 1]), np.array([1.0, 1, 2]), np.arange(3))
    assert (ratio.value, ratio.of([1, 2]).value) == (0.5, pytest.approx(1 / 3))


def test_records_are_told_apart_by_medium_or_name() -> None:
    number = Records()
    seen = Media("image", Path("a.png"))
    album = conversation("a", "q?", "b", "r?", "c", media=(seen,), independent_turns=True)
    again = conversation("other", "q?", "b", media=(seen,))
    texts = conversation("t", "q?", "b", "r?", "c", independent_turns=True)
    assert len({number(single) for single in (*album.split_turns(), again)}) == 1
    assert len({number(single) for single in texts.split_turns()}) == 1
    assert number(texts) == number(texts.split_turns()[0])
    assert len({number(s) for s in (album, texts, conversation("t#1", "q?", "b"))}) == 3
