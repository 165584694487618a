"""What a run under stress is made of: a few records of noise and three random parts, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from omnitune.config.parallel import Mode
from omnitune.config.sft import SftConfig
from omnitune.models.loading import save_encoder, save_thinker
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Message, Sample, Text
from omnitune.sources import SOURCES
from omnitune.tiny.pretrain_lm import ThinkerConfig, train_tokenizer

RECORDS = 12  # a source
SPLITS = ("train", "train", "train", "validation", "train", "test")
WORDS = ("what is it?", "number 1 2 3 4 5 6 7 8 9 0.", "the quiet river.")
ENCODERS: dict[str, dict[str, Any]] = {
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


def make_home(home: Path) -> Path:
    """Writes data and parts, one broken picture and one broken sound among them."""
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in _media()}
    draw = np.random.default_rng(0)
    for name, suffix in _media().items():
        folder = (home / "data" / SOURCES[name].file).parent
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(RECORDS):
            record = {"question": WORDS[0], "answer": f"number {n}.", "split": SPLITS[n % 6]}
            path = folder / f"{n}{suffix}"
            if suffix == ".png":
                Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
                record["image"] = path.name
            elif suffix:
                wave = draw.uniform(-0.1, 0.1, int(16_000 * (0.3 + 0.05 * n)))
                soundfile.write(path, wave, 16_000)
                record |= {"audio": path.name, "task": "transcription"}
            if suffix and n == 2:
                path.write_bytes(path.read_bytes()[:60])
            records[name].append(record)
        (home / "data" / SOURCES[name].file).write_text(json.dumps(records[name]))
    _write_parts(home)
    return home


def _media() -> dict[str, str]:
    return {"text_only": "", "image_text": ".png", "audio_text": ".wav"}


def _write_parts(home: Path) -> None:
    turns = tuple(Message("user", (Text(words),)) for words in WORDS)
    tokenizer = train_tokenizer([Sample("words", "text_only", turns, "text", "train")], 300)
    thinker = ThinkerConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=64,
        max_positions=128,
    ).architecture(tokenizer.get_vocab_size())
    torch.manual_seed(0)
    model = OmniModel(OmniConfig(thinker=thinker, encoders=ENCODERS))
    model.match_projector_scales()
    save_thinker(home / "thinker.pt", model, tokenizer)
    for name, settings in ENCODERS.items():
        state = model.encoders[name].state_dict()
        save_encoder(home / f"{name}.pt", name, settings, state)


def config_of(
    home: Path, name: str, steps: int, mode: Mode = "auto", timeout: float = 60
) -> SftConfig:
    """Settings that touch what can be lost: phases, an adaptive mix, accumulation, a best score.

    Args:
        mode, timeout: of ``parallel``.
    """
    return SftConfig(
        data_dir=home / "data",
        output_dir=home / name,
        thinker_ckpt=home / "thinker.pt",
        vision_ckpt=home / "image.pt",
        audio_ckpt=home / "audio.pt",
        batch_size=2,
        gradient_accumulation=2,
        num_epochs=99,
        max_steps=steps,
        warmup_steps=1,
        learning_rate=1e-3,
        log_every=3,
        save_every=2,
        device="cpu",
        precision="fp32",
        compile="off",
        trackers=[],
        feature_cache="on",
        adaptive_mix="loss",
        phases=[{"until": 0.4}, {"train": ["thinker", "proj_v", "proj_a"]}],
        bad_samples="skip",
        max_bad_samples=0.5,
        keep_best=None if mode == "fsdp" else "loss",
        # A run that goes on without room for its best checkpoint does not keep it, so it ends
        # otherwise than an undisturbed one; one that stops scores again, and keeps it then.
        on_full_disk="go_on" if mode == "fsdp" else "stop",
        probe_questions=1,
        epoch_questions=2,
        parallel={"mode": mode, "timeout": timeout},
    )
