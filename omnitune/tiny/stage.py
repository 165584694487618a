"""What stages A to C share: the shared loop, a held-out score, and keeping the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator
from tokenizers import Tokenizer
from torch import manual_seed, nn

from omnitune.config.base import Count
from omnitune.config.parallel import world_size
from omnitune.config.run import RunConfig
from omnitune.data.reading import data_files, read_available, split_of
from omnitune.encoders.vocab_head import VocabHead
from omnitune.media.registry import MEDIA
from omnitune.models.loading import MADE_BY, save_encoder, vocabulary
from omnitune.sample import Message, Sample, Text, UserError
from omnitune.sources import SOURCES
from omnitune.storage import write_json
from omnitune.tiny.ready import TOKENIZER_FILE
from omnitune.training import checkpoint, precision
from omnitune.training.loop import train
from omnitune.training.optim import build_optimizer
from omnitune.training.output_dir import finish, prepare_output_dir
from omnitune.training.progress import RunLog
from omnitune.training.run import BatchAt, LossBatch, Plan, Run

Scores = dict[str, Any]


class StageConfig(RunConfig):
    """What stages A to C share, beside what every run has.

    Attributes:
        checkpoint: name of the file that the best state is kept in.
    """

    checkpoint: ClassVar[str]

    optimizer: Literal["adamw", "muon"] = "muon"
    hidden_size: int = Field(128, ge=16)
    """width of the hidden states"""
    num_layers: Count = 4
    """number of layers"""
    num_heads: Count = 4
    """number of attention heads"""
    intermediate_size: int = Field(384, ge=16)
    """width of the feed-forward layers"""

    @model_validator(mode="after")
    def _heads_fit(self) -> StageConfig:
        check_heads(self.hidden_size, self.num_heads)
        return self


class EncoderConfig(StageConfig):
    """What the stages of the encoders share."""

    tokenizer: Path = Path("checkpoints/thinker_tiny") / TOKENIZER_FILE
    """tokenizer of the thinker, whose subwords the encoder learns to name"""


C = TypeVar("C", bound=StageConfig)


@dataclass
class Stage:
    """One pretraining run.

    Attributes:
        model: ``loss_sums, counts = model(batch)``.
        score: the held-out scores of the model as it is.
        metric: the score by which the best state is told; less is better.
        save_best: writes the model with its scores.
        tokenizer: written before the first step, for the encoders.
        rounded, compile: as those of a :class:`Run`.
    """

    model: nn.Module
    batch_at: BatchAt
    batches_per_epoch: int
    groups: list[str]
    score: Callable[[], Scores]
    metric: str
    save_best: Callable[[Scores], None]
    tokenizer: Tokenizer | None = None
    rounded: Callable[[Any, bool], LossBatch] | None = None
    compile: Callable[[], None] | None = None


def check_heads(
    width: int, heads: int, width_name: str = "hidden_size", heads_name: str = "num_heads"
) -> None:
    """Raises ValueError unless attention heads divide the width evenly."""
    if width % heads:
        raise ValueError(f"{width_name} {width} is not a multiple of {heads_name} {heads}")


def captioned(data_dir: Path, modality: str) -> tuple[list[Sample], list[Sample]]:
    """Each medium that has a caption, with that as the answer: of training, of validation.

    Raises:
        UserError: a split has none.
    """
    found = read_available(data_dir, (name for name in SOURCES if name != "described")).values()
    train, held_out = (
        [one for x in found for s in split_of(x, split) for one in _captions(s, modality)]
        for split in ("train", "validation")
    )
    if not train or not held_out:
        raise UserError(
            f'{data_dir}: needs records with {modality} and a "{MEDIA[modality].caption_key}" in '
            f"the splits train and validation to train an encoder of {modality} on"
        )
    return train, held_out


def _captions(sample: Sample, modality: str) -> Iterator[Sample]:
    media = [m for m in sample.media if m.modality == modality and m.caption]
    for n, medium in enumerate(media):
        name = sample.id if len(media) == 1 else f"{sample.id}/{n}"
        caption = Message("assistant", (Text(medium.caption),))
        yield replace(sample, id=name, messages=(Message("user", (medium,)), caption))


def save_naming_encoder(
    path: Path,
    name: str,
    config: dict[str, Any],
    state: dict[str, Any],
    head: nn.Linear,
    tokenizer: Tokenizer,
    **extra: Any,
) -> None:
    """Writes an encoder with the head that names a tokenizer's words in its rows."""
    config = config | {"words": tokenizer.get_vocab_size()}
    state = state | VocabHead.state_of(head)
    save_encoder(path, name, config, state, vocabulary=vocabulary(tokenizer), **extra)


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.

    Raises:
        UserError: the file is missing or holds none.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such tokenizer; `{MADE_BY['thinker']}` makes it, before its first step"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no class of its own for what it finds wrong
        raise UserError(
            f"{path}: holds no tokenizer that can be read ({error}); "
            f"`{MADE_BY['thinker']} --overwrite` makes it anew"
        ) from None


def pretrain(
    config: C, build: Callable[[C, Path], Stage], resume: bool = False, overwrite: bool = False
) -> Path:
    """Trains a part on the training split; returns the path of its best state.

    Args:
        build: makes the stage of its settings and of that path.
    """
    if world_size() > 1:
        raise UserError("the parts are trained in one process each; start this without torchrun")
    path = config.out / config.checkpoint
    inputs = data_files(config.data_dir)
    if isinstance(config, EncoderConfig):
        inputs["tokenizer"] = config.tokenizer
    folder = prepare_output_dir(config, path, resume, overwrite, inputs)
    if folder is None:
        return path
    manual_seed(config.seed)
    stage = build(config, path)
    folder.open()
    if stage.tokenizer:
        write_json(config.out / TOKENIZER_FILE, json.loads(stage.tokenizer.to_str()))
    _run(config, stage, resume)
    return path


def _run(config: StageConfig, stage: Stage, resume: bool) -> None:
    """Trains, scores after each epoch, and keeps the best state."""
    plan = Plan.of(config, stage.batches_per_epoch)

    def score(step: int, epoch_ended: bool) -> Scores:
        if not epoch_ended:
            return {}
        scores = stage.score()
        best = run.state.get("best")
        if best is None or scores[stage.metric] < best[stage.metric]:
            run.state["best"] = scores
            stage.save_best(scores)
        return scores

    def lines(step: int, entry: dict[str, Any]) -> list[str]:
        if not entry["epoch_ended"]:
            return []
        train_loss = entry["train"].get("loss", math.nan)  # none if every update was left out
        scores = " ".join(f"{name}={value:.3f}" for name, value in entry["validation"].items())
        return [f"Step {step}: train loss={train_loss:.3f} held-out {scores}"]

    nn.Module.to(stage.model, precision.pick_device(config.device))
    run = Run(
        model=stage.model,
        optimizer=build_optimizer(stage.model, config),
        batch_at=stage.batch_at,
        plan=plan,
        config=config,
        log=RunLog(config, stage.groups, lines, max(config.num_epochs, plan.epochs)),
        groups=stage.groups,
        score=score,
        rounded=stage.rounded,
        compile=stage.compile,
    )
    if resume and checkpoint.restore(run):
        print(f"going on from step {run.step} of {plan.total_steps}")
    train(run)
    write_json(config.out / "results.json", run.state["best"])
    finish(config)
