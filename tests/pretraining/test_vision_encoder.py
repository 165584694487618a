"""Stage C: it learns from the captions of the training split alone."""

import json
from pathlib import Path

import pytest
import torch
from helpers import tiny_model, tiny_reader, write_image

from omnitune.config import load_config
from omnitune.data.batching import WHOLE, Batch, Part
from omnitune.data.loader import BatchStream
from omnitune.data.mixture import Mixture
from omnitune.data.rounding import round_up
from omnitune.pretraining.vision_encoder import (
    Captioning,
    Spotted,
    VisionEncoderConfig,
    captioned,
    changed,
    spotted_first,
)
from omnitune.sample import UserError


def folder_with(tmp_path: Path, records: list[dict[str, str]]) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.png")
    rows = [{"image": "a.png", "question": "?", "answer": "x", **r} for r in records]
    (folder / "image_qa.json").write_text(json.dumps(rows))
    return tmp_path


def test_splits_stay_apart_and_only_captions_are_learnt(tmp_path: Path) -> None:
    records = [{"split": s, "caption": f"of {s}"} for s in ("train", "validation", "test")]
    train, held_out = captioned(folder_with(tmp_path, records))
    assert [s.messages[-1].text for s in train] == ["of train"]
    assert [s.messages[-1].text for s in held_out] == ["of validation"]
    assert all(len(s.messages) == 2 and s.messages[0].text == "" for s in train)


def test_without_captions_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='"caption"'):
        captioned(folder_with(tmp_path, [{"split": "train"}]))


def test_a_size_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(UserError, match="image_size 100 is not a multiple"):
        load_config(VisionEncoderConfig, None, ["--image-size", "100"])


def test_words_are_spotted_in_any_slot() -> None:
    """Noisy-or, written out: seen unless every slot misses it."""
    model = Captioning(tiny_model(), weight=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features_BSD = torch.randn(3, 4, model.spotting_head.in_features)
        torch.nn.init.normal_(model.spotting_head.weight, std=0.1)
        words_BW = (torch.rand(3, model.spotting_head.out_features) < 0.1).float()
    seen = torch.sigmoid(model.spotting_head(features_BSD).double())
    any_BW = (1 - (1 - seen).prod(1)).detach()
    expected = torch.nn.functional.binary_cross_entropy(any_BW, words_BW.double(), reduction="sum")
    found = model.spotting_loss(features_BSD, words_BW).detach()
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def captioned_stream(tmp_path: Path, model: Captioning) -> BatchStream:
    records = [{"split": s, "caption": "a red circle"} for s in ("train", "train", "validation")]
    train, _ = captioned(folder_with(tmp_path, records))
    mixture = Mixture({"image": len(train)}, {"image": 1.0}, 0)
    return BatchStream(tiny_reader(model.omni), {"image": train}, mixture, batch_size=2)


def test_a_run_begins_with_words_that_are_spotted_and_not_said(tmp_path: Path) -> None:
    model = Captioning(tiny_model(), weight=8.0)
    config = VisionEncoderConfig(stage="vision_encoder", num_epochs=5, spotting_first=0.4)
    batch_at = spotted_first(config, captioned_stream(tmp_path, model))
    assert [type(batch_at(n)) is Spotted for n in range(5)] == [True, True, False, False, False]
    for number in (0, 2):
        model.zero_grad()
        batch = batch_at(number)
        assert batch is not None
        loss_sums, counts = model(round_up(batch))
        assert float(counts.sum()) == batch.num_targets
        loss_sums.sum().backward()
        assert model.spotting_head.weight.grad is not None
        assert (model.omni.thinker.get_input_embeddings().weight.grad is None) == (number == 0)


def test_a_picture_looks_otherwise_in_each_pass_and_alike_on_any_rank(tmp_path: Path) -> None:
    stream = captioned_stream(tmp_path, Captioning(tiny_model(), weight=1.0))
    batches = changed(VisionEncoderConfig(seed=3), stream)

    def pictures(number: int, part: Part = WHOLE) -> list[torch.Tensor]:
        batch = batches(number, part)
        assert isinstance(batch, Batch)
        return batch.media["image"].inputs

    first, again, later = pictures(0), pictures(0), pictures(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a in first for b in later)
    by_rank = [one for rank in range(2) for one in pictures(0, Part(rank, 2))]
    assert all(any(torch.allclose(a, b, atol=1e-6) for b in first) for a in by_rank)
    assert len(by_rank) == len(first)


def test_the_spotting_weight_counts_the_spotted_words(tmp_path: Path) -> None:
    model = Captioning(tiny_model(), weight=8.0).eval()
    stream = captioned_stream(tmp_path, model)
    both = stream(0)
    assert both is not None
    spotted = Spotted(**vars(both))
    with torch.no_grad():
        whole, alone = float(model(both)[0]), float(model(spotted)[0])
        model.weight = 0.0
        assert float(model(both)[0]) == pytest.approx(whole - alone, rel=1e-4)
