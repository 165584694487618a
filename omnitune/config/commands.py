"""The options of the commands that read a run: apart from what they call, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from omnitune.config.base import Config, Count, Language, split_names


class EvaluateConfig(Config):
    """Options of ``omnitune evaluate``."""

    ckpt_dir: Path
    """folder or file of the model"""
    data: Path | None = None
    """folder of the data [default: the data of the model's own run]"""
    split: str = ""
    """name of the split to score, or all for every split but train [default: test, or validation if
    there is no test]"""
    as_json: bool = Field(False, alias="json")
    """print the scores as JSON"""
    predictions: Path | None = None
    """file for the predictions, one line of JSON per question"""
    language: Language | None = Field(None, title="CODE")
    """language code of answers whose records name none, such as hi [default: as in the model's own
    run, else English for answers in Latin letters]"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """device to compute on; auto takes a GPU if there is one"""


class InspectConfig(Config):
    """Options of ``omnitune inspect``."""

    positional: ClassVar[str] = "data"

    data: Path = Field(Path("data/multimodal"), title="DATA")
    """folder or file of the data, or configuration file, whose sources are shown as a run reads
    them; --data DATA is the same"""
    sample: str = Field("", title="N")
    """show one sample as the model sees it: its number (from 0), its id, or SOURCE/N"""
    html: Path | None = None
    """file for a page of the sample, or of the histograms"""
    as_json: Path | None = Field(None, alias="json")
    """file for all that was found, as JSON"""
    ckpt_dir: Path | None = None
    """folder or file of a model under which tokens and losses are counted too; without it the
    histograms and --sample count the tiny thinker's tokens, or words where there is none"""
    max_tokens: int = Field(1024, ge=1)
    """with --ckpt-dir: largest length of a sample in tokens"""
    strict: bool = False
    """exit with status 1 if media are broken or shared between splits"""


class ValidateConfig(Config):
    """Options of ``omnitune validate``."""

    positional: ClassVar[str] = "data"

    data: Path = Field(title="DATA")
    """file or folder of records in any format, folder of the embedded layout, or configuration
    file, whose sources are checked"""
    ckpt_dir: Path | None = None
    """folder or file of a model, for the checks that depend on one: length of media and samples,
    its control tokens"""
    max_tokens: int = Field(1024, ge=1)
    """with --ckpt-dir: largest length of a sample in tokens"""
    max_seconds: float = Field(30.0, gt=0)
    """without --ckpt-dir: length of a medium above which there is a remark"""
    as_json: Path | None = Field(None, alias="json")
    """file for all that was found, as JSON"""
    fix: Path | None = Field(None, title="OUT")
    """new folder for a copy without the records that have errors; the original stays as it is"""
    strict: bool = False
    """let remarks count as errors do for the exit status"""
    ignore: list[str] = Field([], title="CODE,CODE")
    """codes of what is not to be told, such as unfilled, separated by commas"""
    workers: Count | None = None
    """threads that decode media [default: as many as there are cores]"""

    @field_validator("ignore", mode="before")
    @classmethod
    def _split_codes(cls, value: Any) -> Any:
        """On the command line: codes with commas between them."""
        return split_names(value)


class ConvertConfig(Config):
    """Options of ``omnitune convert``."""

    positional: ClassVar[str] = "paths"

    paths: list[Path] = Field(title="DATA OUT", min_length=2, max_length=2)
    """the data to read, and the file to write; without a suffix a folder, with a file a source"""
    to: str = Field(title="FORMAT")
    """format to write: native, llava, sharegpt, alpaca, openai, trl, swift or manifest"""
    from_format: str = Field("", alias="from", title="FORMAT")
    """format of the data [default: as its records look]"""
    split: str = ""
    """name of the only split to convert [default: all of them]"""
    container: Literal["json", "jsonl", "csv", "parquet"] | None = None
    """kind of file to write [default: as the suffix of OUT says; in a folder as is usual for the
    format]"""
    copy_media: bool = False
    """copy media that lie elsewhere into a folder beside OUT"""
    strict: bool = False
    """exit with status 1 if records are left out, because the format cannot say them, or would be
    read back as other samples"""
    overwrite: bool = False
    """replace the file if it is there"""


class ReportConfig(Config):
    """Options of ``omnitune report``."""

    ckpt_dir: Path
    """output folder of the run"""
    data: Path | None = None
    """folder of the data [default: the data of the run]"""


class ReplayConfig(Config):
    """Options of ``omnitune replay``."""

    ckpt_dir: Path
    """output folder of the run"""
    step: int | None = Field(None, ge=1)
    """number of a step, counted from 1, whose records to list; the hash is proved up to it
    [default: the hash of the whole run is proved]"""
    as_json: Path | None = Field(None, alias="json")
    """file for all that was found, as JSON"""


class CompareConfig(Config):
    """Options of ``omnitune compare``."""

    positional: ClassVar[str] = "runs"

    runs: list[Path] = Field(title="RUN ...", min_length=1)
    """output folders of the runs"""
    html: Path = Path("compare.html")
    """file of the page"""


class PlanOptions(Config):
    """Options of ``omnitune plan`` beside the settings of the run."""

    config: list[Path] = Field([], title="FILE")
    """JSON file of settings; the options override it"""
    device_name: str = "cpu"
    """device to plan for, such as h100, a100-80gb, l4 or rtx4090; cpu is this machine's processor,
    which is measured"""
    ranks: Count = 1
    """number of processes (torchrun) to plan for, each with such a device"""
    ranks_per_machine: Count = 8
    """number of them on a machine; between machines they are slower"""
    as_json: bool = Field(False, alias="json")
    """print the plan as JSON"""


class ConsolidateConfig(Config):
    """Options of ``omnitune consolidate``."""

    positional: ClassVar[str] = "ckpt_dir"

    ckpt_dir: Path = Field(title="FOLDER")
    """output folder of the run, or one of its checkpoints (omni_step_N.dcp)"""


class ExportConfig(Config):
    """Options of ``omnitune export``."""

    positional: ClassVar[str] = "out"

    out: Path = Field(title="OUT")
    """folder to write"""
    ckpt_dir: Path
    """folder or file of the model"""
    to: Literal["hf", "merged", "adapter", "onnx"] = "hf"
    """hf: the whole model as transformers loads it; merged: the same with its adapter merged into
    the weights; adapter: the adapter as PEFT loads it, with its base; onnx: encoders with
    projectors"""
    data: Path | None = None
    """folder with held-out records to compare answers on [default: the data of the model's own
    run]"""
    overwrite: bool = False
    """replace an earlier export in the folder"""
