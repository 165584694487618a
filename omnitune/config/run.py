"""The settings and options of every training stage, and fields that several stages have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from omnitune.config.base import Config, Count, Rate, Seed, Share, split_names
from omnitune.sample import UserError


class RunOptions(Config):
    """Options of the training commands beside the settings of the run."""

    config: list[Path] = Field([], title="FILE ...")
    """JSON file of settings; the options override it"""
    resume: bool = False
    """go on from the newest checkpoint of the run"""
    overwrite: bool = False
    """replace the run in the output folder by a new one"""

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

    data_dir: Path = Path("data/multimodal")
    """folder of the training data"""
    output_dir: Path | None = None
    """folder for checkpoints, logs and results [default: checkpoints/NAME, after the configuration
    file NAME.json]"""
    seed: Seed = 0
    """random seed of the initial weights, the order of the samples and the augmentation"""
    batch_size: int = Field(8, ge=1, le=65_536)
    """samples per micro-batch"""
    gradient_accumulation: int = Field(1, ge=1, le=65_536)
    """micro-batches per optimiser step"""
    num_epochs: Count = 5
    """number of epochs; an epoch draws as many samples as there are for training"""
    max_steps: Count | None = None
    """number of optimiser steps after which the run ends; it overrides num_epochs [default: no
    limit]"""
    learning_rate: Rate = 1e-4
    """peak learning rate, reached after the warm-up"""
    warmup_steps: int = Field(500, ge=0, le=10_000_000)
    """steps of linear learning rate warm-up; a tenth of the run at most"""
    min_lr_ratio: Share = 0.1
    """learning rate at the end of the cosine decay, as a fraction of the peak"""
    weight_decay: float = Field(0.01, ge=0, le=10)
    """decoupled weight decay; norms and biases have none"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """optimiser; muon orthogonalises the updates of hidden matrices and leaves all other weights to
    AdamW"""
    muon_learning_rate: Rate = 0.02
    """peak learning rate of Muon; learning_rate then applies to the AdamW groups"""
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    """decay rate of AdamW's second-moment estimates"""
    max_grad_norm: float = Field(1.0, gt=0)
    """gradient clipping: the largest norm of all gradients together"""
    log_every: Count = 50
    """steps between two lines of the log"""
    save_every: Count = 500
    """steps between two checkpoints"""
    keep_checkpoints: Count = 3
    """number of newest step checkpoints to keep; older ones are deleted"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """device to train on; auto takes a GPU if there is one"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format of the forward pass; bf16 is mixed precision, auto takes it where the hardware
    computes faster in it"""
    compile: Literal["auto", "on", "off"] = "auto"
    """compilation of the thinker's layers by torch.compile; auto compiles where that is faster and
    the run is long enough to repay it"""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(["tensorboard"])
    """experiment trackers that receive the curves, separated by commas; an empty value for none"""

    @field_validator("trackers", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """On the command line: names with commas between them; nothing for none."""
        return split_names(value)

    @property
    def out(self) -> Path:
        """The output folder, resolved by :func:`load_config`."""
        if self.output_dir is None:
            raise UserError("output_dir is not set; give --output-dir DIR")
        return self.output_dir
