"""The subcommands: nothing but wiring."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from omnitune import __version__
from omnitune.config.arguments import split_arguments
from omnitune.config.base import CHECKPOINTS, C, Config
from omnitune.config.commands import (
    CompareConfig,
    ConsolidateConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    PlanOptions,
    ReportConfig,
)
from omnitune.config.help import aligned, asks_for_help, help_text
from omnitune.config.parallel import OfFirstRank, own_rank, rank_prefix
from omnitune.config.run import RunConfig, RunOptions
from omnitune.config.settings import load_config, nearest, read_json_object
from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.serving.streams import CUT_OFF, drop_output, tell, tolerate_any_bytes
from omnitune.sources import SOURCES
from omnitune.tiny import sources as sources  # the corpus's own are known to every command
from omnitune.tiny.options import CorpusConfig, PartsConfig

Command = Callable[[list[str]], int]
RESUMABLE = ("pretrain", "sft")
SETTINGS = "Settings, which are also the keys of the configuration file"
# torch tells of memory that the system does not give in its own way.
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory")


class PretrainOptions(RunOptions):
    """Options of ``omnitune pretrain`` beside the settings of a part."""

    checkpoints: Path = CHECKPOINTS
    """folder of the parts: output_dir and tokenizer are in it by default"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a subcommand; returns the exit status (2: a mistake in the input, 130: Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    # A polite kill is a Ctrl-C: what was trained is saved first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tolerate_any_bytes()
    runs = name in RESUMABLE and not asks_for_help(arguments)
    hint = "; the same command with --resume goes on from here" if runs else ""
    try:
        status = _run(name, arguments[1:])
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can still be told
        return status
    except KeyboardInterrupt:
        tell(f"\nstopped{hint}")
        return 130
    except BrokenPipeError:
        drop_output()
        if hint:
            tell(f"error: the output was closed, so the run was stopped{hint}")
        return CUT_OFF
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:  # of writing
            drop_output()
        if not isinstance(error, OfFirstRank):  # which rank 0 tells
            tell(f"{rank_prefix()}error: {explain(error)}")
        return 2 if isinstance(error, UserError | OSError) else 1


