"""Rows of few lengths: what is added changes no loss, no count and no gradient."""

import random

import pytest
import torch
from helpers import conversation, tiny_model, tiny_reader

from omnitune.data.packing import Batch, Item, pack, share_prefix
from omnitune.data.rounding import SIZES, STEP, bucket, round_up
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample


def result(model: OmniModel, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    model.zero_grad()
    sums_G, counts_G = model(batch)
    (sums_G.sum() / counts_G.sum()).backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [sums_G.detach(), counts_G], gradients


def draw(samples: list[Sample], seed: int, model: OmniModel, encoded: bool) -> list[Item]:
    """Some samples in some order; now and then questions that share a prefix."""
    reader = tiny_reader(model)
    choice = random.Random(seed)
    items = [reader.item(s, group=n % 3) for n, s in enumerate(choice.choices(samples, k=4))]
    turns = ("which color?", "red.", "which color is it?", "blue.")
    album = conversation("a", *turns, media=samples[4].media, independent_turns=True)
    shared = [reader.item(single, group=1) for single in album.split_turns()]
    share_prefix(shared)
    items += shared
    for item in items if encoded else ():
        names = [slot.media.modality for slot in item.rendered.slots]
        with torch.no_grad():
            item.media = [model.encode(n, [x])[0] for n, x in zip(names, item.media, strict=True)]
        item.raw = frozenset()
    return items


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("views", [True, False])
def test_rounded_equals_unrounded(
    samples: list[Sample], seed: int, encoded: bool, views: bool
) -> None:
    model = tiny_model().train()
    model.freeze_encoders()
    batch = pack(draw(samples, seed, model, encoded), 3)
    rounded = round_up(batch, views)
    assert len(rounded.tokens_T) > len(batch.tokens_T)
    assert rounded.num_targets == batch.num_targets
    for found, expected in zip(result(model, rounded), result(model, batch), strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_sizes_are_few(samples: list[Sample], model: OmniModel) -> None:
    for seed in range(4):
        batch = round_up(pack(draw(samples, seed, model, True), 3))
        rows = [r.features_RD for r in batch.media.values() if r.features_RD is not None]
        sizes = [len(batch.tokens_T), len(batch.labels_N), *map(len, rows)]
        sizes += [gather.shape[1] for gather in batch.segments.gathers]
        assert rows
        assert all(bucket(size) == size for size in sizes)


def test_views_of_attention_stay_as_they_are_where_nothing_is_compiled(
    samples: list[Sample], model: OmniModel
) -> None:
    for seed in range(4):
        batch = pack(draw(samples, seed, model, True), 3)
        rounded = round_up(batch, views=False)
        views = rounded.segments.gathers
        assert [v.shape for v in views] == [*(v.shape for v in batch.segments.gathers), (1, 1)]
        places = rounded.segments.scatter_T
        assert len(places) == len(rounded.tokens_T)
        (last,) = set(places[len(batch.tokens_T) :].tolist())
        assert last == sum(v.numel() for v in views) - 1


def test_buckets() -> None:
    sizes = [bucket(n) for n in range(1, 5000)]
    assert all(n <= size <= max(n + STEP, n * (1 + 1 / SIZES)) for n, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) < 140
    assert all(bucket(size) == size for size in sizes)


def test_nothing_to_learn_stays_so(model: OmniModel) -> None:
    prompt = tiny_reader(model).prompt("x", conversation("x", "hello", "").messages[:1])
    batch = round_up(pack([prompt]))
    assert len(batch.labels_N) == 0
    assert model(batch)[1].sum() == 0
