"""The options of the commands that read a run: apart from what they call, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from omnitune.config.base import Config, Count, Language


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

    data: Path = Path("data/multimodal")
    """folder of the data"""
    as_json: Path | None = Field(None, alias="json")
    """file for all that was found, as JSON"""
    ckpt_dir: Path | None = None
    """folder or file of a model under which tokens and losses are counted too"""
    max_tokens: int = Field(1024, ge=1)
    """with --ckpt-dir: largest length of a sample in tokens"""
    strict: bool = False
    """exit with status 1 if media are broken or shared between splits"""


class ReportConfig(Config):
    """Options of ``omnitune report``."""

    ckpt_dir: Path
    """output folder of the run"""
    data: Path | None = None
    """folder of the data [default: the data of the run]"""


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
