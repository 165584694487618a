"""Spotting, against all the ways in which slots can show words, written out."""

from itertools import product

import pytest
import torch
from torch import Tensor

from omnitune.tiny.word_presence import slots_that_show, word_presence_loss


def likelihood(chances: Tensor, low: int, high: int) -> float:
    """That from ``low`` to ``high`` of independent slots show a word."""
    total = 0.0
    for shown in product((0, 1), repeat=len(chances)):
        if low <= sum(shown) <= high:
            ways = [p if s else 1 - p for s, p in zip(shown, chances.tolist(), strict=True)]
            total += float(torch.tensor(ways, dtype=torch.float64).prod())
    return total


def test_numbers_of_slots_are_as_counted_out() -> None:
    torch.manual_seed(0)
    logits_MS = torch.randn(3, 5)
    found = slots_that_show(logits_MS, 5).exp()
    for row, chances in zip(found, logits_MS.sigmoid(), strict=True):
        for number, share in enumerate(row):
            assert float(share) == pytest.approx(likelihood(chances, number, number), rel=1e-4)
    torch.testing.assert_close(slots_that_show(logits_MS, 2).exp(), found[:, :3])


def test_a_word_is_seen_once_to_twice_as_often_as_it_is_written() -> None:
    torch.manual_seed(1)
    logits_BSW = torch.randn(2, 5, 4)
    counts_BW = torch.tensor([[0.0, 1, 2, 0], [3, 0, 0, 1]])  # 3: in more than there are slots
    expected = 0.0
    for picture, word in product(range(2), range(4)):
        count = int(counts_BW[picture, word])
        chances = logits_BSW[picture, :, word].sigmoid()
        expected -= torch.tensor(likelihood(chances, min(count, 1), 2 * count)).log()
    assert float(word_presence_loss(logits_BSW, counts_BW)) == pytest.approx(
        float(expected), rel=1e-4
    )


def test_what_neighbours_say_too_costs() -> None:
    def loss(slots: int) -> float:
        logits_BSW = torch.full((1, 6, 1), -8.0)
        logits_BSW[:, :slots] = 8.0
        return float(word_presence_loss(logits_BSW, torch.ones(1, 1)))

    assert loss(1) == pytest.approx(loss(2), abs=0.01)
    assert loss(0) > 1
    assert loss(2) + 1 < loss(3) < loss(6)


@pytest.mark.parametrize("sure", [-50.0, 0.0, 50.0])
def test_gradients_stay_finite(sure: float) -> None:
    logits_BSW = torch.full((1, 9, 2), sure, requires_grad=True)
    word_presence_loss(logits_BSW, torch.tensor([[0.0, 2]])).backward()
    assert logits_BSW.grad is not None
    assert logits_BSW.grad.isfinite().all()
    assert logits_BSW.grad[:, :, 0].min() >= 0  # a word that is not there


def test_captions_without_words_have_a_loss_too() -> None:
    assert float(word_presence_loss(torch.zeros(1, 2, 3), torch.zeros(1, 3))) == pytest.approx(
        6 * 0.6931, rel=1e-3
    )
