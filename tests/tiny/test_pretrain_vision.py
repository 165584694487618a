"""Stage C: it learns from the captions of the training split alone."""

import json
from pathlib import Path

import pytest
import torch
from helpers import tiny_model, tiny_reader, write_image

from omnitune.data.loader import BatchStream
from omnitune.data.mixture import Mixture
from omnitune.data.packing import WHOLE, Batch, Shard
from omnitune.data.rounding import round_up
from omnitune.sample import UserError
from omnitune.tiny.pretrain_vision import (
    Captioning,
    Spotted,
    VisionEncoderConfig,
    changed,
    shown_words,
    spotted_first,
)
from omnitune.tiny.stage import captioned
from omnitune.tiny.word_presence import word_presence_loss


def folder_with(tmp_path: Path, records: list[dict[str, str]]) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.png")
    rows = [{"image": "a.png", "question": "?", "answer": "x", **r} for r in records]
    (folder / "image_qa.json").write_text(json.dumps(rows))
    return tmp_path


def test_splits_stay_apart_and_only_captions_are_learnt(tmp_path: Path) -> None:
    records = [{"split": s, "caption": f"of {s}"} for s in ("train", "validation", "test")]
    train, held_out = captioned(folder_with(tmp_path, records), "image")
    assert [s.messages[-1].text for s in train] == ["of train"]
    assert [s.messages[-1].text for s in held_out] == ["of validation"]
    assert all(len(s.messages) == 2 and s.messages[0].text == "" for s in train)


def test_without_captions_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='"caption"'):
        captioned(folder_with(tmp_path, [{"split": "train"}]), "image")


def captioning(weight: float = 1.0) -> Captioning:
    return Captioning(tiny_model(), weight, {})


def captioned_stream(tmp_path: Path, model: Captioning) -> BatchStream:
    records = [{"split": s, "caption": "a red circle"} for s in ("train", "train", "validation")]
    train, _ = captioned(folder_with(tmp_path, records), "image")
    model.shown = {sample.id: [5, 6, 7] for sample in train}
    mixture = Mixture({"image": len(train)}, {"image": 1.0}, 0)
    return BatchStream(tiny_reader(model.omni), {"image": train}, mixture, batch_size=2)


def test_a_run_begins_with_words_that_are_spotted_and_not_said(tmp_path: Path) -> None:
    model = captioning(8.0)
    config = VisionEncoderConfig(stage="pretrain_vision", num_epochs=5)
    batch_at = spotted_first(config, captioned_stream(tmp_path, model))
    assert [type(batch_at(n)) is Spotted for n in range(5)] == [True, True, False, False, False]
    for number in (0, 2):
        model.zero_grad()
        batch = batch_at(number)
        assert batch is not None
        loss_sums, counts = model(round_up(batch))
        assert float(counts.sum()) == batch.num_targets
        loss_sums.sum().backward()
        assert model.word_presence_head.weight.grad is not None
        assert (model.omni.thinker.get_input_embeddings().weight.grad is None) == (number == 0)


def test_pictures_are_to_show_the_words_of_their_own_captions(tmp_path: Path) -> None:
    model = captioning()
    said = ["a red ring, a red star", "the digits 4 4", "a blue ring"]
    train, _ = captioned(
        folder_with(
            tmp_path,
            [
                *({"split": "train", "caption": caption} for caption in said),
                {"split": "validation", "caption": "a ring"},
            ],
        ),
        "image",
    )
    tokenizer = tiny_reader(model.omni).renderer.tokenizer
    model.shown = shown_words(train, tokenizer)
    logits_BSW = torch.randn(3, 4, model.word_presence_head.out_features)
    counts_BW = torch.zeros(3, logits_BSW.shape[2])
    for row, seen in enumerate(["red ring red star", "4 4", "blue ring"]):
        for token in tokenizer.encode(seen).ids:
            counts_BW[row, token] += 1
    model.word_presence_head = Said(logits_BSW)
    found = model.word_presence(torch.zeros(3, 4, 1), [sample.id for sample in train])
    assert float(found) == pytest.approx(float(word_presence_loss(logits_BSW, counts_BW)))


class Said(torch.nn.Linear):
    """Says the same of whatever features."""

    def __init__(self, logits_BSW: torch.Tensor) -> None:
        super().__init__(1, logits_BSW.shape[2])
        self.logits_BSW = logits_BSW

    def forward(self, features_BSD: torch.Tensor) -> torch.Tensor:
        return self.logits_BSW


def test_a_picture_looks_otherwise_in_each_pass_and_alike_on_any_rank(tmp_path: Path) -> None:
    stream = captioned_stream(tmp_path, captioning())
    batches = changed(VisionEncoderConfig(seed=3), stream)

    def pictures(number: int, part: Shard = WHOLE) -> list[torch.Tensor]:
        batch = batches(number, part)
        assert isinstance(batch, Batch)
        return batch.media["image"].inputs

    first, again, later = pictures(0), pictures(0), pictures(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a in first for b in later)
    by_rank = [one for rank in range(2) for one in pictures(0, Shard(rank, 2))]
    assert all(any(torch.allclose(a, b, atol=1e-6) for b in first) for a in by_rank)
    assert len(by_rank) == len(first)


def test_the_spotting_weight_counts_the_spotted_words(tmp_path: Path) -> None:
    model = captioning(8.0).eval()
    stream = captioned_stream(tmp_path, model)
    both = stream(0)
    assert both is not None
    spotted = Spotted(**vars(both))
    found = {}
    with torch.no_grad():
        for weight in (0.0, 4.0, 8.0):
            model.weight = weight
            found[weight] = float(model(both)[0]), float(model(spotted)[0])
    for none, half, whole in zip(found[0.0], found[4.0], found[8.0], strict=True):
        assert whole - none == pytest.approx(2 * (half - none), rel=1e-3)
    assert found[0.0][0] > found[0.0][1] == 0.0  # the caption's; none is asked for