def explain(error: Exception) -> str:
    """What to tell the user of an error; a fault of ours leaves its traceback in a file."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    lacking = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    if lacking or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "there is not enough memory; take a smaller batch_size with more "
            f"gradient_accumulation, or activation_checkpointing ({error})"
        )
    with tempfile.NamedTemporaryFile(
        "w", prefix="omnitune-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        traceback.print_exception(error, file=file)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"something that omnitune did not expect: {what[:500]}\n"
        f"This may be a fault of omnitune. Where it happened is written in {file.name}"
    )


def _run(name: str, arguments: list[str]) -> int:
    """Runs a subcommand, or prints its help if that is asked for."""
    commands = {command.__name__: command for group in GROUPS.values() for command in group}
    if name == "--version":
        print(f"omnitune {__version__}")
        return 0
    if asks_for_help([name]):
        print(overview())
        return 0
    if name not in commands:
        close = nearest(name, commands)
        hint = f"; did you mean {close}?" if close else ""
        raise UserError(f"omnitune {name}: no such command{hint}\n\n{overview()}")
    return commands[name](arguments)


def overview() -> str:
    """The subcommands by what one does with them."""
    groups = [
        f"{title}:\n" + aligned(((c.__name__, _about(c)) for c in commands), left=14)
        for title, commands in GROUPS.items()
    ]
    usage = "usage: omnitune COMMAND [options]"
    return "\n\n".join([usage, *groups, "omnitune COMMAND --help lists the command's options."])


def _about(command: Callable[[Any], int]) -> str:
    """What a subcommand does, in a sentence."""
    return (command.__doc__ or "").partition("\n")[0]


def _print_help(
    command: Callable[[Any], int], sections: dict[str, type[Config]], note: str = ""
) -> int:
    print(help_text(command.__name__, _about(command), sections, note))
    return 0


def takes(options: type[C]) -> Callable[[Callable[[C], int]], Command]:
    """Makes a subcommand of what is done with its options: reads them, or lists them if asked."""

    def command_of(function: Callable[[C], int]) -> Command:
        @wraps(function)
        def command(arguments: list[str]) -> int:
            if asks_for_help(arguments):
                return _print_help(function, {"Options": options})
            return function(load_config(options, None, arguments))

        return command

    return command_of


@takes(CorpusConfig)
def corpus(config: CorpusConfig) -> int:
    """Builds the embedded corpus: pictures of shapes, spoken sentences, questions about both."""
    from omnitune.storage import check_workers
    from omnitune.tiny.corpus.build import CorpusError, build_corpus

    check_workers(config.workers)
    try:
        summary = build_corpus(**config.model_dump())
    except CorpusError as error:
        raise UserError(str(error)) from None
    state = "is there and complete" if summary.get("skipped") else "made"
    print(f"{config.data_dir}: corpus {state}")
    for file, counts in summary["counts"].items():
        print(f"  {file}: " + ", ".join(f"{split} {n}" for split, n in counts.items()))
    return 0


@takes(PartsConfig)
def parts(config: PartsConfig) -> int:
    """Writes the ready-made tiny parts: a thinker, an audio encoder and a vision encoder."""
    from omnitune.tiny import ready

    if config.ship:
        ready.ship_parts(config.checkpoints, read_json_object(config.data_dir / "corpus.json"))
    card = ready.read_card()
    made = [] if config.ship else ready.write_parts(config.checkpoints, config.overwrite)
    corpus = card["corpus"]
    print(f"parts of corpus {corpus['version']}, seed {corpus['seed']}; held-out scores:")
    for kind, place in ready.PLACES.items():
        scores = ", ".join(f"{k} {v:.3f}" for k, v in card["parts"][kind]["scores"].items())
        state = "made" if config.checkpoints / place in made else "is there"
        print(f"  {config.checkpoints / place}: {state} ({scores})")
    return 0


def pretrain(arguments: list[str]) -> int:
    """Trains parts from nothing: a thinker, an audio encoder, a vision encoder."""
    helped = asks_for_help(arguments)
    given = [word for word in arguments if not asks_for_help([word])]
    own, settings = split_arguments(PretrainOptions, given)
    options = load_config(PretrainOptions, None, own)
    if helped and not options.config:
        return _part_help(RunConfig)
    if not options.config:
        raise UserError("--config is required: a file per part, such as configs/thinker_tiny.json")
    from omnitune.tiny import pretrain_audio, pretrain_lm, pretrain_vision, stage
    from omnitune.tiny.side_by_side import part_jobs, run_side_by_side

    stages: dict[str, tuple[type[stage.StageConfig], Callable[..., stage.Stage]]] = {
        "pretrain_lm": (pretrain_lm.ThinkerConfig, pretrain_lm.build_stage),
        "pretrain_audio": (pretrain_audio.AudioEncoderConfig, pretrain_audio.build_stage),
        "pretrain_vision": (pretrain_vision.VisionEncoderConfig, pretrain_vision.build_stage),
    }
    configs: dict[Path, stage.StageConfig] = {}
    for path in options.config:
        name = read_json_object(path).get("stage")
        if name not in stages:
            raise UserError(f'{path}: "stage" is {name!r}, expected one of {", ".join(stages)}')
        config_class, build = stages[name]
        if helped:
            return _part_help(config_class)
        configs[path] = load_config(config_class, path, settings).moved(options.checkpoints)
    if len(configs) == 1:
        stage.pretrain(configs[options.config[0]], build, **options.flags)
        return 0
    settings += ["--checkpoints", str(options.checkpoints)]
    settings += [f"--{name}" for name, wanted in options.flags.items() if wanted]
    run_side_by_side(part_jobs(configs, settings))
    return 0


def _part_help(settings: type[RunConfig]) -> int:
    """Prints the help of ``omnitune pretrain``, with the settings of a stage or those of all."""
    note = (
        "The parts of several files are trained side by side. --config FILE --help lists the "
        "settings of that file's stage too."
    )
    return _print_help(pretrain, {"Options": PretrainOptions, SETTINGS: settings}, note)


def sft(arguments: list[str]) -> int:
    """Fine-tunes a thinker, encoders and projectors together, and scores the result."""
    if asks_for_help(arguments):
        note = f"--config takes one file. SOURCE is one of {', '.join(SOURCES)}."
        return _print_help(sft, {"Options": RunOptions, SETTINGS: SftConfig}, note)
    own, settings = split_arguments(RunOptions, arguments)
    options = load_config(RunOptions, None, own)
    if len(options.config) > 1:
        raise UserError("omnitune sft takes one --config FILE; give each of them its own command")
    path = options.config[0] if options.config else None
    fine_tune(load_config(SftConfig, path, settings), **options.flags)
    return 0


def plan(arguments: list[str]) -> int:
    """Says what a run will take, without loading weights: parts, samples, memory, hours."""
    if asks_for_help(arguments):
        return _print_help(plan, {"Options": PlanOptions, SETTINGS: SftConfig})
    own, settings = split_arguments(PlanOptions, arguments)
    options = load_config(PlanOptions, None, own)
    if len(options.config) > 1:
        raise UserError("omnitune plan takes one --config FILE; give each of them its own command")
    path = options.config[0] if options.config else None
    config = load_config(SftConfig, path, settings)
    from omnitune.training.estimate import plan_run
    from omnitune.training.plan_lines import plan_lines

    found = plan_run(config, options.device_name, options.ranks, options.ranks_per_machine)
    print(json.dumps(found, indent=1) if options.as_json else "\n".join(plan_lines(found)))
    return 0


def fine_tune(config: SftConfig, **flags: bool) -> None:
    """Trains, prints the scores and writes the report."""
    if not own_rank():  # before the imports, which take some seconds
        print(f"fine-tuning on {_places(config)}, results in {config.out}", flush=True)
    from omnitune.evaluation.runs import data_of
    from omnitune.reporting.report import REPORT_FILE, scores_table, write_report
    from omnitune.training.sft import finetune

    results = finetune(config, **flags)
    if own_rank():
        return
    if results is not None:
        print("\n".join([*scores_table(results), f"model: {config.out / 'omni.pt'}"]))
    # A finished run may have been stopped before its report was written.
    if results is not None or not (config.out / REPORT_FILE).is_file():
        print(f"report: {write_report(config.out, data_of(config.out))}")


def _places(config: SftConfig) -> str:
    """Where a run's records are, for a line."""
    embedded = any(name not in config.sources for name in config.source_names)
    own = [held.path for held in config.sources.values()]
    return ", ".join([str(config.data_dir)] * embedded + own)


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
    """Says what a data folder holds, which media are broken, and what its splits share."""
    from omnitune.data.audit.inspect import account_lines, inspect_folder
    from omnitune.models.loading import read_reading
    from omnitune.storage import require_target, write_json

    if config.as_json:
        require_target(config.as_json, "--json")
    reading = read_reading(config.ckpt_dir, config.max_tokens) if config.ckpt_dir else None
    found = inspect_folder(config.data, reading)
    if config.as_json:
        write_json(config.as_json, found)
    print("\n".join(account_lines(found)))
    return int(config.strict and (found["leaking"] or found["broken"]["count"] > 0))


