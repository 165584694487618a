"""The adaptive mix: who lags gets more, within bounds, from scores alone."""

from typing import Any

import pytest

from omnitune.training.adaptive_mix import BOUNDS, SMOOTHING, AdaptiveMix, distance

TASKS = {"text_only": ["text"], "image_text": ["image_qa"], "audio_text": ["transcription"]}


def scores(*losses: float, **more: Any) -> dict[str, Any]:
    """Held-out losses of text, pictures and speech, all of ten tokens."""
    by_task = zip(("text", "image_qa", "transcription"), losses, strict=True)
    return {"tasks": {t: {"loss": x, "tokens": 10, **more.get(t, {})} for t, x in by_task}}


def test_first_losses_leave_the_mix_as_asked() -> None:
    found = AdaptiveMix("loss", TASKS, {}).factors(scores(0.1, 2.0, 5.0))
    assert found == dict.fromkeys(TASKS, 1.0)


def test_weight_goes_to_the_source_whose_loss_falls_least() -> None:
    adaptive_mix = AdaptiveMix("loss", TASKS, {})
    adaptive_mix.factors(scores(4.0, 2.0, 1.0))
    for _ in range(30):
        found = adaptive_mix.factors(scores(0.4, 1.0, 1.0))  # to a tenth, to a half, not at all
    assert found["text_only"] == BOUNDS[0]
    assert found["image_text"] == pytest.approx(0.5 / (1.6 / 3), abs=1e-3)
    assert found["audio_text"] == pytest.approx(1.0 / (1.6 / 3), abs=1e-3)


@pytest.mark.parametrize("by", ["loss", "score"])
def test_factors_stay_within_bounds(by: str) -> None:
    right = {"text": {"token_acc": 1.0}, "image_qa": {"exact_match": 0.0}}
    more = {**right, "transcription": {"wer": 0.0}}
    adaptive_mix = AdaptiveMix(by, TASKS, {})
    adaptive_mix.factors(scores(1, 1, 1, **more))
    for _ in range(30):
        found = adaptive_mix.factors(scores(0.0001, 1.0, 0.0001, **more))
    assert found == {"text_only": 0.5, "image_text": 2.0, "audio_text": 0.5}


def test_single_moment_moves_the_mix_by_a_share_only() -> None:
    adaptive_mix = AdaptiveMix("loss", TASKS, {})
    adaptive_mix.factors(scores(1, 1, 1))
    found = adaptive_mix.factors(scores(1, 1, 0))
    lags = [1, 1, 1 - SMOOTHING]
    expected = [lag * 3 / sum(lags) for lag in lags]
    assert list(found.values()) == pytest.approx(expected, abs=1e-3)


def test_source_without_scores_keeps_its_lag_and_one_without_any_its_weight() -> None:
    adaptive_mix = AdaptiveMix("loss", TASKS | {"image_audio_text": ["image_audio_qa"]}, {})
    adaptive_mix.factors(scores(1, 1, 1))
    before = adaptive_mix.factors(scores(1, 0.2, 1))
    only_text = {"tasks": {"text": {"loss": 1.0, "tokens": 10}}}
    assert adaptive_mix.factors(only_text) == before
    assert "image_audio_text" not in before


def test_everything_perfect_needs_no_balance() -> None:
    task = {"loss": 0.0, "tokens": 5, "token_acc": 1.0}
    assert AdaptiveMix("score", {"text_only": ["text"]}, {}).factors({"tasks": {"text": task}}) == {
        "text_only": 1.0
    }


def test_state_is_all_that_it_remembers() -> None:
    state: dict[str, Any] = {}
    one = AdaptiveMix("loss", TASKS, state)
    moments = [scores(1, 2, 3), scores(0.5, 1, 3), scores(0.4, 0.3, 2), scores(0.4, 0.2, 1)]
    straight = [one.factors(moment) for moment in moments]
    resumed: dict[str, Any] = {}
    found = [AdaptiveMix("loss", TASKS, resumed).factors(moment) for moment in moments]
    assert found == straight
    assert resumed == state


def test_distance_to_perfect_is_of_the_tasks_own_score() -> None:
    assert distance({"token_acc": 0.75, "loss": 1}) == 0.25
    assert distance({"token_acc": 0.75, "exact_match": 0.5}) == 0.5
    assert distance({"token_acc": 0.75, "wer": 0.1}) == 0.1
    assert distance({"token_acc": 0.75, "wer": 3.0}) == 1.0
