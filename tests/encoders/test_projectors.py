"""Projectors by type: their settings, what they refuse, and that media never mix in them."""

import math
from typing import Any

import pytest
import torch
from helpers import ENCODERS
from torch import Tensor

from omnitune.encoders.projectors import PROJECTORS, FeatureRows, Projector, resolve
from omnitune.encoders.registry import build_encoder, configure
from omnitune.sample import UserError

DIM = WIDTH = 16
FIXED = 4


def fresh(name: str, **settings: Any) -> Projector:
    torch.manual_seed(0)
    rows = FeatureRows("image", DIM, FIXED)
    return PROJECTORS[name](rows, WIDTH, resolve("image", {"type": name, **settings}))


def words(scale: float = 0.05) -> Tensor:
    return torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1)) * scale


@pytest.mark.parametrize("name", PROJECTORS)
def test_slots_are_as_announced_and_each_medium_is_read_by_itself(name: str) -> None:
    projector = fresh(name)
    rows_M = [FIXED, FIXED, FIXED] if name == "grid_mlp" else [3, 1, 7]
    settings = resolve("image", {"type": name})
    media = [torch.randn(count, DIM) for count in rows_M]
    together = projector(torch.cat(media), rows_M)
    slots_M = [projector.slots_for(count, settings) for count in rows_M]
    assert len(together) == sum(slots_M)
    for found, medium in zip(together.split(slots_M), media, strict=True):
        torch.testing.assert_close(found, projector(medium), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_fresh_projector_is_as_loud_as_words_or_silent(name: str) -> None:
    projector = fresh(name)
    features = torch.randn(64, DIM)
    projector.match_scale(words())
    if name != "identity":
        assert 0.7 < float(projector(features).detach().std() / words().std()) < 1.4
    projector.zero_init_()
    silent = features if name == "identity" else torch.zeros(1)
    assert torch.equal(projector(features), silent.expand_as(projector(features)))


def test_a_resampler_gives_as_many_slots_as_queries_and_drops_padding() -> None:
    projector = fresh("resampler", queries=5, heads=2, layers=2)
    features, padded = torch.randn(6, DIM), torch.full((3, DIM), 7.0)
    expected = projector(features, [2, 4])
    assert expected.shape == (10, WIDTH)
    assert torch.equal(projector(torch.cat([features, padded]), [2, 4]), expected)


def test_a_spoilt_medium_spoils_no_other() -> None:
    projector = fresh("resampler", queries=2)
    broken = projector(torch.cat([torch.randn(6, DIM), torch.full((2, DIM), math.nan)]), [6, 2])
    assert broken[:2].isfinite().all()
    assert broken[2:].isnan().all()


def test_a_resampler_hears_every_row() -> None:
    projector = fresh("resampler", queries=2)
    features = torch.randn(9, DIM, requires_grad=True)
    projector(features).square().sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum(dim=1).gt(0).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"type": "linaer"}, r"projectors\.image\.type: .*'linaer'; known: mlp, .* mean linear\?"),
        ({"type": ["mlp"]}, r"projectors\.image\.type: no projector is of the type \['mlp'\]"),
        ({"type": "resampler", "querys": 3}, r"projectors\.image\.querys: .* mean queries\?"),
        ({"type": "linear", "factor": 2}, r"image\.factor: .*'linear' .*; known: none"),
        ({"type": "resampler", "queries": 0}, r"projectors\.image\.queries is 0, not a whole"),
        ({"type": "resampler", "layers": True}, r"projectors\.image\.layers is True, not a whole"),
        ({"type": "resampler", "queries": None}, r"projectors\.image\.queries is None"),
        ({"type": "pixel_shuffle_mlp", "factor": 1.5}, r"image\.factor is 1\.5, not a whole"),
        ({"type": "pixel_shuffle_mlp", "factor": 3}, "4 patches a side do not divide"),
        (
            {"type": "stack_mlp"},
            r"projectors\.image\.type .* no rows to stack \(no setting stack\)",
        ),
        ({"type": "resampler", "heads": 3}, r"projectors\.image\.heads is 3, which does not divi"),
        ({"type": "identity"}, r"projectors\.image\.type .* rows are 64 wide .* embeddings 32"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_encoder("image", ENCODERS["image"], settings).build_projector(32)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pixel_shuffle_mlp", "the audio encoder 'fastconformer' has no grid to shuffle"),
        ("grid_mlp", "the audio encoder gives a number of rows that varies; take mlp"),
    ],
)
def test_what_a_sound_has_no_grid_for_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"projectors\.audio\.type is '{name}'.*{said}"):
        build_encoder("audio", ENCODERS["audio"], {"type": name}).build_projector(32)


def test_pixel_shuffle_is_the_encoders_own_setting() -> None:
    def shuffled(settings: dict[str, Any], **projector: Any) -> tuple[int, int]:
        given = {"type": "pixel_shuffle_mlp", **projector}
        config, resolved = configure("image", ENCODERS["image"], settings, given)
        return config["pixel_shuffle"], resolved["factor"]

    assert shuffled({}) == (2, 2)  # as the checkpoint has it
    assert shuffled({}, factor=4) == (4, 4)
    assert shuffled({"pixel_shuffle": 4}) == (4, 4)
    assert shuffled({"pixel_shuffle": 1}, factor=1) == (1, 1)
    with pytest.raises(UserError, match=r"image\.factor is 4, and encoder_settings\.image\.pixel_"):
        shuffled({"pixel_shuffle": 1}, factor=4)
    encoder = build_encoder("image", ENCODERS["image"], {"type": "pixel_shuffle_mlp", "factor": 4})
    assert (encoder.fixed_rows, encoder.feature_dim) == (1, 256)


def test_an_encoder_that_names_words_keeps_its_rows() -> None:
    config = ENCODERS["image"] | {"words": 5}
    with pytest.raises(UserError, match=r"names words in rows of 64 .* .* have 256"):
        configure("image", config, {}, {"type": "pixel_shuffle_mlp", "factor": 4})
    assert configure("image", config, {}, {"type": "pixel_shuffle_mlp"})[0] == config


def test_an_encoder_chooses_where_the_run_names_no_projector() -> None:
    assert build_encoder("image", ENCODERS["image"]).projector == {"type": "grid_mlp"}
    audio = build_encoder("audio", ENCODERS["audio"])
    assert audio.projector == {"type": "mlp"}
    assert (audio.keeps_rows, audio.slots_for(7)) == (True, 7)
    audio.projector = {"type": "resampler", "queries": 3}
    assert audio.projector == {"type": "resampler", "queries": 3, "heads": None, "layers": 1}
    assert (audio.keeps_rows, audio.slots_for(7)) == (False, 3)
