"""The workload of three pretrained parts under LoRA, as the recipe that ships trains them.

Both sides have the same adapters (peft's), projectors, learning rates, records, questions and
cached features. omnitune asks as the recipe says; the Trainer has each record as one conversation,
which is how a peer would ask, and as few tokens as it can have.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.versions import TRAINER
from benchmarks.workload import Bench, Peer
from omnitune.config.sft import SftConfig
from omnitune.data.mixture import Mixture
from omnitune.data.reading import read_available, split_of
from omnitune.models.adapters import add_adapters
from omnitune.models.loading import assemble
from omnitune.sample import UserError
from omnitune.training import precision
from omnitune.training.rates import peak_rates

NAME = "trio"
RECIPE = Path(__file__).parents[1] / "configs" / "omni_sft_smollm2_dinov2_whisper.json"
PARTS = {"thinker_ckpt": "thinker", "vision_ckpt": "vision", "audio_ckpt": "audio"}
COMPARED = (
    TRAINER,
    "omnitune",
    "  with padded rows",
    "  with every logit",
    "  without shared questions",
    "Trainer, encoding in each step",
)


def check(parts: Path) -> None:
    """Looks whether the parts are there.

    Raises:
        UserError: says which are missing.
    """
    missing = [name for name in PARTS.values() if not (parts / name / "config.json").is_file()]
    if missing:
        raise UserError(
            f"{parts}: has no pretrained {' and no '.join(missing)} (a folder of that name in "
            f"Hugging Face's layout), which the workload {NAME} trains; name the folder of the "
            "three with --parts or OMNITUNE_PARTS"
        )


def recipe(parts: Path) -> SftConfig:
    """The settings that ship, for the parts of a folder."""
    places = {key: str(parts / name) for key, name in PARTS.items()}
    return SftConfig(**json.loads(RECIPE.read_text()) | places | {"output_dir": "unused"})


def make(parts: Path, data_dir: Path, steps: int) -> Bench:
    """Joins the parts and chooses the samples of so many steps."""
    config = recipe(parts)
    torch.manual_seed(config.seed)
    model, renderer = assemble(
        config.thinker_ckpt, config.encoders, config.encoder_settings, config.projectors
    )
    assert config.lora is not None
    add_adapters(model, config.lora)
    model.freeze_encoders()
    bf16 = precision.has_bf16_units()
    formats = config.model_copy(update={"precision": "auto" if bf16 else "fp32"})
    precision.set_formats(formats, model, model.device)
    found = read_available(data_dir, config.source_names)
    training = {name: split_of(samples, "train") for name, samples in found.items()}
    sizes = {name: len(samples) for name, samples in training.items()}
    mixture = Mixture(sizes, config.data_mix.weights(), seed=config.seed)
    return Bench(
        model,
        renderer,
        training,
        mixture,
        batch_size=config.batch_size,
        settings=config,
        rates=peak_rates(config, model),
        questions=config.max_questions_per_sample,
        bf16=bf16,
        peer=Peer(share=1.0, cached=True, own_settings=False),
        drawn=steps * config.batch_size,
        passes=(config.max_steps or 0) * config.batch_size / mixture.epoch_size,
    )
