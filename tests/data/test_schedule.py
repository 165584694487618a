"""The order of samples where the mix and the pools change: still a function of k."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from omnitune.data.mixture import Mixture
from omnitune.data.schedule import GRAIN, SamplingSchedule, Segment, adapted

SIZES = {"text_only": 40, "image_text": 30, "audio_text": 25}
MIX = {"text_only": 0.4, "image_text": 0.3, "audio_text": 0.3}
CHANGES = [100, 230, 400]


def ranked(name: str) -> np.ndarray:
    return np.random.default_rng(len(name)).permutation(SIZES[name])


def course(*stretches: Segment, decisions: Any = ()) -> SamplingSchedule:
    found = stretches or (Segment(0, MIX, SIZES),)
    return SamplingSchedule(SIZES, found, 3, ranked, decisions=lambda: decisions)


def random_decisions(seed: int) -> list[Any]:
    rng = random.Random(seed)
    return [[k, {name: rng.uniform(0.5, 2) for name in MIX}] for k in CHANGES]


def test_one_stretch_is_the_mixture() -> None:
    plain = Mixture(SIZES, MIX, 3)
    one = course()
    assert [one.sample_at(k) for k in range(500)] == [plain.sample_at(k) for k in range(500)]
    assert (one.names, one.epoch_size) == (plain.names, plain.epoch_size)
    assert one.bounds(7) == plain.bounds(7)


@pytest.mark.parametrize("seed", range(10))
def test_every_prefix_of_a_stretch_holds_its_shares_to_within_one(seed: int) -> None:
    made = course(decisions=random_decisions(seed))
    for first, end in zip([0, *CHANGES], [*CHANGES, 900], strict=True):
        assert made.bounds(first)[0] == first
        shares, counts = made.shares_at(first), Counter[str]()
        for n, k in enumerate(range(first, end), 1):
            counts[made.sample_at(k)[0]] += 1
            assert all(abs(counts[name] - n * shares[name]) < 1 + 1e-9 for name in MIX)


@pytest.mark.parametrize("seed", range(5))
def test_passes_go_on_where_only_the_mix_changes(seed: int) -> None:
    made = course(decisions=random_decisions(seed))
    drawn: dict[str, list[int]] = {name: [] for name in MIX}
    for k in range(900):
        name, index = made.sample_at(k)
        drawn[name].append(index)
    for name, indices in drawn.items():
        size = SIZES[name]
        for n in range(0, len(indices) - size + 1, size):
            assert sorted(indices[n : n + size]) == list(range(size))


def test_what_is_decided_later_leaves_earlier_samples_alone() -> None:
    decisions = random_decisions(0)
    known: list[Any] = []
    growing = course(decisions=known)
    seen = {}
    for first, end in zip([0, *CHANGES], [*CHANGES, 600], strict=True):
        seen |= {k: growing.sample_at(k) for k in range(first, end)}
        known += decisions[len(known) : len(known) + 1]
    whole = course(decisions=decisions)
    order = random.Random(0).sample(range(600), 600)
    assert {k: whole.sample_at(k) for k in order} == seen


def test_pool_holds_the_easiest_and_each_once_a_pass() -> None:
    pools = {"text_only": 10, "image_text": 30, "audio_text": 5}
    made = course(Segment(0, MIX, pools), Segment(200, MIX, SIZES))
    drawn: dict[str, list[int]] = {name: [] for name in MIX}
    for k in range(200):
        name, index = made.sample_at(k)
        drawn[name].append(index)
    for name, pool in pools.items():
        easiest = sorted(ranked(name)[:pool]) if pool < SIZES[name] else list(range(SIZES[name]))
        assert sorted(drawn[name][:pool]) == easiest
        assert sorted(drawn[name][pool : 2 * pool]) == easiest
    later = {made.sample_at(k) for k in range(200, 600)}
    assert len(later) == sum(SIZES.values())


def test_source_that_joins_later() -> None:
    first = {"text_only": 1.0, "image_text": 1.0}
    made = course(Segment(0, first, SIZES), Segment(60, MIX, SIZES))
    assert {made.sample_at(k)[0] for k in range(60)} == set(first)
    assert {made.sample_at(k)[0] for k in range(60, 70)} == set(MIX)
    assert made.asked_at(59) == {"text_only": 0.5, "image_text": 0.5}
    assert made.asked_at(60) == pytest.approx(MIX)


def test_adapted_weights_are_whole_and_none_is_lost() -> None:
    found = adapted({"text_only": 0.9999, "image_text": 0.0001}, {"text_only": 2.0})
    assert found == {"text_only": GRAIN, "image_text": 1}
    halved = adapted(MIX, {"text_only": 0.5})
    assert halved == {"text_only": 250, "image_text": 375, "audio_text": 375}
