"""Stage C: the vision encoder, by captioning through a small decoder that is thrown away.

A caption that says what stands where can only be written from features that keep it. Beside the
decoder a linear head spots the caption's words in each slot; at first it learns alone, and each
slot by itself.

Shape suffixes: B pictures, S slots, D feature width, W words.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn

from omnitune.config.base import Count, Rate
from omnitune.data.loader import BatchStream, SampleReader
from omnitune.data.mixture import Mixture
from omnitune.data.packing import WHOLE, Batch, Shard
from omnitune.data.rounding import round_up
from omnitune.data.template import ChatRenderer
from omnitune.encoders.vit import VitEncoder
from omnitune.evaluation.scoring import token_scoreboard
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Sample
from omnitune.tiny.augmentation import PictureChange
from omnitune.tiny.pretrain_lm import ThinkerConfig
from omnitune.tiny.pseudo_features import seen_words
from omnitune.tiny.stage import EncoderConfig, Stage, captioned, load_tokenizer, save_naming_encoder
from omnitune.tiny.word_presence import word_presence_loss
from omnitune.training.run import BatchAt, LossBatch, Plan

NAME = "image"
CHANGE = PictureChange(degrees=3.0, scale=0.04, translate=0.015, brightness=0.025)  # in each pass
WORD_PRESENCE_WEIGHT = 8.0  # of the words' loss beside the captions'
WORD_PRESENCE_FIRST = 0.35  # of the run, from its start, without captions
# Log-odds, at the start, that a slot shows a given word of the vocabulary.
SELDOM = -6.0


class VisionEncoderConfig(EncoderConfig):
    """Stage C: a small SigLIP tower and the captioner that teaches it."""

    checkpoint: ClassVar[str] = "vision.pt"

    stage: Literal["pretrain_vision"] = "pretrain_vision"
    num_epochs: Count = 7
    batch_size: Count = 32
    learning_rate: Rate = 2e-3
    weight_decay: float = Field(0.1, ge=0)
    warmup_steps: int = Field(100, ge=0)
    num_layers: Count = 2
    num_heads: Count = 2
    compile: Literal["auto", "on", "off"] = "off"  # the captioner is a small part of a step

    def encoder(self) -> dict[str, Any]:
        """Settings of the encoder."""
        return {
            "image_size": 96,
            "patch_size": 16,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": self.intermediate_size,
            "pixel_shuffle": 2,
            "stem_channels": [16, 32, 64],
        }


def build_stage(config: VisionEncoderConfig, path: Path) -> Stage:
    """The encoder, which learns from the captions, and its data; the best is kept at a path."""
    train, held_out = captioned(config.data_dir, NAME)
    encoder = config.encoder()
    tokenizer = load_tokenizer(config.tokenizer)
    captioner = ThinkerConfig(num_layers=2, num_heads=2, num_kv_heads=2)
    architecture = captioner.architecture(tokenizer.get_vocab_size())
    omni = OmniModel(OmniConfig(architecture, {NAME: encoder}))
    omni.match_projector_scales()
    model = Captioning(omni, WORD_PRESENCE_WEIGHT, shown_words(train, tokenizer))
    reader = SampleReader(ChatRenderer(tokenizer), omni.modalities)
    mixture = Mixture({NAME: len(train)}, {NAME: 1.0}, config.seed)
    stream = BatchStream(reader, {NAME: train}, mixture, config.batch_size)
    items = [reader.item(sample) for sample in held_out]

    def save_best(scores: dict[str, Any]) -> None:
        state, head = omni.encoders[NAME].state_dict(), model.word_presence_head
        save_naming_encoder(path, NAME, encoder, state, head, tokenizer, scores=scores)

    return Stage(
        model=model,
        batch_at=changed(config, spotted_first(config, stream)),
        batches_per_epoch=len(stream),
        groups=stream.groups,
        score=lambda: token_scoreboard(omni, items),
        metric="loss",
        save_best=save_best,
        rounded=round_up,
        compile=omni.compile_decoder,
    )


@dataclass
class Spotted(Batch):
    """A batch whose captions' words are only spotted, which takes no decoder."""


