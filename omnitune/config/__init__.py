"""Configuration: what can be set, and within which limits; ``settings.py`` reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from omnitune.config.settings import Traced, nearest
from omnitune.config.settings import load_config as load_config
from omnitune.config.settings import option_table as option_table
from omnitune.config.settings import read_json_object as read_json_object
from omnitune.sample import UserError
from omnitune.sources import SOURCES

LARGEST_SEED = 2**63 - 1  # that every generator takes


class Config(Traced):
    """Base of every configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``true`` is no 1: it is what an option without its value would be read as.

        Nor is an empty text a path: it would be the folder where the command is given.
        """
        annotation = cls.model_fields[str(info.field_name)].annotation
        is_path = annotation is Path or Path in get_args(annotation)
        if (isinstance(value, bool) and annotation is not bool) or (is_path and value == ""):
            raise ValueError("a value is missing")
        return value


class RunConfig(Config):
    """What every training stage shares."""

    step_prefix: ClassVar[str] = "step_"  # of the names of step checkpoints

    data_dir: Path = Field(Path("data/multimodal"), description="folder of the data")
    output_dir: Path | None = Field(
        None, description="where results go [checkpoints/<name of the config file>]"
    )
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="seeds weights, order of samples and augmentation"
    )
    batch_size: int = Field(8, ge=1, le=65_536, description="samples per micro-batch")
    gradient_accumulation: int = Field(1, ge=1, le=65_536, description="micro-batches per step")
    num_epochs: int = Field(
        5, ge=1, le=1_000_000, description="passes over as many samples as there are"
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="stop after so many steps, whatever num_epochs says",
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="peak rate after warm-up")
    warmup_steps: int = Field(
        500,
        ge=0,
        le=10_000_000,
        description="steps of linear warm-up; of no more than a tenth of the run",
    )
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="rate at the end, as share of peak")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW; none on norms and biases")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: orthogonalised steps for hidden matrices, AdamW for the rest"
    )
    muon_learning_rate: float = Field(
        0.02, gt=0, le=1, description="muon's peak rate, where learning_rate is AdamW's"
    )
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second-moment decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm above which to clip")
    log_every: int = Field(50, ge=1, description="steps between two lines of scores")
    save_every: int = Field(500, ge=1, description="steps between two checkpoints")
    keep_checkpoints: int = Field(3, ge=1, description="newest checkpoints kept")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to train; auto: on a GPU where there is one"
    )
    workers: int | None = Field(
        None, ge=1, description="processes that share each step on a CPU [one a core where it pays]"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the forward pass; auto: bf16 where the hardware is faster in it"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="the thinker's layers; auto: where that is faster and the run long enough",
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        ["tensorboard"],
        description="where the curves go as the run does, such as wandb,tensorboard",
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def _names_in_a_row(cls, value: Any) -> Any:
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


class DataMix(Config):
    """Weight of each source; they need not sum to one."""

    text_only: float = Field(0.0, ge=0)
    image_text: float = Field(0.0, ge=0)
    audio_text: float = Field(0.0, ge=0)
    image_audio_text: float = Field(0.0, ge=0)
    described: float = Field(0.0, ge=0)
    captions: float = Field(0.0, ge=0)
    digit_grids: float = Field(0.0, ge=0)
    transcripts: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _some_weight(self) -> DataMix:
        if not self.weights():
            raise ValueError("every weight is 0; give at least one source a weight above 0")
        return self

    def weights(self) -> dict[str, float]:
        """Weight by source, of the sources that have any."""
        return {name: getattr(self, name) for name in SOURCES if getattr(self, name) > 0}


def max_questions_per_sample() -> Any:
    """The field of this name, of the stages that ask the questions of records."""
    return Field(
        7,
        ge=1,
        description="of a record's independent questions, at most so many at a time",
    )


def loss_length_exponent(default: float = 0.0) -> Any:
    """The field of this name, of the stages that learn answers of all lengths."""
    return Field(
        default,
        ge=0,
        le=1,
        description="in the loss an answer of n tokens weighs n^(1 - this): 0 by tokens, 1 alike",
    )


# Parts of the joint model, under the names by which a phase trains them.
ModelPart = Literal["thinker", "proj_v", "proj_a", "vision_encoder", "audio_encoder"]


class Phase(Config):
    """A part of the run; what it leaves out is as the run has it."""

    until: float | None = Field(
        None, gt=0, le=1, description="share of the run's steps at which it ends [the last: 1]"
    )
    train: list[ModelPart] | None = Field(
        None, min_length=1, description="parts that are trained; the others are frozen"
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="in place of the run's; the other rates keep their ratio"
    )
    data_mix: DataMix | None = Field(None, description="in place of the run's")
    max_difficulty: float | None = Field(
        None, gt=0, le=1, description="harder samples are left out"
    )


def tokens_per_batch() -> Any:
    """The field of this name, of the stages whose batches are rows of tokens."""
    return Field(
        None,
        ge=16,
        le=1 << 28,
        description="in place of batch_size: about so many tokens, of like length",
    )


class SftConfig(RunConfig):
    """Stage E, the joint fine-tuning."""

    step_prefix: ClassVar[str] = "omni_step_"

    thinker_ckpt: Path = Field(
        Path("checkpoints/thinker_tiny/thinker_best.pt"), description="the thinker of stage A"
    )
    audio_ckpt: Path = Field(
        Path("checkpoints/audio_enc_tiny/audio_enc.pt"), description="audio encoder of stage B"
    )
    vision_ckpt: Path = Field(
        Path("checkpoints/vision_tiny/vision.pt"), description="vision encoder of stage C"
    )
    freeze_encoders: bool = Field(
        True, description="keep the encoders as they are, where no phase trains them"
    )
    data_mix: DataMix = Field(
        DataMix(text_only=0.4, image_text=0.3, audio_text=0.3), description="weight of each source"
    )
    phases: list[Phase] = Field(
        [], description="stretches of the run with parts, rate, mix or difficulty of their own"
    )
    curriculum: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the run over which harder samples join, from the easiest half on",
    )
    adaptive_mix: Literal["none", "loss", "score"] = Field(
        "none", description="shift weight to the source that lags, by held-out loss or score"
    )
    tokens_per_batch: int | None = tokens_per_batch()
    lr_base_width: int = Field(
        512,
        ge=1,
        description="width that learning_rate is meant at; a narrower thinker takes more",
    )
    projector_learning_rate: float | None = Field(
        None, gt=0, le=1, description="peak rate of the projectors [2.5 x the thinker's]"
    )
    encoder_learning_rate: float | None = Field(
        None, gt=0, le=1, description="peak rate of unfrozen encoders [learning_rate]"
    )
    multi_turn_prob: float = Field(
        0.2,
        ge=0,
        le=1,
        description="how often the questions of one record are one conversation, not each alone",
    )
    max_questions_per_sample: int | None = max_questions_per_sample()
    fresh_questions: bool = Field(
        True, description="of a record with more questions, others in each pass"
    )
    loss_length_exponent: float = loss_length_exponent()
    languages: dict[str, str] = Field(
        {},
        description="by source, the language of answers whose records do not say it, such as hi; "
        "scores compare answers by its rules [English, unless the letters are others]",
    )
    max_tokens: int = Field(1024, ge=16, description="longest sample, media included")
    too_long: Literal["refuse", "leave_out"] = Field(
        "refuse", description="samples above max_tokens; what is left out is in truncation.json"
    )
    long_audio: Literal["refuse", "split"] = Field(
        "refuse", description="clips above the limit; split: in pauses, nothing is lost"
    )
    max_audio_seconds: float | None = Field(
        None, ge=1, description="longest clip or piece that is encoded [the encoder's own: 30]"
    )
    feature_cache: Literal["auto", "on", "off"] = Field(
        "auto", description="encode each medium once; auto: if the encoders are frozen and it pays"
    )
    activation_checkpointing: bool = Field(
        False,
        description="keep less for the backward pass: less memory, a third slower",
    )
    max_interpolation: float = Field(
        0.5,
        ge=0,
        le=1,
        description="at the end a share of the starting thinker is blended in: the one with the "
        "least validation loss, up to this; 0: none",
    )
    probe_questions: int = Field(16, ge=1, description="held-out questions a task, each log_every")
    epoch_questions: int = Field(100, ge=1, description="held-out questions a task, each epoch")

    @field_validator("languages")
    @classmethod
    def _codes_by_source(cls, value: dict[str, str]) -> dict[str, str]:
        for source, code in value.items():
            if source not in SOURCES:
                near = nearest(source, SOURCES)
                hint = f"; did you mean {near}?" if near else ""
                raise ValueError(f"{source!r} is no source ({', '.join(SOURCES)}){hint}")
            check_language(code)
        return value

    @field_validator("phases", mode="wrap")
    @classmethod
    def _phases_follow_each_other(
        cls, value: Any, check: ValidatorFunctionWrapHandler
    ) -> list[Phase]:
        """Adds what is wrong between phases to what is wrong within them; fills in the last end."""
        problems: list[InitErrorDetails] = []
        try:
            phases = check(value)
        except ValidationError as error:
            phases = []
            problems = [
                InitErrorDetails(
                    type=e["type"], loc=e["loc"], input=e["input"], ctx=e.get("ctx", {})
                )
                for e in error.errors()
            ]
        problems += _wrong_ends(value if isinstance(value, list) else [])
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return [*phases[:-1], *(p.model_copy(update={"until": 1.0}) for p in phases[-1:])]

    @property
    def mixes(self) -> list[DataMix]:
        """The mix of each phase; one without phases."""
        return [phase.data_mix or self.data_mix for phase in self.phases] or [self.data_mix]

    @property
    def sources(self) -> list[str]:
        """The sources that have weight at any time of the run."""
        return [name for name in SOURCES if any(name in mix.weights() for mix in self.mixes)]

    @property
    def encoder_ckpts(self) -> dict[str, Path]:
        """Checkpoint of each modality's encoder."""
        return {"image": self.vision_ckpt, "audio": self.audio_ckpt}

    @property
    def encoder_settings(self) -> dict[str, dict[str, Any]]:
        """By modality, what is laid over the settings in its encoder's checkpoint."""
        audio: dict[str, Any] = {"long_audio": "split"} if self.long_audio == "split" else {}
        if self.max_audio_seconds is not None:
            audio["max_seconds"] = self.max_audio_seconds
        return {"audio": audio}


