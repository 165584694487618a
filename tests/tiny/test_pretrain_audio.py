"""Stage B: two CTC losses, batches of like length, decoding."""

from pathlib import Path

import pytest
import torch
from helpers import conversation, tiny_tokenizer, write_wave

from omnitune.data.packing import Shard
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.vocab_head import VocabHead
from omnitune.sample import Media
from omnitune.tiny.augmentation import ClipChange
from omnitune.tiny.pretrain_audio import (
    AudioEncoderConfig,
    Clips,
    CtcBatch,
    CtcModel,
    LengthBatches,
    ctc,
    train_units,
)

SMALL = AudioEncoderConfig(
    hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, subsampling_channels=4
)
WORDS = ("the sky", "is 7", "red circle", "the river", "plus 5", "quiet", "color")


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    samples = []
    for n, words in enumerate(WORDS):
        path = write_wave(tmp_path / f"{n}.wav", seconds=0.6 + 0.1 * n, seed=n)
        media = (Media("audio", path),)
        samples.append(conversation(str(n), "?", words, media=media, captions={"audio": words}))
    return Clips(
        samples, FastConformerEncoder(SMALL.encoder()), tiny_tokenizer(), train_units(WORDS, 60)
    )


def build(clips: Clips) -> CtcModel:
    torch.manual_seed(0)
    return CtcModel(SMALL, clips.tokenizer.get_vocab_size(), clips.units.get_vocab_size())


def test_an_epoch_holds_every_clip_once_in_any_order_of_asking(clips: Clips) -> None:
    batches = LengthBatches(clips, 2, 0, ClipChange())
    sizes = [len(batches(n).inputs) for n in range(batches.per_epoch)]
    assert sum(sizes) == len(WORDS)
    last = batches(5).inputs
    again = LengthBatches(clips, 2, 0, ClipChange())(5).inputs
    assert all(torch.equal(a, b) for a, b in zip(last, again, strict=True))


def test_batches_hold_clips_of_like_length(clips: Clips) -> None:
    batches = LengthBatches(clips, 2, 0, ClipChange())
    for n in range(batches.per_epoch):
        lengths = sorted(x.shape[0] for x in batches(n).inputs)
        assert lengths[-1] - lengths[0] <= 11  # neighbours differ by 0.1 s, ten frames


@pytest.mark.parametrize("count", [2, 3])
def test_parts_hold_each_clip_once_and_blank_it_alike(clips: Clips, count: int) -> None:
    batches = LengthBatches(clips, 2, 0, ClipChange(0.1, 0.2, 0.2))
    for number in (0, batches.per_epoch):
        whole = batches(number)
        parts = [batches(number, Shard(rank, count)) for rank in range(count)]
        found = [x for part in parts if part is not None for x in part.inputs]
        assert whole is not None
        assert len(found) == 2
        assert all(torch.equal(x, y) for x, y in zip(whole.inputs, found, strict=True))
    unblanked = LengthBatches(clips, 2, 0, ClipChange())
    zeros = [sum(int((x == 0).sum()) for x in made(0).inputs) for made in (batches, unblanked)]
    assert zeros[0] > zeros[1]


def test_a_batch_loses_what_its_clips_lose_alone(clips: Clips) -> None:
    model = build(clips).eval()
    together = model(clips.batch([0, 3, 6]))[0]
    alone = sum(model(clips.batch([n]))[0] for n in (0, 3, 6))
    assert torch.allclose(together, alone, rtol=1e-4)


def test_ctc_equals_the_sum_over_all_alignments() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 3, 3)
    p = logits[0].softmax(-1)  # classes a, b, blank; the target is "a"
    paths = [
        (0, 0, 0), (0, 0, 2), (0, 2, 2), (2, 0, 0), (2, 0, 2), (2, 2, 0),
    ]  # fmt: skip
    likelihood = sum(p[0, i] * p[1, j] * p[2, k] for i, j, k in paths)
    loss = ctc(logits, torch.tensor([3]), [torch.tensor([0])])
    assert torch.allclose(loss, -likelihood.log())


def test_overfits_and_then_writes_the_words(clips: Clips) -> None:
    model = build(clips)
    batch: CtcBatch = clips.batch(list(range(len(WORDS))))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model(batch)[0].sum().backward()
        optimizer.step()
    # In training mode: the running statistics of so few steps on noise are not yet those.
    written = [clips.tokenizer.decode(ids).strip() for ids in model.transcribe(batch.inputs)]
    assert sum(a == b for a, b in zip(written, WORDS, strict=True)) >= 5


def test_slots_say_what_was_transcribed_and_then_nothing(clips: Clips) -> None:
    """The encoder as stage E loads it gives the rows of the best path's words, in order."""
    model = build(clips).eval()
    with torch.no_grad():
        model.head.weight.mul_(1000)  # a fresh head finds every word somewhat likely
    vocab_size = clips.tokenizer.get_vocab_size()
    modality = FastConformerEncoder(SMALL.encoder() | {"words": vocab_size, "slot_share": 1.0})
    encoder = modality.build().eval()
    encoder.load_state_dict(model.encoder.state_dict() | VocabHead.state_of(model.head))
    inputs = [clips.mel(n) for n in range(len(WORDS))]
    with torch.no_grad():
        slots = modality.encode(encoder, inputs)
    assert [len(rows) for rows in slots] == [modality.num_slots(x) for x in inputs]
    for rows, ids in zip(slots, model.transcribe(inputs), strict=True):
        assert ids
        assert encoder.readout(rows).argmax(-1)[: len(ids)].tolist() == ids
