"""Stage B: the audio encoder, by CTC (Graves et al. 2006) at two depths.

A middle layer spells in small units, the last layer in the thinker's own subwords, mostly whole
words (hierarchical CTC, Sanabria and Metze 2018). Small units alone are learnt fast but leave
the thinker to put words together; words alone stay on the plateau of blanks for epochs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

from omnitune.config.base import Count, Rate
from omnitune.data.packing import WHOLE, Shard, of_like_length
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.speech import pad
from omnitune.evaluation.metrics import word_error_rate
from omnitune.media.audio import duration
from omnitune.sample import Sample
from omnitune.tiny.augmentation import ClipChange
from omnitune.tiny.stage import EncoderConfig, Stage, captioned, load_tokenizer, save_naming_encoder

NAME = "audio"
NUM_UNITS = 256  # small units that the last layer but one spells in
SLOT_SHARE = 0.5  # of a clip's rows that the thinker receives; rows that name a word come first
CHANGE = ClipChange(warp=0.08, tempo=0.1, band=0.2)  # from one epoch to the next
LENGTH_WINDOW = 16  # batches that are sorted by length together
TRANSCRIBED = 64  # held-out clips at a time


class AudioEncoderConfig(EncoderConfig):
    """Stage B: a small FastConformer."""

    checkpoint: ClassVar[str] = "audio_enc.pt"

    stage: Literal["pretrain_audio"] = "pretrain_audio"
    num_epochs: Count = 8
    batch_size: Count = 16
    learning_rate: Rate = 4e-3
    warmup_steps: int = Field(200, ge=0)
    hidden_size: int = Field(144, ge=16)
    intermediate_size: int = Field(360, ge=16)
    subsampling_channels: int = Field(32, ge=4)
    """channels of the convolutional subsampling"""

    def encoder(self) -> dict[str, Any]:
        """Settings of the encoder."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": self.intermediate_size,
            "conv_kernel_size": 9,
            "subsampling_conv_channels": self.subsampling_channels,
            "num_mel_bins": 64,
            "dropout": 0.0,
            "activation_dropout": 0.0,
            "attention_dropout": 0.0,
            "layerdrop": 0.0,
            "scale_input": False,
        }


@dataclass
class CtcBatch:
    """Clips ``[frames, bins]``, and their transcripts in the thinker's subwords and in units."""

    inputs: list[Tensor]
    targets: list[Tensor]
    units: list[Tensor]

    @property
    def num_targets(self) -> int:
        """Subwords to be written."""
        return sum(t.numel() for t in self.targets)

    def to(self, device: torch.device) -> CtcBatch:
        """The batch on another device."""
        columns = (self.inputs, self.targets, self.units)
        return CtcBatch(*([x.to(device) for x in column] for column in columns))


