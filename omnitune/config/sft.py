"""The settings of the joint fine-tuning: parts, mix of sources, phases, length limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    RootModel,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from omnitune.config.base import Config, Count, Fraction, Language, Rate, Share
from omnitune.config.lora import LoraSettings
from omnitune.config.parallel import ParallelSettings
from omnitune.config.run import RunConfig
from omnitune.config.settings import UNKNOWN_NAME
from omnitune.config.sources import NewName, SourceName, SourceSettings, Weight, own_names
from omnitune.sources import SOURCES, Source

# By medium, the settings of encoders that have one of their own.
ENCODER_KEYS = {"image": "vision_ckpt", "audio": "audio_ckpt"}


MediumName = Annotated[str, Field(title="MEDIUM")]
SettingName = Annotated[str, Field(title="SETTING")]


class DataMix(RootModel[dict[SourceName, Weight]]):
    """Sampling weight of each source; they need not sum to one."""

    @model_validator(mode="after")
    def _keep_positive_weights(self) -> DataMix:
        self.root = {name: weight for name, weight in self.root.items() if weight > 0}
        if not self.root:
            raise ValueError("every weight is 0; give at least one source a weight above 0")
        return self

    def weights(self) -> dict[str, float]:
        """Weight by source, those of the registry first, in its order; each is above 0."""
        registered = {name: self.root[name] for name in SOURCES if name in self.root}
        return registered | {name: self.root[name] for name in self.root if name not in registered}


class Phase(Config):
    """A part of the run; what it leaves out is as the run has it."""

    until: Fraction | None = None
    """end of the phase, as a fraction of the run's steps [default: 1, for the last phase only]"""
    train: list[str] | None = Field(None, min_length=1)
    """parts of the model to train; all others are frozen [default: as freeze_encoders says]"""
    learning_rate: Rate | None = None
    """peak learning rate of the phase; the rates of projectors and encoders keep their ratio to it
    [default: the run's]"""
    data_mix: DataMix | None = None
    """sampling weight of each source [default: the run's]"""
    max_difficulty: Fraction | None = None
    """largest difficulty of a sample; the phase leaves out harder ones [default: no limit]"""


