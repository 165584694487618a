"""Configuration: a JSON file, then the command line, checked together and reported at once."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from omnitune.sample import SOURCES, UserError


class Config(BaseModel):
    """Base of every configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``true`` is no 1: it is what an option without its value would be read as."""
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError("a value is missing")
        return value


class RunConfig(Config):
    """What every training stage shares."""

    step_prefix: ClassVar[str] = "step_"  # of the names of step checkpoints

    data_dir: Path = Field(Path("data/multimodal"), description="folder of the data")
    output_dir: Path | None = Field(
        None, description="where results go [checkpoints/<name of the config file>]"
    )
    seed: int = Field(0, ge=0, description="seeds weights, order of samples and augmentation")
    batch_size: int = Field(8, ge=1, description="samples per micro-batch")
    gradient_accumulation: int = Field(1, ge=1, description="micro-batches per step")
    num_epochs: int = Field(5, ge=1, description="passes over as many samples as there are")
    max_steps: int | None = Field(None, ge=1, description="stop after so many steps")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="peak rate after warm-up")
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="rate at the end, as share of peak")
    weight_decay: float = Field(0.01, ge=0, description="AdamW; none on norms and biases")
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
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    workers: int | None = Field(
        None, ge=1, description="processes that share each step on a CPU [one a core where it pays]"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the forward pass; auto: bf16 where the hardware is faster in it"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="the thinker's layers; auto: where the run is long enough to repay it"
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

    @model_validator(mode="after")
    def _some_weight(self) -> DataMix:
        if not self.weights():
            raise ValueError("every weight is 0; give at least one source a weight above 0")
        return self

    def weights(self) -> dict[str, float]:
        """Weight by source, of the sources that have any."""
        return {name: getattr(self, name) for name in SOURCES if getattr(self, name) > 0}


def questions_per_draw() -> Any:
    """The field of this name, of the stages that ask the questions of records."""
    return Field(
        7,
        ge=1,
        description="of a record's independent questions, at most so many at a time, drawn anew",
    )


def length_power() -> Any:
    """The field of this name, of the stages that learn answers of all lengths."""
    return Field(
        0.0,
        ge=0,
        le=1,
        description="in the loss an answer of n tokens weighs n^(1 - this): 0 by tokens, 1 alike",
    )


def tokens_per_batch() -> Any:
    """The field of this name, of the stages whose batches are rows of tokens."""
    return Field(
        None, ge=16, description="in place of batch_size: about so many tokens, of like length"
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
    freeze_encoders: bool = Field(True, description="keep the encoders as they are")
    data_mix: DataMix = Field(
        DataMix(text_only=0.4, image_text=0.3, audio_text=0.3), description="weight of each source"
    )
    tokens_per_batch: int | None = tokens_per_batch()
    rate_width: int = Field(
        1024,
        ge=1,
        description="width that learning_rate is meant at; a narrower thinker takes more",
    )
    projector_learning_rate: float | None = Field(
        None, gt=0, le=1, description="peak rate of the projectors [2.5 x the thinker's]"
    )
    encoder_learning_rate: float | None = Field(
        None, gt=0, le=1, description="peak rate of unfrozen encoders [learning_rate]"
    )
    conversation_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="how often the questions of one record are one conversation, not each alone",
    )
    questions_per_draw: int | None = questions_per_draw()
    length_power: float = length_power()
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
    probe_questions: int = Field(16, ge=1, description="held-out questions a task, each log_every")
    epoch_questions: int = Field(100, ge=1, description="held-out questions a task, each epoch")

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


def check_heads(
    width: int, heads: int, width_name: str = "hidden_size", heads_name: str = "num_heads"
) -> None:
    """Raises ValueError unless attention heads divide the width evenly."""
    if width % heads:
        raise ValueError(f"{width_name} {width} is not a multiple of {heads_name} {heads}")


C = TypeVar("C", bound=Config)


def load_config(cls: type[C], path: Path | None, arguments: list[str]) -> C:
    """Reads a configuration file, lays command-line overrides over it and checks the whole.

    Args:
        cls: the configuration class.
        path: JSON file, or None for defaults only.
        arguments: overrides such as ``["--learning-rate", "3e-4", "--data-mix.image-text", "1"]``.

    Raises:
        UserError: lists every unknown or out-of-range key of file and command line at once.
    """
    values = read_json_object(path) if path else {}
    origin = dict.fromkeys(values, str(path))
    for key, value in _parse_overrides(cls, arguments):
        field = cls.model_fields.get(key[0])
        if len(key) > 1 and key[0] not in values and field and isinstance(field.default, Config):
            values[key[0]] = field.default.model_dump()
        _assign(values, key, value)
        origin[".".join(key)] = "command line"
        origin.setdefault(key[0], "command line")
    if "output_dir" in cls.model_fields and values.get("output_dir") is None and path:
        values["output_dir"] = str(Path("checkpoints") / path.stem)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [_explain(cls, problem, origin) for problem in error.errors()]
        where = str(path) if path else "command line"
        raise UserError(f"{where}: {len(lines)} problem(s):\n  " + "\n  ".join(lines)) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that must hold one object; a UserError names what is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the examples are in configs/") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a JSON {type(values).__name__}, expected an object {{...}}")
    return values


def option_table(cls: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """Rows of (option, default, description) for ``--help``."""
    rows = []
    for name, info in cls.model_fields.items():
        option = f"{prefix}{name.replace('_', '-')}"
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            rows += [
                (o, "", info.description or "") for o, _, _ in option_table(inner, option + ".")
            ]
            continue
        default = "" if info.is_required() or info.default is None else str(info.default)
        rows.append((option, default, info.description or ""))
    return rows


def _parse_overrides(cls: type[BaseModel], arguments: list[str]) -> list[tuple[list[str], Any]]:
    """Turns ``--a.b-c value``, ``--a=value``, ``--flag`` and ``--no-flag`` into (path, value)."""
    overrides: list[tuple[list[str], Any]] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("--"):
            raise UserError(
                f"{argument!r} is not an option; options look like --learning-rate 3e-4"
            )
        name, equals, text = argument[2:].partition("=")
        key = name.replace("-", "_").split(".")
        if not equals:
            if position < len(arguments) and not arguments[position].startswith("--"):
                text = arguments[position]
                position += 1
            elif key[0].startswith("no_") and key[0] not in cls.model_fields:
                key, text = [key[0][3:]], "false"
            else:
                text = "true"
        overrides.append((key, text if _wants_text(cls, key) else _parse_value(text)))
    return overrides


def _wants_text(cls: type[BaseModel], key: list[str]) -> bool:
    """Whether an option is a path: ``--output-dir 2026`` is one, not a number."""
    field = cls.model_fields.get(key[0])
    return field is not None and (field.annotation is Path or Path in get_args(field.annotation))


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _assign(values: dict[str, Any], key: list[str], value: Any) -> None:
    for name in key[:-1]:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, dict) else {}
        values = values[name]
    values[key[-1]] = value


def _explain(cls: type[BaseModel], problem: Any, origin: dict[str, str]) -> str:
    """One line for one of pydantic's problems: key, what was found, what was expected."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    where = origin.get(key) or origin.get(path[0] if path else "", "")
    suffix = f" ({where})" if where else ""
    if problem["type"] != "extra_forbidden":
        found = "" if problem["type"] == "missing" else f", found {problem['input']!r}"
        if not path:  # a check of several keys together says which in its own words
            return str(problem["msg"]).removeprefix("Value error, ")
        return f"{key}: {problem['msg'].removeprefix('Value error, ')}{found}{suffix}"
    known: list[str] = list(cls.model_fields)
    for name in path[:-1]:
        inner = cls.model_fields[name].annotation
        known = list(inner.model_fields) if isinstance(inner, type) else []
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"; did you mean {'.'.join([*path[:-1], close[0]])}?" if close else ""
    return f"{key}: unknown key{hint}{suffix}"
