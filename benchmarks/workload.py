"""What a benchmark trains: a model of random weights, and samples of the corpus's shapes."""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer

from omnitune.config.sft import SftConfig
from omnitune.data.feature_cache import FeatureStore
from omnitune.data.loader import SampleReader, as_asked
from omnitune.data.mixture import Mixture
from omnitune.data.packing import Item
from omnitune.data.reading import read_available, split_of
from omnitune.data.template import ChatRenderer
from omnitune.evaluation.evaluate import encode_once
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Media, Sample
from omnitune.tiny.corpus.build import VERSION, build_corpus
from omnitune.tiny.pretrain_audio import AudioEncoderConfig
from omnitune.tiny.pretrain_lm import ThinkerConfig, put_into_words, train_tokenizer
from omnitune.tiny.pretrain_vision import VisionEncoderConfig

WEIGHTS = {"text_only": 0.4, "image_text": 0.3, "audio_text": 0.3}
BATCH_SIZE = 8
CORPUS_SCALE = 0.1
EPOCHS = 5  # of the usual configuration: over so many the one pass of the encoders is spread


@dataclass(frozen=True)
class Workload:
    """A size of model and of inputs.

    Attributes:
        thinker: settings of the thinker that differ from the tiny one's.
        vision: settings of the vision encoder that differ.
        seconds: length of every sound, or None for the corpus's own.
    """

    name: str
    thinker: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None


WORKLOADS = {
    "tiny": Workload("tiny"),
    "long": Workload(
        "long",
        vision={"image_size": 224, "pixel_shuffle": 1},
        seconds=15.0,
    ),
    "30m": Workload(
        "30m",
        thinker={
            "hidden_size": 512,
            "num_layers": 8,
            "num_heads": 8,
            "num_kv_heads": 8,
            "intermediate_size": 1536,
        },
    ),
}


@dataclass(frozen=True)
class Peer:
    """How the Trainer is run.

    Attributes:
        share: of its samples whose questions are one conversation; None for what omnitune has.
        cached: its media are encoded beforehand, as omnitune's are.
        own_settings: the Trainer's own optimiser and rate; else AdamW with omnitune's rates.
    """

    share: float | None = None
    cached: bool = False
    own_settings: bool = True


@dataclass
class Bench:
    """A workload made real: the same in every process that makes it.

    Attributes:
        settings: of a run. rates: peak learning rates by prefix of the weight's name.
        questions: of a record's independent questions so many; None for all.
        bf16: whether every version runs in bf16; None where each is tried in both.
        peer: how the Trainer is run, where it differs from a plain one.
        drawn: samples that the whole comparison draws; only their media are encoded beforehand.
        passes: over the data, over which the one pass of the encoders is spread.
    """

    model: OmniModel
    renderer: ChatRenderer
    training: Mapping[str, Sequence[Sample]]
    mixture: Mixture
    batch_size: int = BATCH_SIZE
    settings: SftConfig = field(default_factory=lambda: SftConfig(output_dir=Path("unused")))
    rates: dict[str, float] | None = None
    questions: int | None = None
    bf16: bool | None = None
    peer: Peer = field(default_factory=Peer)
    drawn: int | None = None
    passes: float = EPOCHS

    def sample(self, k: int) -> Sample:
        """Sample k of the run."""
        source, index = self.mixture.sample_at(k)
        return self.training[source][index]

    def items(self, reader: SampleReader, k: int, share: float) -> list[Item]:
        """Sample k as it is asked: an item a question or, in a share of the samples, one in all."""
        singles = as_asked(self.sample(k), k, self.mixture.seed, share, self.questions)
        return [reader.item(single) for single in singles]

    def reader(self, features: dict[str, FeatureStore] | None = None) -> SampleReader:
        """Reads samples, with or without cached features."""
        return SampleReader(self.renderer, self.model.modalities, features, 4096)

    @property
    def epoch(self) -> float:
        """Steps in which each of the media that are encoded comes about once."""
        return (self.drawn or self.mixture.epoch_size) / self.batch_size

    def encode(self) -> tuple[dict[str, FeatureStore], float]:
        """The features of the training samples' media, and the seconds that they took."""
        everything = [s for samples in self.training.values() for s in samples]
        if self.drawn is not None:
            everything = [self.sample(k) for k in range(self.drawn)]
        first = [samples[0] for samples in self.training.values()]
        encode_once(self.model, first, None)  # builds kernels
        started = time.perf_counter()
        return encode_once(self.model, everything, None), time.perf_counter() - started


def corpus_folder() -> Path:
    """A small corpus, made once and kept in the folder of temporary files."""
    folder = Path(tempfile.gettempdir()) / f"omnitune-bench-{VERSION}-{CORPUS_SCALE}"
    build_corpus(folder, scale=CORPUS_SCALE)
    return folder


def make(workload: Workload, data_dir: Path) -> Bench:
    """Builds the model and chooses the samples."""
    training: Mapping[str, Sequence[Sample]] = {
        name: split_of(found, "train") for name, found in read_available(data_dir).items()
    }
    samples = (s for found in training.values() for s in found)
    model, tokenizer = build_model(workload, samples)
    model.freeze_encoders()
    if workload.seconds:
        training = {
            name: [_lengthened(s, data_dir, workload.seconds) for s in samples]
            for name, samples in training.items()
        }
    sizes = {name: len(samples) for name, samples in training.items()}
    return Bench(model, ChatRenderer(tokenizer), training, Mixture(sizes, WEIGHTS, seed=0))


def build_model(workload: Workload, samples: Iterable[Sample]) -> tuple[OmniModel, Tokenizer]:
    """The model, of random weights, and a tokenizer of the samples' words."""
    torch.manual_seed(0)
    unused = Path("unused")
    thinker = ThinkerConfig(output_dir=unused, max_positions=4096, **workload.thinker)
    tokenizer = train_tokenizer((put_into_words(s) for s in samples), thinker.vocab_size)
    encoders = {
        "image": VisionEncoderConfig(output_dir=unused).encoder() | workload.vision,
        "audio": AudioEncoderConfig(output_dir=unused).encoder(),
    }
    architecture = thinker.architecture(tokenizer.get_vocab_size())
    model = OmniModel(OmniConfig(thinker=architecture, encoders=encoders))
    model.match_projector_scales()
    return model, tokenizer


def _lengthened(sample: Sample, folder: Path, seconds: float) -> Sample:
    """The sample with its sounds in place of noise of a given length."""

    def longer(medium: Media) -> Media:
        path = folder / "noise" / f"{medium.path.stem}-{seconds:g}.wav"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            seed = zlib.crc32(medium.path.stem.encode())
            noise = np.random.default_rng(seed).uniform(-0.1, 0.1, int(seconds * 16_000))
            soundfile.write(path, noise, 16_000)
        return Media(medium.modality, path)

    messages = tuple(
        replace(
            message,
            parts=tuple(
                longer(p) if isinstance(p, Media) and p.modality == "audio" else p
                for p in message.parts
            ),
        )
        for message in sample.messages
    )
    return replace(sample, messages=messages)
