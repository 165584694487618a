"""What the folder of a model tells of it: is there one, what it was taught, what to try."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import read_json_object
from omnitune.evaluation.reliance import ENOUGH
from omnitune.evaluation.runs import as_number, as_object, main_score, splits_of, top_split
from omnitune.models.exported import is_exported
from omnitune.models.loading import MADE_BY
from omnitune.reporting.examples import Suggestion, read_examples
from omnitune.reporting.tables import write_score
from omnitune.sample import UserError
from omnitune.tasks import TASKS, get_task

KINDS = 6  # of a task that are named


def require_model(ckpt_dir: Path) -> None:
    """Says what is there where no model is.

    Raises:
        UserError: there is no ``omni.pt``; says what is there, and which command goes on.
    """
    if ckpt_dir.is_file() or (ckpt_dir / "omni.pt").is_file() or is_exported(ckpt_dir):
        return
    if not ckpt_dir.is_dir():
        what = "is neither a folder nor a file" if ckpt_dir.exists() else "no such folder"
        raise UserError(f"{ckpt_dir}: {what}; make a model with `{MADE_BY['omni']}`")
    run = _object(ckpt_dir / "run.json")
    config = as_object(run.get("config"))
    if "thinker_ckpt" in config:
        steps = [name.stem.rpartition("_")[2] for name in ckpt_dir.glob("omni_step_*.pt")]
        newest = max((int(step) for step in steps if step.isdecimal()), default=0)
        raise UserError(
            f"{ckpt_dir}: holds a run that has not ended (newest checkpoint: "
            f"{f'step {newest}' if newest else 'none yet'}) and no model yet; go on with it by "
            f"`{_resuming(run, ckpt_dir)}`"
        )
    if stage := config.get("stage"):
        raise UserError(
            f"{ckpt_dir}: holds a part of a model (stage {stage}), which cannot chat alone; make "
            f"a whole one with `{MADE_BY['omni']}`"
        )
    raise UserError(f"{ckpt_dir}: holds no omni.pt; make a model with `{MADE_BY['omni']}`")


def name_of(path: Path, taken: Sequence[str] = ()) -> str:
    """What clients call the model of a folder or file."""
    whole = path.resolve()
    plain = (whole if whole.is_dir() else whole.parent).name or "model"
    names = (plain, *(f"{plain}-{n}" for n in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)


def greeting(ckpt_dir: Path) -> list[str]:
    """What a model was taught, how well it does, and what to try; as much as its run tells."""
    folder = ckpt_dir if ckpt_dir.is_dir() else ckpt_dir.parent
    run, results = _object(folder / "run.json"), _object(folder / "results.json")
    config = as_object(run.get("config"))
    lines = _taught(splits_of(results).get(top_split(results), {}))
    if config and not results:
        lines = ["Its run has not ended: it has no scores yet."]
    return lines + _to_try(read_examples(folder))


def _taught(scores: dict[str, Any]) -> list[str]:
    tasks = {name: as_object(task) for name, task in as_object(scores.get("tasks")).items()}
    rows = []
    for name in sorted(tasks, key=lambda name: [*TASKS, name].index(name)):
        row, task = f"  {get_task(name).title}", tasks[name]
        found, questions = main_score(task), as_number(task.get("questions"))
        if found and found[0].words:
            metric, value = found
            row += _kinds(as_object(task.get("kinds"))) if metric.whole_answers else ""
            row += f": {write_score(value, metric.unit)} {metric.words}"
            if questions and questions < ENOUGH:  # too few for the score to say much
                row += f" ({questions:.0f} question{'s' * (questions != 1)} only)"
        rows.append(row)
    return ["Taught, with scores on what was kept from training:", *rows] if rows else []


def _kinds(names: Iterable[str]) -> str:
    known = [name.replace("_", " ") for name in names]
    if len(known) < 2:
        return ""
    return f" ({', '.join(known[:KINDS])}{', ...' * (len(known) > KINDS)})"


def _to_try(examples: list[Suggestion]) -> list[str]:
    if not examples:
        return []
    lines = [f"To try, {len(examples)} kept from training that it answered rightly:"]
    for example in examples:
        lines += [f"  /{medium.modality} {medium.path}" for medium in example.media]
        lines.append("    " + (" ".join(example.question.split()) or "(and an empty line)"))
    return lines


def _resuming(run: dict[str, Any], folder: Path) -> str:
    commands = run.get("commands")
    try:
        words = shlex.split(str(commands[-1])) if isinstance(commands, list) and commands else []
    except ValueError:
        words = []
    words = words or ["python", "sft_omni.py", "--config", "FILE", "--output-dir", str(folder)]
    kept = [word for word in words if word not in ("--overwrite", "--resume")]
    return shlex.join([*kept, "--resume"])


def _object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; an empty one if that is missing or damaged."""
    try:
        return read_json_object(path) if path.is_file() else {}
    except (UserError, RecursionError):
        return {}
