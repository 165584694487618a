"""The subcommands that make data, parts and models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from omnitune.commands.wiring import SETTINGS, print_help, takes
from omnitune.config.arguments import split_arguments
from omnitune.config.base import CHECKPOINTS
from omnitune.config.commands import ConsolidateConfig, PlanOptions
from omnitune.config.help import asks_for_help
from omnitune.config.parallel import own_rank
from omnitune.config.run import RunConfig, RunOptions
from omnitune.config.settings import load_config, read_json_object
from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.sources import SOURCES
from omnitune.tiny.options import CorpusConfig, PartsConfig


class PretrainOptions(RunOptions):
    """Options of ``omnitune pretrain`` beside the settings of a part."""

    checkpoints: Path = CHECKPOINTS
    """folder of the parts: output_dir and tokenizer are in it by default"""


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
    return print_help(pretrain, {"Options": PretrainOptions, SETTINGS: settings}, note)


def sft(arguments: list[str]) -> int:
    """Fine-tunes a thinker, encoders and projectors together, and scores the result."""
    if asks_for_help(arguments):
        note = f"--config takes one file. SOURCE is one of {', '.join(SOURCES)}."
        return print_help(sft, {"Options": RunOptions, SETTINGS: SftConfig}, note)
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
        return print_help(plan, {"Options": PlanOptions, SETTINGS: SftConfig})
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


@takes(ConsolidateConfig)
def consolidate(config: ConsolidateConfig) -> int:
    """Writes the newest checkpoint of a divided model as one file."""
    from omnitune.training.sharded_checkpoint import consolidate_newest

    print(f"{consolidate_newest(config.ckpt_dir)}: written")
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
        return  # rank 0 tells
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
