"""Stage E at the real sizes, on a GPU, against the Trainer of transformers.

    python -m benchmarks.gpu [--toy] [--batch 16] [--rounds 5] [--steps 10] [--json FILE]

A thinker of 0.6 B parameters (Qwen3), a SigLIP2-base tower and Whisper-small's encoder, all of
random weights, on noise and random words. Without a GPU, or with ``--toy``, a toy size.

Shape suffixes: B clips, T frames, M mel bins, F encoder frames, D width.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen3Config, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.command import Arguments, command
from benchmarks.sft import compare, report, show
from benchmarks.versions import TRAINER, choose
from benchmarks.workload import WEIGHTS, Bench
from omnitune.data.mixture import Mixture
from omnitune.data.template import ChatRenderer
from omnitune.encoders.base import Encoder, MediaStats
from omnitune.encoders.fastconformer import HOP, log_mel
from omnitune.encoders.registry import ENCODERS
from omnitune.media.audio import SAMPLE_RATE, duration, read_wave
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Media, Message, Sample, Text
from omnitune.tiny.pretrain_lm import train_tokenizer

COMPARED = (
    TRAINER,
    "omnitune, compiled",
    "omnitune",
    "  with padded attention",
    "  with checkpointed activations",
    "  compiled, without the cache",
)
STACKED = 4  # frames of 50 Hz that become one slot of 12.5 Hz
SAMPLES = 64  # of each source


@dataclass(frozen=True)
class Size:
    """Sizes of all parts and of the samples.

    Attributes:
        thinker: what differs from transformers' own Qwen3 settings.
        image: settings of the image encoder. audio: of Whisper's.
        words: in an answer.
    """

    name: str
    thinker: dict[str, Any]
    image: dict[str, Any]
    audio: dict[str, Any]
    words: int


REAL = Size(
    "0.6 B",
    thinker={
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
    image={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "image_size": 256,
        "patch_size": 16,
        "pixel_shuffle": 2,
    },
    audio={
        "d_model": 768,
        "encoder_layers": 12,
        "encoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "num_mel_bins": 80,
        "max_source_positions": 1500,
    },
    words=192,
)
TOY = Size(
    "toy",
    thinker={
        "vocab_size": 2048,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 128,
    },
    image={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 64,
        "patch_size": 16,
        "pixel_shuffle": 2,
    },
    audio={
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 80,
        "max_source_positions": 40,
    },
    words=8,
)


class WhisperWindow(Encoder):
    """Whisper's encoder (Radford et al. 2022) over its whole window; stacked frames are slots."""

    type = "whisper_window"
    medium_name = "audio"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.whisper = WhisperConfig(**{k: v for k, v in config.items() if k != "type"})

    @property
    def frames(self) -> int:
        """Mel frames of the window; the encoder halves them."""
        return 2 * self.whisper.max_source_positions

    def measure(self, path: Path) -> MediaStats:
        """What lies after the window is lost."""
        seconds = duration(path)
        slots = self.whisper.max_source_positions // STACKED
        return MediaStats(
            seconds, max(0.0, seconds - self.frames * HOP / SAMPLE_RATE), slots, slots
        )

    def read(self, path: Path) -> Tensor:
        """The first window of a file as ``[frames, bins]``."""
        mel_TM = log_mel(read_wave(path), self.whisper.num_mel_bins)[: self.frames]
        return nn.functional.pad(mel_TM, (0, 0, 0, self.frames - len(mel_TM)))

    def num_slots(self, inputs: Tensor) -> int:
        """The same for every clip."""
        return self.whisper.max_source_positions // STACKED

    @property
    def feature_dim(self) -> int:
        """Width of the encoder times the frames stacked into one row."""
        return self.whisper.d_model * STACKED

    def build(self) -> nn.Module:
        """The encoder alone."""
        return WhisperEncoder(self.whisper)

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes B clips to B tensors ``[slots, feature_dim]``."""
        mel_BMT = torch.stack(inputs).transpose(1, 2)
        hidden_BFD = module(mel_BMT).last_hidden_state
        return list(hidden_BFD.reshape(len(inputs), -1, self.feature_dim))


def make(size: Size, folder: Path, batch_size: int, device: str = "cpu") -> Bench:
    """Builds the model, where it will run, and the samples: the same in every process."""
    torch.manual_seed(0)
    training = make_samples(size, folder)
    everything = [sample for samples in training.values() for sample in samples]
    tokenizer = train_tokenizer(everything, 1024)
    thinker = Qwen3Config(**size.thinker, max_position_embeddings=8192, tie_word_embeddings=True)
    encoders = {"image": size.image, "audio": size.audio | {"type": WhisperWindow.type}}
    ENCODERS.setdefault(WhisperWindow.type, WhisperWindow)
    with torch.device(device):
        model = OmniModel(OmniConfig(thinker=thinker.to_dict(), encoders=encoders))
    model.match_projector_scales()
    model.freeze_encoders()
    mixture = Mixture({name: len(found) for name, found in training.items()}, WEIGHTS, seed=0)
    return Bench(model, ChatRenderer(tokenizer), training, mixture, batch_size)


def make_samples(size: Size, folder: Path) -> dict[str, list[Sample]]:
    """Noise to look at and to listen to, and answers of random words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(500)]
    samples: dict[str, list[Sample]] = {}
    for source in WEIGHTS:
        for n in range(SAMPLES):
            media = _medium(source, size, folder, n)
            asked = Message("user", (*media, Text(" ".join(draw.choices(words, k=12)))))
            # Unlike lengths, as answers have: padding is part of what is compared.
            count = draw.randint(size.words // 2, size.words * 3 // 2)
            told = Message("assistant", (Text(" ".join(draw.choices(words, k=count))),))
            sample = Sample(f"{source}-{n}", source, (asked, told), "text", "train")
            samples.setdefault(source, []).append(sample)
    return samples


def _medium(source: str, size: Size, folder: Path, n: int) -> tuple[Media, ...]:
    noise = np.random.default_rng(n)
    if source == "image_text":
        side = size.image["image_size"]
        path = folder / f"{n}.png"
        if not path.exists():
            pixels = noise.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return (Media("image", path),)
    if source == "audio_text":
        path = folder / f"{n}.wav"
        if not path.exists():
            count = 2 * size.audio["max_source_positions"] * HOP
            soundfile.write(path, noise.uniform(-0.1, 0.1, count), SAMPLE_RATE)
        return (Media("audio", path),)
    return ()


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="a toy size [where there is no GPU]")
    parser.add_argument("--batch", type=int, default=16, help="samples a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--versions", default="|".join(COMPARED), help="some of them, by |")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    names = choose(options.versions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    toy = options.toy or device == "cpu"
    if toy:
        why = "as asked for" if options.toy else "no GPU was found"
        print(f"a toy size on {device} ({why}): nothing here says how fast a GPU is")
    size = TOY if toy else REAL
    with tempfile.TemporaryDirectory() as folder:
        build = partial(make, size, Path(folder), options.batch, device)
        found = compare(build, names, options.rounds, options.steps, device=device)
    show(size.name, found)
    report({size.name: found}, options.json)


if __name__ == "__main__":
    sys.exit(main())
