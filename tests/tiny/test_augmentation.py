"""Clips and pictures changed by chance: by how much, and when not at all."""

import random

import pytest
import torch

from omnitune.tiny.augmentation import ClipChange, PictureChange, hurried, warped


class Greatest(random.Random):
    """Draws the upper limit, always."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_a_warp_moves_what_is_heard_up_or_down_and_no_further() -> None:
    mel = torch.zeros(3, 16)
    mel[:, 8] = 1.0
    for seed in range(10):
        moved = warped(mel, 0.25, random.Random(seed))
        assert moved.shape == mel.shape
        assert 6 <= int(moved[0].argmax()) <= 11
        assert torch.equal(moved[0], moved[2])
    torch.testing.assert_close(warped(mel, 0.0, random.Random(0)), mel)


def test_a_clip_is_said_faster_or_slower_by_no_more_than_the_share() -> None:
    """Its first and last frame stay its ends, and what is between is where it was, in shares."""
    mel = torch.linspace(0, 1, 40)[:, None].expand(40, 4)
    counts = set()
    for seed in range(20):
        said = hurried(mel, 0.25, random.Random(seed))
        counts.add(len(said))
        torch.testing.assert_close(said[:, 2], torch.linspace(0, 1, len(said)))
    assert min(counts) < 36 < 44 < max(counts)
    assert 30 <= min(counts) <= max(counts) <= 50


def test_without_limits_a_clip_is_left_as_it_is() -> None:
    mel = torch.rand(20, 8)
    assert torch.equal(ClipChange()(mel, random.Random(0)), mel)


def test_without_limits_a_picture_is_left_as_it_is() -> None:
    pixels = torch.rand(2, 3, 96, 96) * 2 - 1
    draws = [random.Random(n) for n in range(2)]
    assert torch.allclose(PictureChange()(pixels, draws), pixels, atol=1e-5)


def test_what_is_drawn_moves_the_picture() -> None:
    """A spot moves by the share of a side; a quarter turn takes it to another corner."""
    pixels = torch.full((1, 3, 96, 96), -1.0)
    pixels[:, :, 8:16, 8:16] = 1.0

    def spot(**limits: float) -> tuple[float, float]:
        lit = (PictureChange(**limits)(pixels, [Greatest()])[0, 0] > 0).nonzero().float()
        row, col = lit.mean(0).tolist()
        return row, col

    assert spot() == pytest.approx((11.5, 11.5), abs=0.1)
    assert spot(translate=0.05) == pytest.approx((11.5 - 4.8, 11.5 - 4.8), abs=0.5)
    assert spot(degrees=90.0) == pytest.approx((95 - 11.5, 11.5), abs=0.5)
