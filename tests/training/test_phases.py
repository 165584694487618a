"""Phases: which step is in which, at what rate, on which samples."""

from typing import Any

import numpy as np
import pytest
from helpers import MIX, tiny_model

from omnitune.config.sft import SftConfig
from omnitune.data.schedule import CURRICULUM_STAGES, EASIEST
from omnitune.sample import UserError
from omnitune.training.phases import Phases

EVERYTHING = {"thinker", "proj_v", "proj_a", "vision_encoder", "audio_encoder"}
FROZEN = {"vision_encoder", "audio_encoder"}
SIZES = dict.fromkeys(MIX, 50)


def phases(total: int = 100, **values: Any) -> Phases:
    model = tiny_model()
    return Phases(SftConfig(**values), model.parts(), model.modalities, total)


def test_parts_are_all_the_weights() -> None:
    model = tiny_model()
    assert set(model.parts()) == EVERYTHING
    inside = [p for part in model.parts().values() for p in part.parameters()]
    assert {id(p) for p in inside} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(("name", "hint"), [("proj_b", "; did you mean proj_v?"), ("zzz", "")])
def test_a_part_that_the_model_does_not_have_is_named(name: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        phases(phases=[{"until": 0.5}, {"train": ["thinker", name]}])
    assert str(error.value) == (
        f"phases.1.train: '{name}' is not one of this model's parts, which are "
        f"thinker, proj_v, vision_encoder, proj_a, audio_encoder{hint}"
    )


def test_run_without_phases_is_one_of_everything() -> None:
    plain = phases(warmup_steps=10)
    assert {plain.at(step) for step in range(100)} == {0}
    assert {plain.rate(step) for step in range(100)} == {1.0}
    assert plain.trained(0) == EVERYTHING - FROZEN
    assert plain.raw_from() == {}
    assert phases(freeze_encoders=False).trained(0) == EVERYTHING
    (segment,) = plain.segments(8, SIZES, lambda name: pytest.fail("not needed"))
    assert (segment.first, segment.weights, segment.pools) == (0, MIX, SIZES)


def test_a_weight_that_somebody_else_has_frozen_stays_frozen() -> None:
    """As an adapter's base is: thawing its part must not make it trained."""
    model = tiny_model()
    base = model.thinker.get_input_embeddings().weight
    base.requires_grad_(False)
    config = SftConfig(phases=[{"until": 0.5, "train": ["proj_v"]}, {"train": ["thinker"]}])
    first = Phases(config, model.parts(), model.modalities, 10)
    trained = []
    for made in (first, Phases(config, model.parts(), model.modalities, 10)):  # as a run makes two
        for phase in (0, 1):
            made.set_trainable(phase)
            trained.append({n for n, p in model.named_parameters() if p.requires_grad})
    assert trained[0] == trained[2] == {n for n in trained[0] if n.startswith("proj_v.")}
    rest = {n for n, p in model.named_parameters() if n.startswith("thinker.") and p is not base}
    assert trained[1] == trained[3] == rest


def test_phases_share_out_the_steps() -> None:
    three = phases(200, phases=[{"until": 0.1}, {"until": 0.25}, {}])
    found = [three.at(step) for step in range(200)]
    assert [found.count(n) for n in range(3)] == [20, 30, 150]
    assert found == sorted(found)


def test_rate_is_scaled_and_warmed_up_anew_where_something_changes() -> None:
    made = phases(
        100,
        learning_rate=1e-3,
        warmup_steps=4,
        phases=[
            {"until": 0.2, "train": ["proj_v"]},
            {"until": 0.6, "learning_rate": 5e-4},
            {"until": 0.8, "learning_rate": 5e-4, "max_difficulty": 0.5},
            {"train": ["thinker", "proj_v"]},
        ],
    )
    rates = [made.rate(step) for step in range(100)]
    assert rates[:20] == [1.0] * 20
    assert rates[20:24] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert rates[24:80] == pytest.approx([0.5] * 56)  # other samples need no warm-up
    assert rates[80:83] == pytest.approx([0.5, 1.0, 1.0])  # a tenth of twenty steps
    assert rates[83:] == [1.0] * 17


def test_encoder_is_raw_from_the_first_phase_that_trains_it() -> None:
    late = [
        {"until": 0.2},
        {"until": 0.5, "train": ["audio_encoder", "proj_a"]},
        {"until": 0.7, "train": ["thinker"]},
        {"train": ["vision_encoder", "audio_encoder"]},
    ]
    assert phases(phases=late).raw_from() == {"audio": 1, "image": 3}
    assert phases(phases=[{}], freeze_encoders=False).raw_from() == {"audio": 0, "image": 0}


def test_gradients_go_to_what_is_trained() -> None:
    model = tiny_model()
    config = SftConfig(phases=[{"until": 0.5, "train": ["proj_v"]}, {"train": ["audio_encoder"]}])
    made = Phases(config, model.parts(), model.modalities, 10)

    def open_parts() -> set[str]:
        found = {n: {p.requires_grad for p in m.parameters()} for n, m in model.parts().items()}
        assert all(len(flags) == 1 for flags in found.values())
        return {name for name, flags in found.items() if flags == {True}}

    made.set_trainable()
    assert open_parts() == {"proj_v", "audio_encoder"}
    made.set_trainable(0)
    assert open_parts() == {"proj_v"}


def test_mix_and_limit_begin_with_their_phase() -> None:
    difficulty_N = np.arange(1, 51, dtype=np.float32) / 50
    made = phases(
        100,
        phases=[
            {"until": 0.3, "data_mix": {"image_text": 1}, "max_difficulty": 0.1},
            {"until": 0.5, "max_difficulty": 0.5},
            {},
        ],
    ).segments(8, SIZES, lambda name: difficulty_N)
    assert [s.first for s in made] == [0, 240, 400]
    assert [s.weights for s in made] == [{"image_text": 1}, MIX, MIX]
    assert [set(s.pools.values()) for s in made] == [{5}, {25}, {50}]
    assert set(made[0].pools) == {"image_text"}


def test_limit_that_leaves_nothing_is_explained() -> None:
    hard = phases(phases=[{"until": 0.5}, {"max_difficulty": 0.2}])
    with pytest.raises(UserError, match=r"phases\.1\.max_difficulty is 0\.2.* easiest has 0\.3"):
        hard.segments(8, SIZES, lambda name: np.array([0.3, 0.9], np.float32))


@pytest.mark.parametrize("total", [10, 97, 1000])
def test_curriculum_rises_from_the_easiest_to_everything(total: int) -> None:
    made = phases(total, curriculum=0.4).segments(1, SIZES, lambda name: np.zeros(50))
    shares = [s.pools["text_only"] / 50 for s in made]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert made[-1].first == round(0.4 * total)
    if total > 2 * CURRICULUM_STAGES / 0.4:
        assert shares[0] == EASIEST
        assert len(made) == CURRICULUM_STAGES + 1
        middle = EASIEST + (1 - EASIEST) / 2
        assert shares[CURRICULUM_STAGES // 2] == pytest.approx(middle, abs=1 / 50)


def test_curriculum_and_limit_hold_together() -> None:
    difficulty_N = np.arange(1, 51, dtype=np.float32) / 50
    made = phases(1000, curriculum=1.0, phases=[{"max_difficulty": 0.75}])
    pools = [s.pools["text_only"] for s in made.segments(1, SIZES, lambda name: difficulty_N)]
    assert pools[0] == EASIEST * 50
    assert pools[-1] == max(pools) == 37
