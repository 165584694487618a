"""The checkpoint with the best held-out score: kept in a file of its own, whatever comes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnitune.evaluation.metrics import METRICS
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint
from omnitune.tasks import headlines
from omnitune.training.checkpoint import frozen_sums, trained_state, whole_files
from omnitune.training.progress import BEST_FILE
from omnitune.training.run import Run


def keep_best(run: Run, scores: dict[str, Any], epoch_ended: bool) -> str:
    """Keeps the weights of this moment if their score is the best so far.

    Only scores after an epoch and at the end count: those between are of fewer questions. It may
    be broken off anywhere, and done again.

    Returns:
        what to say of it, or "".

    Raises:
        UserError: the run's held-out data have no such score; or the disk is full, and
            ``on_full_disk`` says stop.
    """
    name = getattr(run.config, "keep_best", None)
    if name is None:
        return ""
    if name not in scores:
        found = ", ".join(key for key in ["loss", *headlines()] if key in scores)
        raise UserError(
            f"keep_best is {name}, but the held-out data of this run give no such score; they "
            f"give: {found or 'none'}"
        )
    best = run.state.get("best")
    if not epoch_ended or (best and not _is_better(name, scores[name], best["value"])):
        return ""
    path = run.config.out / BEST_FILE
    values = {
        "step": run.step,
        "model": run.ranks.whole(trained_state(run)),
        "frozen": frozen_sums(run),
        "best": {"score": name, "value": scores[name], "step": run.step},
        "config": run.config.model_dump(mode="json"),
    }
    if problem := run.ranks.on_first(lambda: _problem_of_writing(run, path, values)):
        run.log.warn(problem)
        return ""
    run.state["best"] = values["best"]
    return f"best {name} so far: {scores[name]:.4g}, kept in {path}"


def _problem_of_writing(run: Run, path: Path, values: dict[str, Any]) -> str:
    """Writes the file; returns what went wrong where the run shall go on, else nothing."""
    try:
        write_checkpoint(path, values)
    except UserError as error:
        if run.config.on_full_disk == "stop":
            raise
        return f"{error}; {whole_files(run)}"
    return ""


def _is_better(name: str, value: float, than: float) -> bool:
    task = headlines().get(name)
    lower = METRICS[task.metric if task else name].lower_is_better
    return value < than if lower else value > than


def take_best(run: Run) -> int:
    """Gives the model, which each rank has whole, the weights of its best checkpoint.

    Returns:
        their step.

    Raises:
        UserError: the file is missing or damaged, or not of the best score of this run.
    """
    step, names = run.ranks.on_first(lambda: _take(run))
    state = run.model.state_dict()
    run.ranks.send([state[name] for name in names])
    return step


def _take(run: Run) -> tuple[int, list[str]]:
    path: Path = run.config.out / BEST_FILE
    values = read_checkpoint(path)
    best = run.state.get("best")
    if not best or values.get("best") != best:
        raise UserError(
            f"{path}: is of {values.get('best')}, but the best of this run is {best}; restore the "
            "file, or set use_best to false"
        )
    run.model.load_state_dict(values["model"], strict=False)
    run.log.say(f"omni.pt is of step {values['step']}, whose {best['score']} was the best")
    return int(values["step"]), list(values["model"])
