"""What people are shown of a sound."""

import numpy as np
import pytest

from omnitune.media.audio import SAMPLE_RATE as RATE
from omnitune.media.audio import spectrogram


@pytest.mark.parametrize("pitch", [500, 2000, 6000])
def test_spectrogram_shows_the_pitch(pitch: int) -> None:
    wave = np.sin(2 * np.pi * pitch * np.arange(RATE) / RATE).astype(np.float32)
    rows = np.asarray(spectrogram(wave).convert("L"), dtype=float).mean(axis=1)
    expected = (1 - pitch / (RATE / 2)) * len(rows)
    assert abs(int(rows.argmax()) - expected) <= 2


def test_spectrogram_runs_from_left_to_right() -> None:
    wave = np.concatenate([np.zeros(RATE), np.random.default_rng(0).normal(size=RATE)])
    light = np.asarray(spectrogram(wave).convert("L"), dtype=float).mean(axis=0)
    middle = len(light) // 2
    assert light[: middle - 3].max() < light[middle + 3 :].min()
    assert spectrogram(np.zeros(RATE)).height == spectrogram(wave).height