@takes(ReportConfig)
def report(config: ReportConfig) -> int:
    """Prints the scores of a finished run and writes its report as a page."""
    from omnitune.evaluation.runs import data_of
    from omnitune.reporting.report import scores_table, write_report

    page = write_report(config.ckpt_dir, config.data or data_of(config.ckpt_dir))
    print("\n".join(scores_table(read_json_object(config.ckpt_dir / "results.json"))))
    print(f"report: {page}")
    return 0


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


@takes(ConsolidateConfig)
def consolidate(config: ConsolidateConfig) -> int:
    """Writes the newest checkpoint of a divided model as one file."""
    from omnitune.training.sharded_checkpoint import consolidate_newest

    print(f"{consolidate_newest(config.ckpt_dir)}: written")
    return 0


def chat(arguments: list[str]) -> int:
    """Talks to a model at a prompt, or answers once."""
    if asks_for_help(arguments):
        from omnitune.serving.options import chat_help

        print(chat_help())
        return 0
    from omnitune.serving.terminal import main as chat_main

    return chat_main(arguments)


GROUPS: dict[str, tuple[Command, ...]] = {
    "Get data and parts": (corpus, parts),
    "Train": (pretrain, plan, sft, consolidate),
    "Score": (evaluate,),
    "Look": (inspect, report, compare),
    "Export": (export,),
    "Talk": (chat,),
}


if __name__ == "__main__":
    sys.exit(main())
