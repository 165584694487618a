"""The order of samples: proportions, permutations, and nothing remembered."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from omnitune.data.mixture import MAX_PERIOD, Mixture, permuted

NAMES = ("text_only", "image_text", "audio_text", "image_audio_text")
TINY = {"text_only": 0.4, "image_text": 0.3, "audio_text": 0.3}


def random_mixture(rng: random.Random) -> tuple[Mixture, dict[str, float]]:
    """Two to four sources with weights of two decimals; their shares are kept exactly."""
    names = rng.sample(NAMES, rng.randint(2, 4))
    weights = {name: rng.randint(1, 60) / 100 for name in names}
    sizes = {name: rng.randint(1, 40) for name in names}
    return Mixture(sizes, weights, rng.randint(0, 9)), weights


def worst_deviation(mixture: Mixture, weights: dict[str, float], length: int) -> float:
    """Largest distance of any source's count from its share, over all prefixes."""
    total, counts, worst = sum(weights.values()), dict.fromkeys(weights, 0), 0.0
    for k in range(length):
        counts[mixture.sample_at(k)[0]] += 1
        for name, weight in weights.items():
            worst = max(worst, abs(counts[name] - (k + 1) * weight / total))
    return worst


@pytest.mark.parametrize("seed", range(20))
def test_every_prefix_holds_the_mix_to_within_one_sample(seed: int) -> None:
    mixture, weights = random_mixture(random.Random(seed))
    assert worst_deviation(mixture, weights, 1000) < 1 + 1e-9


def test_default_mix_exactly() -> None:
    mixture = Mixture(dict.fromkeys(TINY, 1000), TINY, 0)
    assert worst_deviation(mixture, TINY, 2000) < 1 + 1e-9
    counts = Counter(mixture.sample_at(k)[0] for k in range(1000))
    assert counts == {"text_only": 400, "image_text": 300, "audio_text": 300}
    for first in range(200):  # any window, to within two
        window = Counter(mixture.sample_at(k)[0] for k in range(first, first + 10))
        assert abs(window["text_only"] - 4) < 2


def test_shares_too_fine_for_one_period_stay_within_one_over_a_period() -> None:
    weights = {"text_only": 0.377193, "image_text": 0.271829, "audio_text": 0.141593}
    mixture = Mixture(dict.fromkeys(weights, 10), weights, 0)
    # Rounding a share to 1 / MAX_PERIOD moves a count by at most one more each period.
    assert worst_deviation(mixture, weights, MAX_PERIOD) < 2


@pytest.mark.parametrize("factor", [1e-8, 1e-3, 7.0, 1e6])
def test_weights_need_not_sum_to_one(factor: float) -> None:
    sizes = dict.fromkeys(TINY, 50)
    scaled = Mixture(sizes, {name: weight * factor for name, weight in TINY.items()}, 0)
    plain = Mixture(sizes, TINY, 0)
    assert [scaled.sample_at(k) for k in range(200)] == [plain.sample_at(k) for k in range(200)]


def test_pure_function_of_seed_and_number() -> None:
    mixture, weights = random_mixture(random.Random(1))
    forward = {k: mixture.sample_at(k) for k in range(300)}
    other = Mixture(mixture.sizes, weights, mixture.seed)
    order = list(range(300)) * 2
    random.Random(2).shuffle(order)
    for k in order:
        assert other.sample_at(k) == forward[k]


@pytest.mark.parametrize("seed", range(5))
def test_each_pass_shows_every_record_once_in_another_order(seed: int) -> None:
    mixture, _ = random_mixture(random.Random(100 + seed))
    drawn: dict[str, list[int]] = {name: [] for name in mixture.names}
    for k in range(4000):
        name, index = mixture.sample_at(k)
        drawn[name].append(index)
    for name, indices in drawn.items():
        size = mixture.sizes[name]
        passes = [indices[n : n + size] for n in range(0, len(indices) - size + 1, size)]
        assert len(passes) >= 2
        assert all(sorted(one) == list(range(size)) for one in passes)
        if size >= 8:
            assert all(one != following for one, following in pairwise(passes))


def test_seeds_and_sources_have_their_own_orders() -> None:
    sizes = {"text_only": 30, "image_text": 30}
    weights = {"text_only": 1.0, "image_text": 1.0}
    orders = set()
    for seed in range(4):
        mixture = Mixture(sizes, weights, seed)
        drawn = [mixture.sample_at(k) for k in range(60)]
        orders |= {tuple(i for name, i in drawn if name == source) for source in sizes}
    assert len(orders) == 8


def test_source_without_weight_is_left_out() -> None:
    sizes = {"text_only": 3, "image_text": 5, "audio_text": 7}
    mixture = Mixture(sizes, {"text_only": 1.0, "image_text": 0.0, "audio_text": 3.0}, 0)
    assert mixture.epoch_size == 10
    assert Counter(mixture.sample_at(k)[0] for k in range(40)) == {
        "text_only": 10,
        "audio_text": 30,
    }


def test_epoch_size_is_the_number_of_records() -> None:
    assert Mixture({"text_only": 12}, {"text_only": 0.5}, 0).epoch_size == 12
    assert Mixture(dict.fromkeys(TINY, 11), TINY, 0).epoch_size == 33


@pytest.mark.parametrize("key", ["0/text_only/0", "1/text_only/0"])
def test_permutation_of_every_small_size(key: str) -> None:
    for size in range(1, 201):
        assert sorted(permuted(n, size, key) for n in range(size)) == list(range(size))


def test_permutation_of_a_large_size() -> None:
    size = 3_000_017
    places = random.Random(0).sample(range(size), 20_000)
    images = [permuted(n, size, "large") for n in places]
    assert len(set(images)) == len(images)
    assert min(images) >= 0
    assert max(images) < size
    # Spread: neighbours land far apart, and every tenth gets its share.
    tenths = Counter(image * 10 // size for image in images)
    assert all(1800 < tenths[n] < 2200 for n in range(10))
    near = [abs(permuted(n, size, "large") - permuted(n + 1, size, "large")) for n in range(2000)]
    assert sum(d < 1000 for d in near) < 20


def test_permutations_are_hardly_alike() -> None:
    """Two keys agree in about one place; the identity is no better guess."""
    size = 500
    one = [permuted(n, size, "one") for n in range(size)]
    two = [permuted(n, size, "two") for n in range(size)]
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 10
    assert sum(n == image for n, image in enumerate(one)) < 10
