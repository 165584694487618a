"""A tiny model and tiny media for tests: seeded, random, made in well under a second."""

from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer

from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.pretraining.thinker import ThinkerConfig, train_tokenizer
from omnitune.sample import Message, Sample, Text

ENCODERS = {
    "image": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "pixel_shuffle": 2,
    },
    "audio": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "subsampling_conv_channels": 8,
        "num_mel_bins": 40,
        "conv_kernel_size": 5,
    },
}
SENTENCES = (
    "what is the sky? the sky is the air above us.",
    "what is 7 plus 5? 12",
    "which color is the circle? the circle is red.",
    "repeat after me: the quiet river.",
)


@cache
def _tokenizer_json() -> str:
    turns = tuple(Message("user", (Text(sentence),)) for sentence in SENTENCES)
    sample = Sample("sentences", "text_only", turns, "text", "train")
    return train_tokenizer([sample], vocab_size=300).to_str()


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE with the special tokens and some merges; a new object each time."""
    return Tokenizer.from_str(_tokenizer_json())


def tiny_model(seed: int = 0, max_positions: int = 256) -> OmniModel:
    """A random model with both encoders, in evaluation mode; its vocabulary is the tokenizer's.

    Its weights are larger than a fresh model's: greedy answers so vary with the prompt instead
    of repeating its last token.
    """
    thinker = ThinkerConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=64,
        max_positions=max_positions,
    ).architecture(tiny_tokenizer().get_vocab_size())
    thinker |= {"initializer_range": 0.3, "tie_word_embeddings": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OmniModel(OmniConfig(thinker=thinker, encoders=ENCODERS))
        model.match_projector_scales()
    return model.eval()


def write_image(path: Path, size: int = 32, seed: int = 0) -> Path:
    """A picture of random colours in the format of the path's suffix; returns the path."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_wave(
    path: Path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1, seed: int = 0
) -> Path:
    """Quiet noise as 16-bit sound; returns the path."""
    shape = (int(seconds * rate), channels)
    wave = np.random.default_rng(seed).uniform(-0.1, 0.1, shape)
    soundfile.write(path, wave, rate)
    return path
