"""A cache of rows that come and go holds what each has read, and is not copied at every step."""

import random
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from omnitune.models.slots import Slots

LAYERS, HEADS, WIDTH = 2, 3, 4


def prompts_of(lengths: list[int]) -> tuple[DynamicCache, list[Tensor]]:
    """A cache of prompts, their ends lined up, and each one's keys ``[layers, K, P, D]``."""
    longest = max(lengths)
    cache = DynamicCache()
    own = [torch.randn(LAYERS, HEADS, length, WIDTH) for length in lengths]
    for layer in range(LAYERS):
        padded = torch.randn(len(lengths), HEADS, longest, WIDTH)
        for row, keys in enumerate(own):
            padded[row, :, longest - keys.shape[2] :] = keys[layer]
        cache.update(padded, -padded, layer)
    return cache, own


def step(slots: Slots) -> list[Tensor]:
    """Writes one position of each row; returns what each row is said to see of the keys."""
    seen_BL, position_B = slots.open_step()
    found = []
    new = torch.randn(LAYERS, slots.window.rows, HEADS, 1, WIDTH)
    for layer in range(LAYERS):
        keys, values = slots.update(new[layer], -new[layer], layer)
        assert torch.equal(keys, -values)
        assert keys.isfinite().all()  # padding too: what is masked is added
        found.append(keys)
    slots.close_step()
    together = torch.stack(found, dim=1)
    rows = [keys if seen_BL is None else keys[:, :, seen_BL[n]] for n, keys in enumerate(together)]
    assert position_B.tolist() == [keys.shape[2] - 1 for keys in rows]
    return rows


def test_rows_come_and_go() -> None:
    """Each sees what it has read and nothing else, whoever was beside it."""
    torch.manual_seed(0)
    for seed in range(20):
        draw, slots = random.Random(seed), Slots()
        expected: list[Tensor] = []
        for _ in range(60):
            if not expected or (len(expected) < 9 and draw.random() < 0.4):
                lengths = [draw.randint(1, 70) for _ in range(draw.randint(1, 3))]
                cache, own = prompts_of(lengths)
                which = [draw.randrange(len(own)) for _ in range(draw.randint(1, 4))]
                slots.join(cache, lengths, which)
                expected += [own[place] for place in which]
            rows = step(slots)
            for keys, before in zip(rows, expected, strict=True):
                assert torch.equal(keys[:, :, :-1], before)
            expected = rows
            if draw.random() < 0.3:
                kept = [n for n in range(len(rows)) if draw.random() < 0.7]
                order = slots.keep(kept)
                assert sorted(order) == kept
                expected = [rows[n] for n in order]


def test_no_step_copies_what_was_read() -> None:
    slots = Slots()
    slots.join(prompts_of([400])[0], [400], [0] * 4)
    places = set()
    for _ in range(400):
        step(slots)
        places.add(slots._own[0].keys.data_ptr())
    assert len(places) < 6


def test_room_follows_what_is_in_use() -> None:
    """Of many rows that have left nothing is kept for long, and little is kept ahead."""
    slots = Slots()
    slots.join(prompts_of([100])[0], [100], [0] * 40)
    step(slots)
    slots.keep([7])
    for _ in range(500):
        step(slots)
    assert slots._own[0].keys[:, 0, :, 0].numel() < 601 * 1.25 + 40


def test_what_an_answer_spoils_is_its_own() -> None:
    slots = Slots()
    cache, _ = prompts_of([30])
    spoilt: Any = cache.layers[0]
    spoilt.keys[:] = torch.nan
    good, own = prompts_of([3])
    slots.join(good, [3], [0])
    slots.join(cache, [30], [0])
    slots.keep([0])
    slots.join(good, [3], [0])
    for row in step(slots):
        assert torch.equal(row[:, :, :-1], own[0])
