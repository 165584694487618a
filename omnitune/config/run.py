"""The settings and options of every training stage, and fields that several stages have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from omnitune.config.base import Config, Count, Rate, Seed, Share
from omnitune.sample import UserError


class RunOptions(Config):
    """Options of the training commands beside the settings of the run."""

    config: list[Path] = Field(
        [], title="FILE ...", description="JSON file of settings; the options override it"
    )
    resume: bool = Field(False, description="go on from the newest checkpoint of the run")
    overwrite: bool = Field(False, description="replace the run in the output folder by a new one")

    @model_validator(mode="after")
    def _one_of_both(self) -> RunOptions:
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume goes on with the run that is there, --overwrite replaces it; give one of "
                "them"
            )
        return self

    @property
    def flags(self) -> dict[str, bool]:
        """What to do about a run that is there."""
        return {"resume": self.resume, "overwrite": self.overwrite}


class RunConfig(Config):
    """What every training stage shares."""

    own_options: ClassVar[tuple[str, ...]] = tuple(RunOptions.model_fields)
    step_prefix: ClassVar[str] = "step_"  # of the names of step checkpoints

    data_dir: Path = Field(Path("data/multimodal"), description="folder of the training data")
    output_dir: Path | None = Field(
        None,
        description="folder for checkpoints, logs and results [default: checkpoints/NAME, after "
        "the configuration file NAME.json]",
    )
    seed: Seed = Field(
        0,
        description="random seed of the initial weights, the order of the samples and the "
        "augmentation",
    )
    batch_size: int = Field(8, ge=1, le=65_536, description="samples per micro-batch")
    gradient_accumulation: int = Field(
        1, ge=1, le=65_536, description="micro-batches per optimiser step"
    )
    num_epochs: Count = Field(
        5,
        description="number of epochs; an epoch draws as many samples as there are for training",
    )
    max_steps: Count | None = Field(
        None,
        description="number of optimiser steps after which the run ends; it overrides num_epochs "
        "[default: no limit]",
    )
    learning_rate: Rate = Field(1e-4, description="peak learning rate, reached after the warm-up")
    warmup_steps: int = Field(
        500,
        ge=0,
        le=10_000_000,
        description="steps of linear learning rate warm-up; a tenth of the run at most",
    )
    min_lr_ratio: Share = Field(
        0.1,
        description="learning rate at the end of the cosine decay, as a fraction of the peak",
    )
    weight_decay: float = Field(
        0.01, ge=0, le=10, description="decoupled weight decay; norms and biases have none"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="optimiser; muon orthogonalises the updates of hidden matrices and leaves all "
        "other weights to AdamW",
    )
    muon_learning_rate: Rate = Field(
        0.02,
        description="peak learning rate of Muon; learning_rate then applies to the AdamW groups",
    )
    adam_beta2: float = Field(
        0.95, ge=0, lt=1, description="decay rate of AdamW's second-moment estimates"
    )
    max_grad_norm: float = Field(
        1.0, gt=0, description="gradient clipping: the largest norm of all gradients together"
    )
    log_every: Count = Field(50, description="steps between two lines of the log")
    save_every: Count = Field(500, description="steps between two checkpoints")
    keep_checkpoints: Count = Field(
        3, description="number of newest step checkpoints to keep; older ones are deleted"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device to train on; auto takes a GPU if there is one"
    )
    workers: Count | None = Field(
        None,
        description="number of data-parallel processes on a CPU [default: one per core where that "
        "is faster, else 1]",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="number format of the forward pass; bf16 is mixed precision, auto takes it "
        "where the hardware computes faster in it",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compilation of the thinker's layers by torch.compile; auto compiles where "
        "that is faster and the run is long enough to repay it",
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        ["tensorboard"],
        description="experiment trackers that receive the curves, separated by commas; an empty "
        "value for none",
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """On the command line: names with commas between them; nothing for none."""
        if not isinstance(value, str):
            return value
        return [name.strip() for name in value.split(",") if name.strip()]

    @property
    def out(self) -> Path:
        """The output folder, resolved by :func:`load_config`."""
        if self.output_dir is None:
            raise UserError("output_dir is not set; give --output-dir DIR")
        return self.output_dir