def check_language(code: str) -> str:
    """A code of a language, such as ``hi`` or ``pt-BR``.

    Raises:
        ValueError: it cannot be one.
    """
    if not re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*", code):
        raise ValueError(f"{code!r} is no code of a language; expected one such as en, hi or pt-BR")
    return code


def _wrong_ends(phases: list[Any]) -> list[InitErrorDetails]:
    """What is wrong with the phases' ends, which must rise from above 0 to 1."""
    ends = [p.get("until") if isinstance(p, dict) else getattr(p, "until", None) for p in phases]
    found: list[tuple[int, str]] = []
    before = 0.0
    for n, end in enumerate(ends):
        last = n == len(ends) - 1
        if end is None and not last:
            found.append((n, "a value is missing; only the last phase may leave it out"))
        elif last and end not in (None, 1):
            found.append((n, "the last phase ends at 1"))
        elif isinstance(end, int | float):
            if end <= before:
                found.append((n, f"must be above {before:g}, where the phase before it ends"))
            before = end
    return [
        InitErrorDetails(
            type=PydanticCustomError("phase_end", text),
            loc=(n, "until"),
            input=ends[n],
        )
        for n, text in found
    ]


def check_heads(
    width: int, heads: int, width_name: str = "hidden_size", heads_name: str = "num_heads"
) -> None:
    """Raises ValueError unless attention heads divide the width evenly."""
    if width % heads:
        raise ValueError(f"{width_name} {width} is not a multiple of {heads_name} {heads}")
