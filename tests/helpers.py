"""A tiny model and tiny media for tests: seeded, random, made in well under a second."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from omnitune.config.sft import SftConfig
from omnitune.data.loader import SampleReader
from omnitune.data.reading import read_source
from omnitune.data.samples import Samples
from omnitune.data.template import ChatRenderer
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Media, Message, Sample, Text
from omnitune.sources import SOURCES
from omnitune.tasks import TASKS
from omnitune.tiny.pretrain_lm import ThinkerConfig, train_tokenizer

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
        "initializer_range": 0.2,
        "layerdrop": 0.0,
    },
}
MIX = {"text_only": 0.4, "image_text": 0.3, "audio_text": 0.3}
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


def tiny_renderer() -> ChatRenderer:
    """Renders with that tokenizer."""
    return ChatRenderer(tiny_tokenizer())


def tiny_model(
    seed: int = 0, max_positions: int = 256, media: Sequence[str] = tuple(ENCODERS)
) -> OmniModel:
    """A random model in evaluation mode, with encoders of some media.

    Its vocabulary is the tokenizer's. Its weights are larger than a fresh model's: greedy answers
    so vary with the prompt instead of repeating its last token.
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
        encoders = {name: ENCODERS[name] for name in media}
        model = OmniModel(OmniConfig(thinker=thinker, encoders=encoders))
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


def conversation(
    id: str,
    *turns: str,
    media: tuple[Media, ...] = (),
    captions: Mapping[str, str] = MappingProxyType({}),
    **rest: Any,
) -> Sample:
    """Turns of user and assistant by turns; the media, with ``captions``, open the first one."""
    media = tuple(replace(m, caption=captions.get(m.modality, "")) for m in media)
    tasks = {
        frozenset(): "text",
        frozenset({"image"}): "image_qa",
        frozenset({"audio"}): "audio_qa",
    }
    task = rest.pop("task", tasks.get(frozenset(m.modality for m in media), "image_audio_qa"))
    messages = []
    for n, text in enumerate(turns):
        parts = (*media, Text(text)) if n == 0 else (Text(text),)
        role = ("user", "assistant")[n % 2]
        messages.append(Message(role, parts, task=task if n % 2 else ""))
    values = {"source": "text_only", "split": "train"} | rest
    return Sample(id=id, messages=tuple(messages), task=task, **values)


def mixed_samples(folder: Path) -> list[Sample]:
    """Five samples of unlike length: text, image, sound, two sounds' length apart, and both."""
    image = Media("image", write_image(folder / "one.png", seed=1))
    other = Media("image", write_image(folder / "two.png", size=48, seed=2))
    clip = Media("audio", write_wave(folder / "short.wav", 0.4, seed=3))
    long = Media("audio", write_wave(folder / "long.wav", 1.1, seed=4))
    return [
        conversation("text", "what is 7 plus 5?", "12", "and 1 more?", "13, of course."),
        conversation("image", "which color?", "red.", media=(image,)),
        conversation("short", "what is said?", "the quiet river.", media=(clip,)),
        conversation("long", "repeat it.", "the sky is the air above us.", media=(long,)),
        conversation("both", "is this true?", "yes", media=(other, long)),
    ]


def tiny_reader(model: OmniModel, **rest: Any) -> SampleReader:
    """Reads, renders and, without cached features, leaves media to the model's encoders."""
    return SampleReader(ChatRenderer(tiny_tokenizer()), model.modalities, **rest)


def shorten_answers(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Limits the answers of every task."""
    for name, task in list(TASKS.items()):
        monkeypatch.setitem(TASKS, name, replace(task, answer_limit=tokens))


def sft_settings(home: Path, name: str = "run", **rest: Any) -> SftConfig:
    """Four steps of stage E on the data and parts of a folder, into its subfolder ``name``."""
    values = {
        "data_dir": home / "data",
        "output_dir": home / name,
        "thinker_ckpt": home / "thinker.pt",
        "vision_ckpt": home / "image.pt",
        "audio_ckpt": home / "audio.pt",
        "data_mix": MIX,
        "batch_size": 4,
        "max_steps": 4,
        "warmup_steps": 1,
        "learning_rate": 1e-3,
        "log_every": 2,
        "save_every": 2,
        "device": "cpu",
    }
    return SftConfig(**{**values, **rest})


def by_segment(
    q_PHD: Tensor,
    k_PKD: Tensor,
    v_PKD: Tensor,
    bounds_B: Tensor,
    scale: float | None,
    enable_gqa: bool = True,
) -> Tensor:
    """Causal attention segment by segment: ``[P, H, D]``."""
    out = [
        torch.nn.functional.scaled_dot_product_attention(
            *(x[begin:end].transpose(0, 1)[None] for x in (q_PHD, k_PKD, v_PKD)),
            is_causal=True,
            scale=scale,
            enable_gqa=enable_gqa,
        )[0].transpose(0, 1)
        for begin, end in itertools.pairwise(bounds_B.tolist())
    ]
    return torch.cat(out)


def write_source(folder: Path, source: str, records: Any) -> Path:
    """Writes the data file of a source, of records or of a text; returns its path."""
    path = folder / SOURCES[source].file
    path.parent.mkdir(parents=True, exist_ok=True)
    text = records if isinstance(records, str) else json.dumps(records)
    path.write_text(text, encoding="utf-8")
    return path


def read_records(folder: Path, source: str, *records: Any) -> Samples:
    """The samples of some records, which are written as the data file of a source."""
    write_source(folder, source, list(records))
    return read_source(folder, source)