class SftConfig(RunConfig):
    """Stage E, the joint fine-tuning."""

    step_prefix: ClassVar[str] = "omni_step_"

    thinker_ckpt: Path = Path("checkpoints/thinker_tiny/thinker_best.pt")
    """the thinker, the language model: a checkpoint, a folder in Hugging Face's layout, or a
    repository of the Hub (owner/name, owner/name@revision)"""
    audio_ckpt: Path | None = Path("checkpoints/audio_enc_tiny/audio_enc.pt")
    """the audio encoder, likewise; null for a model that does not hear"""
    vision_ckpt: Path | None = Path("checkpoints/vision_tiny/vision.pt")
    """the vision encoder, likewise; null for a model that does not see"""
    encoder_ckpts: dict[MediumName, Path] = Field({})
    """by medium, checkpoints of the encoders of further media"""
    chat_template: str | None = None
    """chat template of a thinker from a pretrained folder: plain, or a file of Jinja [default: its
    own]"""
    thinker_dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """number format in which the thinker's weights are kept while they are frozen; auto keeps that
    of a pretrained folder; weights that are trained are fp32"""
    encoder_dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """number format in which the encoders' weights are kept while they are frozen; as above"""
    save_whole: bool | None = None
    """whether omni.pt holds the weights of pretrained parts that were not trained; otherwise it
    names their folder and checks them when it is loaded [default: of parts below 500 MB]"""
    freeze_encoders: bool = True
    """freeze the encoders, except in phases that train them"""
    lora: LoraSettings | None = None
    """low-rank adapters in place of full fine-tuning, an object with the keys below; {} takes their
    defaults [default: none, the thinker itself is trained]"""
    data_mix: DataMix = DataMix(text_only=0.4, image_text=0.3, audio_text=0.3)
    """sampling weight of each source; where sources are given, theirs are the default"""
    sources: dict[NewName, SourceSettings] = Field({})
    """by name, own sources of records, each an object with the keys below"""
    phases: list[Phase] = Field([])
    """list of the run's phases, each an object with the keys below"""
    curriculum: Share = 0.0
    """curriculum: the fraction of the run over which harder samples join, starting with the easiest
    half of each source; 0 for none"""
    adaptive_mix: Literal["none", "loss", "score"] = "none"
    """adaptive sampling: it gives more weight to the sources whose held-out loss or score lags
    behind"""
    tokens_per_batch: int | None = Field(None, ge=16, le=1 << 28)
    """approximate number of tokens per micro-batch, from samples of similar length; it replaces
    batch_size [default: batches of batch_size samples]"""
    lr_base_width: Count = 512
    """width of the thinker for which learning_rate is meant; a narrower thinker gets a
    proportionally larger rate"""
    projector_learning_rate: Rate | None = None
    """peak learning rate of the projectors [default: 2.5 times the thinker's]"""
    encoder_learning_rate: Rate | None = None
    """peak learning rate of encoders that are trained [default: learning_rate]"""
    multi_turn_prob: Share = 0.2
    """probability that a record's independent questions form one conversation; otherwise each is
    asked alone"""
    max_questions_per_sample: Count | None = 7
    """largest number of a record's independent questions in one sample; null for no limit"""
    fresh_questions: bool = True
    """choose new questions in each epoch, where a record has more than max_questions_per_sample"""
    loss_length_exponent: Share = 0.0
    """loss weighting by answer length: an answer of n tokens has the total weight n^(1 - x); 0
    weighs all tokens alike, 1 weighs all answers alike"""
    languages: dict[SourceName, Language] = Field({})
    """by source, the language code of answers whose records name none, such as hi; scoring compares
    answers by that language's rules [default: English, for answers in Latin letters]"""
    max_tokens: int = Field(1024, ge=16)
    """largest length of a sample in tokens, media included"""
    too_long: Literal["refuse", "leave_out"] = "refuse"
    """what happens to a sample above max_tokens; leave_out lists it in truncation.json"""
    bad_samples: Literal["error", "skip"] = "error"
    """what happens to a record that is wrong, or whose media cannot be used; skip leaves it out and
    counts it in results.json"""
    max_bad_samples: Share = 0.05
    """with bad_samples skip: largest share of all records to leave out; above it the run stops"""
    encoder_settings: dict[MediumName, dict[SettingName, Any]] = Field({})
    """by medium, settings of its encoder in place of the checkpoint's own; for audio: max_seconds,
    the largest length of a clip, and long_audio, refuse or split (cut longer clips at pauses, keep
    every piece)"""
    projectors: dict[MediumName, dict[SettingName, Any]] = Field({})
    """by medium, its projector: type (mlp, linear, pixel_shuffle_mlp, stack_mlp, resampler,
    identity, grid_mlp) and that type's settings (docs/models.md) [default: the encoder's own
    choice]"""
    feature_cache: Literal["auto", "on", "off"] = "auto"
    """cache of encoder features, which encodes each medium once; auto uses it where the encoders
    are frozen and it saves time"""
    activation_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, a third slower"""
    parallel: ParallelSettings = ParallelSettings()
    """how the processes that torchrun starts share the run, an object with the keys below"""
    max_interpolation: Share = 0.5
    """largest share of the starting thinker's weights that is interpolated into the final ones; the
    run takes the share with the lowest validation loss, 0 turns it off"""
    probe_questions: Count = 16
    """held-out questions per task that are scored every log_every steps"""
    epoch_questions: Count = 100
    """held-out questions per task that are scored after each epoch"""

    @model_validator(mode="wrap")
    @classmethod
    def _know_own_sources(cls, values: Any, check: ModelWrapValidatorHandler[SftConfig]) -> Any:
        """Names of own sources may stand wherever one is asked for; their weights join the mix."""
        given = values.get("sources") if isinstance(values, dict) else {}
        own = given if isinstance(given, dict) else {}
        token = own_names.set(tuple(own))
        try:
            mix = values.get("data_mix", {}) if own else None
            if isinstance(mix, dict):
                described = {n: v for n, v in own.items() if isinstance(v, dict)}
                weights = {name: v.get("weight", 1.0) for name, v in described.items()}
                values = values | {"data_mix": weights | mix}
            return check(values)
        finally:
            own_names.reset(token)

    @field_validator("phases", mode="wrap")
    @classmethod
    def _check_phase_order(cls, value: Any, check: ValidatorFunctionWrapHandler) -> list[Phase]:
        """Adds what is wrong between phases to what is wrong within them; fills in the last end."""
        problems: list[InitErrorDetails] = []
        try:
            phases = check(value)
        except ValidationError as error:
            phases = []
            problems = [
                InitErrorDetails(
                    type=_error_type(e), loc=e["loc"], input=e["input"], ctx=e.get("ctx", {})
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
    def source_names(self) -> list[str]:
        """The sources that have weight at any time of the run, those of the registry first."""
        given = {name for mix in self.mixes for name in mix.weights()}
        return [name for name in (*SOURCES, *self.sources) if name in given]

    @property
    def own_sources(self) -> dict[str, Source]:
        """The run's own sources, by name."""
        return {name: held.source(name, self.seed) for name, held in self.sources.items()}

    @property
    def encoders(self) -> dict[str, Path]:
        """Checkpoint of the encoder of each medium that the model reads."""
        given = {name: getattr(self, key) for name, key in ENCODER_KEYS.items()}
        given |= self.encoder_ckpts
        return {name: path for name, path in given.items() if path is not None}

    def encoder_key(self, medium: str) -> str:
        """The setting that names a medium's encoder."""
        return ENCODER_KEYS.get(medium, f"encoder_ckpts.{medium}")


def _error_type(problem: Any) -> str | PydanticCustomError:
    """The type of one of pydantic's problems, so that it can be raised again."""
    if problem["type"] == UNKNOWN_NAME:  # ours: pydantic knows no template for it
        return PydanticCustomError(UNKNOWN_NAME, problem["msg"], problem["ctx"])
    return problem["type"]


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
