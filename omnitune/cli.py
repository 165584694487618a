"""The subcommands: nothing but wiring."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from omnitune.config import (
    LARGEST_SEED,
    Config,
    RunConfig,
    SftConfig,
    check_language,
    load_config,
    option_table,
    read_json_object,
)
from omnitune.sample import UserError

RESUMABLE = ("pretrain", "sft")
_HELP = {"-h", "--help"}
# torch tells of memory that the system does not give in its own way.
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory")


class CorpusConfig(Config):
    """Options of ``omnitune corpus``."""

    data_dir: Path = Field(Path("data/multimodal"), description="where to write it")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="everything follows from it")
    scale: float = Field(1.0, gt=0, le=100, description="multiplies the number of records")
    workers: int | None = Field(None, ge=1, description="processes [one a core]")
    overwrite: bool = Field(False, description="replace another corpus that is there")


def main(arguments: list[str] | None = None) -> int:
    """Runs a subcommand; returns the exit status (2: a mistake in the input, 130: Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    # A polite kill is a Ctrl-C: what was trained is saved first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know fewer letters
    runs = name in RESUMABLE and not _HELP & set(arguments)
    hint = "; the same command with --resume goes on from here" if runs else ""
    try:
        if name in _HELP:
            print(USAGE)
            status = 0
        elif name in COMMANDS:
            status = COMMANDS[name](arguments[1:])
        else:
            raise UserError(f"omnitune {name}: no such command\n\n{USAGE}")
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can still be told
        return status
    except KeyboardInterrupt:
        _tell(f"\nstopped{hint}")
        return 130
    except BrokenPipeError:
        # Whoever read the output has left; nothing more can be written there, at exit either.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if hint:
            _tell(f"error: the output was closed, so the run was stopped{hint}")
        return 141
    except Exception as error:
        _tell(f"error: {explain(error)}")
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


def _tell(message: str) -> None:
    """Writes to standard error, as far as there is one."""
    with suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def corpus(arguments: list[str]) -> int:
    """Makes the embedded corpus."""
    if _help("corpus", CorpusConfig, arguments):
        return 0
    from omnitune.storage import check_workers
    from omnitune.tiny.corpus.build import CorpusError, build_corpus

    config = load_config(CorpusConfig, None, arguments)
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


class PartsConfig(Config):
    """Options of ``omnitune parts``."""

    checkpoints: Path = Field(Path("checkpoints"), description="folder of the checkpoints")
    overwrite: bool = Field(False, description="replace other parts that are there")
    ship: bool = Field(
        False, description="the other way: replace the package's parts by those in checkpoints"
    )
    data_dir: Path = Field(
        Path("data/multimodal"), description="with ship: the corpus that they were trained on"
    )


def parts(arguments: list[str]) -> int:
    """Writes the ready-made tiny parts, so that none need be trained."""
    if _help("parts", PartsConfig, arguments):
        return 0
    config = load_config(PartsConfig, None, arguments)
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
    """Trains parts: thinker, audio encoder, vision encoder; of several files side by side."""
    if "--config" not in arguments and _help("pretrain", RunConfig, arguments):
        print("\n--config FILE --help lists those of its stage too (configs/thinker_tiny.json)")
        return 0
    paths, arguments, flags = _run_flags("pretrain", arguments)
    from omnitune.tiny import pretrain_audio, pretrain_lm, pretrain_vision
    from omnitune.tiny.side_by_side import part_jobs, run_side_by_side

    stages: dict[str, tuple[type[RunConfig], Callable[..., Path]]] = {
        "pretrain_lm": (pretrain_lm.ThinkerConfig, pretrain_lm.pretrain),
        "pretrain_audio": (pretrain_audio.AudioEncoderConfig, pretrain_audio.pretrain),
        "pretrain_vision": (pretrain_vision.VisionEncoderConfig, pretrain_vision.pretrain),
    }
    configs: dict[Path, RunConfig] = {}
    for path in paths:
        stage = read_json_object(path).get("stage")
        if stage not in stages:
            raise UserError(f'{path}: "stage" is {stage!r}, expected one of {", ".join(stages)}')
        config_class, train = stages[stage]
        if _help("pretrain", config_class, arguments):
            return 0
        configs[path] = load_config(config_class, path, arguments)
    if len(configs) == 1:
        train(configs[paths[0]], **flags)
        return 0
    rest = [*arguments, *(f"--{name}" for name, given in flags.items() if given)]
    run_side_by_side(part_jobs(configs, rest))
    return 0


def sft(arguments: list[str]) -> int:
    """Fine-tunes thinker, encoders and projectors together."""
    if _help("sft", SftConfig, arguments):
        return 0
    paths, arguments, flags = _run_flags("sft", arguments)
    if len(paths) > 1:
        raise UserError("omnitune sft takes one --config FILE; give each of them its own command")
    fine_tune(load_config(SftConfig, paths[0] if paths else None, arguments), **flags)
    return 0


def fine_tune(config: SftConfig, **flags: bool) -> None:
    """Trains, prints the scores and writes the report."""
    # Before the imports, which take some seconds.
    print(f"fine-tuning on {config.data_dir}, results in {config.out}", flush=True)
    from omnitune.reporting.report import REPORT_FILE, scores_table, write_report
    from omnitune.training.sft import finetune

    results = finetune(config, **flags)
    if results is not None:
        print("\n".join([*scores_table(results), f"model: {config.out / 'omni.pt'}"]))
    # A finished run may have been stopped before its report was written.
    if results is not None or not (config.out / REPORT_FILE).is_file():
        print(f"report: {write_report(config.out, config.data_dir)}")


def evaluate(arguments: list[str]) -> int:
    """Scores a model on data."""
    parser = argparse.ArgumentParser(prog="omnitune evaluate", description=evaluate.__doc__)
    parser.add_argument(
        "--ckpt_dir",
        "--ckpt-dir",
        type=Path,
        required=True,
        help="folder or file of the model",
    )
    parser.add_argument("--data", type=Path, help="folder of the data [the run's own]")
    parser.add_argument(
        "--split", default="", help="a split's name, or all [test; validation where there is none]"
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    parser.add_argument("--predictions", type=Path, help="write one JSON line per question")
    parser.add_argument(
        "--language",
        default="",
        metavar="CODE",
        help="of answers whose records do not say it, such as hi [as in the run; else English, "
        "unless the letters are others]",
    )
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute [auto]"
    )
    options = parser.parse_args(arguments)
    try:
        language = options.language and check_language(options.language)
    except ValueError as error:
        raise UserError(f"--language: {error}") from None
    from omnitune.evaluation.evaluate import evaluate_checkpoint
    from omnitune.evaluation.runs import data_dir_of
    from omnitune.reporting.report import scores_table
    from omnitune.training.precision import pick_device

    data = options.data or data_dir_of(options.ckpt_dir)
    where = (options.ckpt_dir, data, options.split, options.predictions)
    scores = evaluate_checkpoint(*where, language, pick_device(options.device))
    for warning in scores["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(scores, indent=1) if options.json else "\n".join(scores_table(scores)))
    return 0


def inspect(arguments: list[str]) -> int:
    """Says what a data folder holds, what is broken, and what its splits share."""
    parser = argparse.ArgumentParser(prog="omnitune inspect", description=inspect.__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/multimodal"),
        help="folder of the data [data/multimodal]",
    )
    parser.add_argument("--json", type=Path, help="write all of it to a file")
    parser.add_argument(
        "--ckpt_dir", "--ckpt-dir", type=Path, help="also count tokens and losses under this model"
    )
    parser.add_argument(
        "--max-tokens", "--max_tokens", type=int, default=1024, help="longest sample [1024]"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit status 1 if media are broken or shared"
    )
    options = parser.parse_args(arguments)
    from omnitune.data.audit.inspect import account_lines, inspect_folder
    from omnitune.models.loading import read_reading
    from omnitune.storage import write_json

    reading = read_reading(options.ckpt_dir, options.max_tokens) if options.ckpt_dir else None
    found = inspect_folder(options.data, reading)
    if options.json:
        write_json(options.json, found)
    print("\n".join(account_lines(found)))
    return int(options.strict and (found["leaking"] or found["broken"]["count"] > 0))


def report(arguments: list[str]) -> int:
    """Prints a finished run's scoreboard and writes its report."""
    parser = argparse.ArgumentParser(prog="omnitune report", description=report.__doc__)
    parser.add_argument(
        "--ckpt_dir", "--ckpt-dir", type=Path, required=True, help="output folder of the run"
    )
    parser.add_argument("--data", type=Path, help="folder of the data [the run's own]")
    options = parser.parse_args(arguments)
    from omnitune.evaluation.runs import data_dir_of
    from omnitune.reporting.report import scores_table, write_report

    page = write_report(options.ckpt_dir, options.data or data_dir_of(options.ckpt_dir))
    print("\n".join(scores_table(read_json_object(options.ckpt_dir / "results.json"))))
    print(f"report: {page}")
    return 0


def compare(arguments: list[str]) -> int:
    """Puts runs side by side, in the terminal and as a page."""
    parser = argparse.ArgumentParser(prog="omnitune compare", description=compare.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's output folder")
    parser.add_argument(
        "--html", type=Path, default=Path("compare.html"), help="the page [compare.html, here]"
    )
    options = parser.parse_args(arguments)
    from omnitune.reporting.compare import compare_table, read_runs, write_comparison

    runs = read_runs(options.runs)
    print("\n".join(compare_table(runs)))
    print(f"page: {write_comparison(runs, options.html)}")
    return 0


def chat(arguments: list[str]) -> int:
    """Talks to a model."""
    from omnitune.serving.terminal import main as chat_main

    return chat_main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "corpus": corpus,
    "parts": parts,
    "pretrain": pretrain,
    "sft": sft,
    "inspect": inspect,
    "evaluate": evaluate,
    "report": report,
    "compare": compare,
    "chat": chat,
}

USAGE = "usage: omnitune COMMAND [options]; COMMAND --help lists them\n\n" + "\n".join(
    f"  {name:<10} {(function.__doc__ or '').splitlines()[0]}"
    for name, function in COMMANDS.items()
)


def _run_flags(command: str, arguments: list[str]) -> tuple[list[Path], list[str], dict[str, bool]]:
    """Takes ``--config``, ``--resume`` and ``--overwrite`` out of the arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=f"omnitune {command}")
    parser.add_argument("--config", type=Path, nargs="+", default=[])
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    known, rest = parser.parse_known_args(arguments)
    if known.resume and known.overwrite:
        raise UserError(
            "--resume goes on with the run that is there, --overwrite replaces it; give one of them"
        )
    if not known.config and command == "pretrain":
        raise UserError("omnitune pretrain needs --config FILE, such as configs/thinker_tiny.json")
    return known.config, rest, {"resume": known.resume, "overwrite": known.overwrite}


def _help(command: str, config: type[Config], arguments: list[str]) -> bool:
    """Prints the options of a command if they are asked for."""
    if not _HELP & set(arguments):
        return False
    rows = option_table(config)
    if command in RESUMABLE:
        several = " (of several parts, trained side by side)" * (command == "pretrain")
        rows = [
            ("config FILE", "", f"JSON file of settings{several}; the options below override it"),
            ("resume", "", "go on from the newest checkpoint"),
            ("overwrite", "", "start anew over a run that is there"),
            *rows,
        ]
    print(f"usage: omnitune {command} [options]\n")
    for option, default, text in rows:
        print(f"  --{option:<26} {text}" + (f" [{default}]" if default else ""))
    return True


if __name__ == "__main__":
    sys.exit(main())