def changed(config: VisionEncoderConfig, batches: BatchAt) -> BatchAt:
    """The same batches, of which no picture looks twice alike."""

    def batch_at(number: int, part: Shard = WHOLE) -> LossBatch | None:
        batch = batches(number, part)
        if not isinstance(batch, Batch):
            return batch
        rows = batch.media[NAME]
        draws = [random.Random(f"{config.seed}/{number}/{name}") for name in batch.ids]
        inputs = list(CHANGE(torch.stack(rows.inputs), draws))
        return replace(batch, media={NAME: replace(rows, inputs=inputs)})

    return batch_at


def spotted_first(config: VisionEncoderConfig, stream: BatchStream) -> BatchAt:
    """The batches of a run that begins with those that are :class:`Spotted`.

    What is small is learnt from the head, not from the decoder, and a step without the decoder
    takes two thirds of the time.
    """
    steps = round(WORD_PRESENCE_FIRST * Plan.of(config, len(stream)).total_steps)

    def batch_at(number: int, part: Shard = WHOLE) -> Batch | None:
        batch = stream(number, part)
        if batch is None or number >= steps * config.gradient_accumulation:
            return batch
        return Spotted(**vars(batch))

    return batch_at


class Captioning(nn.Module):
    """The encoder under its decoder and under a linear head that spots words.

    A decoder must find out where to look before anything it reads there can be corrected, and
    for small things (a digit, a letter) it may never start. The head corrects every slot at once:
    a word of the caption must be seen in some slot, another word in none (Fang et al. 2015, "From
    captions to visual concepts and back").

    Which slot, no caption says. A tower whose slots see each other may settle on any other than
    the one that shows the word; so they do not, as long as words are only spotted.

    Args:
        weight: of the spotted words in the loss.
        shown: tokens of the words that a sample's picture shows, by its id.
    """

    def __init__(self, omni: OmniModel, weight: float, shown: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.omni, self.weight, self.shown = omni, weight, shown
        self.modality = cast(VitEncoder, omni.modalities[NAME])
        vocab_size = omni.config.thinker["vocab_size"]
        self.word_presence_head = nn.Linear(self.modality.feature_dim, vocab_size)
        nn.init.constant_(self.word_presence_head.bias, SELDOM)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of both losses (nats) and number of the captions' tokens: ``[1]`` each."""
        rows = batch.media[NAME]
        only_spotted = isinstance(batch, Spotted)
        encode = self.modality.encode_apart if only_spotted else self.modality.encode
        features_BSD = torch.stack(encode(self.omni.encoders[NAME], rows.inputs))
        word_presence = self.weight * self.word_presence(features_BSD, batch.ids)
        if only_spotted:
            return word_presence[None], batch.weight_N.sum()[None]
        rows_M = [len(features_SD) for features_SD in features_BSD]
        rows = replace(rows, features_RD=features_BSD.flatten(0, 1), rows_M=rows_M)
        media = {NAME: rows}
        loss_sums, counts = self.omni(replace(batch, media=media))
        return loss_sums + word_presence, counts

    def word_presence(self, features_BSD: Tensor, ids: Sequence[str]) -> Tensor:
        """The loss of naming what these samples' pictures show (``word_presence_loss``)."""
        counts_BW = torch.zeros(len(ids), self.word_presence_head.out_features)
        for counts_W, name in zip(counts_BW, ids, strict=True):
            tokens_N = torch.tensor(self.shown[name], dtype=torch.long)
            counts_W += tokens_N.bincount(minlength=len(counts_W))
        return word_presence_loss(
            self.word_presence_head(features_BSD), counts_BW.to(features_BSD.device)
        )


def shown_words(samples: Iterable[Sample], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Tokens of the words that each sample's picture shows, by its id."""
    return {
        sample.id: tokenizer.encode(seen_words(sample.media[0].caption).replace(",", "")).ids
        for sample in samples
    }