class CtcModel(nn.Module):
    """The encoder under two linear heads; the last class of each is the blank."""

    def __init__(self, config: AudioEncoderConfig, vocab_size: int, num_units: int) -> None:
        super().__init__()
        self.modality = FastConformerEncoder(config.encoder())
        self.encoder = self.modality.build()
        self.head = nn.Linear(self.modality.feature_dim, vocab_size + 1)
        self.unit_head = nn.Linear(self.modality.feature_dim, num_units + 1)
        self._middle: Tensor | None = None
        layers = cast(nn.ModuleList, self.encoder.layers)
        layers[max(0, config.num_layers - 2)].register_forward_hook(self._keep_middle)

    def forward(self, batch: CtcBatch) -> tuple[Tensor, Tensor]:
        """Sum of the clips' two CTC losses and the number of subwords: ``[1]`` each."""
        last_BTD, lengths_B = self._encode(batch.inputs)
        assert self._middle is not None
        loss = ctc(self.head(last_BTD), lengths_B, batch.targets)
        loss = loss + ctc(self.unit_head(self._middle), lengths_B, batch.units)
        return loss[None], loss.new_tensor([batch.num_targets])

    def _encode(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Last hidden states ``[B, slots, D]`` and each clip's number of slots ``[B]``."""
        mel_BTM, mask_BT = pad(inputs)
        hidden = self.encoder(input_features=mel_BTM, attention_mask=mask_BT).last_hidden_state
        return hidden, torch.tensor([self.modality.num_slots(x) for x in inputs])

    def _keep_middle(self, layer: nn.Module, inputs: object, output: Tensor) -> None:
        self._middle = output

    @torch.no_grad()
    def transcribe(self, inputs: list[Tensor]) -> list[list[int]]:
        """Best path: the likeliest class of each slot, repeats merged, blanks dropped."""
        hidden_BTD, lengths_B = self._encode(inputs)
        logits_BTV = self.head(hidden_BTD)
        blank = logits_BTV.shape[-1] - 1
        found = []
        for row_T, length in zip(logits_BTV.argmax(-1), lengths_B, strict=True):
            merged = torch.unique_consecutive(row_T[:length])
            found.append(merged[merged != blank].tolist())
        return found


def ctc(logits_BTV: Tensor, lengths_B: Tensor, targets: list[Tensor]) -> Tensor:
    """CTC loss summed over the clips; the last class is the blank."""
    return nn.functional.ctc_loss(
        logits_BTV.float().log_softmax(dim=-1).transpose(0, 1),
        torch.cat(targets),
        lengths_B,
        torch.tensor([t.numel() for t in targets]),
        blank=logits_BTV.shape[-1] - 1,
        reduction="sum",
        zero_infinity=True,
    )


class Clips:
    """Transcribed clips, read once and kept, and their batches of like length."""

    def __init__(
        self,
        samples: list[Sample],
        modality: FastConformerEncoder,
        tokenizer: Tokenizer,
        units: Tokenizer,
    ) -> None:
        self.samples, self.modality = samples, modality
        self.tokenizer, self.units = tokenizer, units
        self._mels: dict[int, Tensor] = {}

    def mel(self, index: int) -> Tensor:
        """Log-mel frames of a clip; kept in half precision."""
        if index not in self._mels:
            self._mels[index] = self.modality.read(self._path(index)).half()
        return self._mels[index].float()

    def seconds(self, index: int) -> float:
        """Length of a clip, from its file's header."""
        return duration(self._path(index))

    def _path(self, index: int) -> Path:
        return self.samples[index].media[0].path

    def words(self, index: int) -> str:
        """Transcript of a clip."""
        return self.samples[index].media[0].caption

    def batch(self, indices: list[int]) -> CtcBatch:
        """The batch of some clips."""
        targets, units = (
            [torch.tensor(x.encode(self.words(n)).ids, dtype=torch.long) for n in indices]
            for x in (self.tokenizer, self.units)
        )
        return CtcBatch([self.mel(n) for n in indices], targets, units)


class LengthBatches:
    """Batches of clips of like length, by number, so that little is padding.

    Each epoch is a permutation of the clips, cut into windows; inside a window the clips are
    sorted by length into batches, which come in shuffled order. How a clip is changed depends on
    the epoch and the clip alone.

    Args:
        change: what no clip is heard twice without.
    """

    def __init__(self, clips: Clips, batch_size: int, seed: int, change: ClipChange) -> None:
        self.clips, self.batch_size, self.seed, self.change = clips, batch_size, seed, change
        self.per_epoch = -(-len(clips.samples) // batch_size)
        self._plan_of = lru_cache(maxsize=1)(self._plan)

    def __call__(self, number: int, part: Shard = WHOLE) -> CtcBatch | None:
        """Batch ``number`` of the run, counted from 0 over all epochs; None for an empty part."""
        epoch, place = divmod(number, self.per_epoch)
        chosen = self._plan_of(epoch)[place][part.rank :: part.of]
        if not chosen:
            return None
        batch = self.clips.batch(chosen)
        draws = (random.Random(f"{self.seed}/{epoch}/masks/{n}") for n in chosen)
        inputs = [self.change(x, d) for x, d in zip(batch.inputs, draws, strict=True)]
        return replace(batch, inputs=inputs)

    def _plan(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed}/{epoch}")
        order = list(range(len(self.clips.samples)))
        rng.shuffle(order)
        window = LENGTH_WINDOW * self.batch_size
        batches = []
        for first in range(0, len(order), window):
            by_length = sorted(order[first : first + window], key=self.clips.seconds)
            batches += [
                by_length[n : n + self.batch_size]
                for n in range(0, len(by_length), self.batch_size)
            ]
        rng.shuffle(batches)
        return batches


def build_stage(config: AudioEncoderConfig, path: Path) -> Stage:
    """The encoder, which learns from the transcripts, and its data; the best is kept at a path."""
    tokenizer = load_tokenizer(config.tokenizer)
    splits = captioned(config.data_dir, NAME)
    units = train_units((s.media[0].caption for s in splits[0]), NUM_UNITS)
    model = CtcModel(config, tokenizer.get_vocab_size(), units.get_vocab_size())
    train, held_out = (Clips(found, model.modality, tokenizer, units) for found in splits)
    batches = LengthBatches(train, config.batch_size, config.seed, CHANGE)

    def save_best(scores: dict[str, Any]) -> None:
        settings = config.encoder() | {"slot_share": SLOT_SHARE}
        state = model.encoder.state_dict()
        save_naming_encoder(path, NAME, settings, state, model.head, tokenizer, scores=scores)

    return Stage(
        model=model,
        batch_at=batches,
        batches_per_epoch=batches.per_epoch,
        groups=[NAME],
        score=lambda: held_out_wer(model, held_out),
        metric="wer",
        save_best=save_best,
    )


def train_units(transcripts: Iterable[str], count: int) -> Tokenizer:
    """Subwords of the transcripts alone, small enough to be heard one by one."""
    units = Tokenizer(models.BPE())
    units.pre_tokenizer = pre_tokenizers.Metaspace()
    units.train_from_iterator(
        transcripts, trainers.BpeTrainer(vocab_size=count, show_progress=False)
    )
    return units


def held_out_wer(model: CtcModel, clips: Clips) -> dict[str, float]:
    """Word error rate of best-path decoding."""
    lengths = [clips.seconds(n) for n in range(len(clips.samples))]
    device = model.head.weight.device
    answers, references = [], []
    for chunk in of_like_length(lengths, TRANSCRIBED):
        for ids in model.transcribe([clips.mel(n).to(device) for n in chunk]):
            answers.append(clips.tokenizer.decode(ids).strip())
        references += [clips.words(n) for n in chunk]
    return {"wer": word_error_rate(answers, references)}
