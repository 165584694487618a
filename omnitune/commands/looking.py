"""The subcommands that look at data and at finished runs."""

from __future__ import annotations

import json
import sys

from omnitune.commands.wiring import takes
from omnitune.config.commands import (
    CompareConfig,
    ConvertConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    ReplayConfig,
    ReportConfig,
    ValidateConfig,
)
from omnitune.config.settings import read_json_object


@takes(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> int:
    """Scores a model on data."""
    from omnitune.evaluation.evaluate import evaluate_checkpoint
    from omnitune.evaluation.runs import data_of
    from omnitune.reporting.report import scores_table
    from omnitune.serving.folder import require_model
    from omnitune.training.precision import pick_device

    require_model(config.ckpt_dir)
    data = config.data or data_of(config.ckpt_dir)
    where = (config.ckpt_dir, data, config.split, config.predictions)
    scores = evaluate_checkpoint(*where, config.language or "", pick_device(config.device))
    for warning in scores["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(scores, indent=1) if config.as_json else "\n".join(scores_table(scores)))
    return 0


@takes(InspectConfig)
def inspect(config: InspectConfig) -> int:
    """Says what data hold, which media are broken, what splits share; shows a sample."""
    from omnitune.reporting.inspecting import inspect_data

    return inspect_data(config)


@takes(ValidateConfig)
def validate(config: ValidateConfig) -> int:
    """Checks data: opens every record and medium, tells all that is wrong, writes a clean copy."""
    from omnitune.reporting.validation import run_validation

    return run_validation(config)


@takes(ConvertConfig)
def convert(config: ConvertConfig) -> int:
    """Writes data in another format, with its media."""
    from omnitune.data.convert import convert_data

    return convert_data(config)


@takes(ReportConfig)
def report(config: ReportConfig) -> int:
    """Prints the scores of a finished run and writes its report as a page."""
    from omnitune.evaluation.runs import data_of
    from omnitune.reporting.report import scores_table, write_report

    page = write_report(config.ckpt_dir, config.data or data_of(config.ckpt_dir))
    print("\n".join(scores_table(read_json_object(config.ckpt_dir / "results.json"))))
    print(f"report: {page}")
    return 0


@takes(ReplayConfig)
def replay(config: ReplayConfig) -> int:
    """Lists the records that a step of a run trained on, and proves the run's hash again."""
    from omnitune.training.replay import print_replay

    return int(not print_replay(config.ckpt_dir, config.step, config.as_json))


@takes(CompareConfig)
def compare(config: CompareConfig) -> int:
    """Compares runs, in the terminal and on a page: settings that differ, scores, curves."""
    from omnitune.reporting.compare import compare_table, read_runs, write_comparison
    from omnitune.storage import require_target

    require_target(config.html, "--html")
    runs = read_runs(config.runs)
    print("\n".join(compare_table(runs)))
    print(f"page: {write_comparison(runs, config.html)}")
    return 0


@takes(ExportConfig)
def export(config: ExportConfig) -> int:
    """Writes a model as transformers, PEFT, vLLM or onnxruntime load it, and certifies that."""
    from omnitune.reporting import publish
    from omnitune.serving.folder import require_model

    require_model(config.ckpt_dir)
    print("\n".join(publish.export(**config.model_dump())))
    return 0
