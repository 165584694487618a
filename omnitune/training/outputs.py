"""The output folder of a run: claimed at the start, marked at the end, never lost silently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omnitune.config import RunConfig
from omnitune.evaluation.environment import command, environment
from omnitune.evaluation.examples import EXAMPLES_FILE
from omnitune.sample import UserError
from omnitune.storage import sha256, write_json
from omnitune.training.checkpoint import step_files
from omnitune.training.compute import pick_device
from omnitune.training.trackers import TRACKER_FILE, check_installed

RUN_FILE = "run.json"
CACHE_NOTE = "feature_cache.json"
# Settings that say how a run is watched, not what it learns: they may differ on resuming.
LEFT_BY_A_RUN = (
    CACHE_NOTE,
    "metrics.jsonl",
    "results.json",
    "predictions.jsonl",
    EXAMPLES_FILE,
    "truncation.json",
    "report.html",
    "curves.png",
    "answers.png",
    TRACKER_FILE,
)
FREE = {
    "output_dir",
    "log_every",
    "save_every",
    "keep_checkpoints",
    "device",
    "workers",
    "activation_checkpointing",
    "trackers",
}


def claim_folder(
    config: RunConfig,
    result: Path,
    resume: bool,
    overwrite: bool,
    inputs: Iterable[Path] = (),
) -> bool:
    """Makes ready the output folder; True if a finished run of the same settings is there.

    Args:
        result: the file that a finished run leaves.
        inputs: files that the run is made from; a run over other content is another run.

    Raises:
        UserError: the folder holds another run, or a started one and neither ``resume`` nor
            ``overwrite`` is given; or a tracker is not installed, or there is no GPU as asked for.
    """
    folder = config.out
    check_installed(config.trackers)
    pick_device(config.device)
    settings: dict[str, Any] = json.loads(config.model_dump_json())
    digests = {str(path): sha256(path) for path in inputs if path.is_file()}
    found = {} if overwrite else _read(folder / RUN_FILE) or {}
    complete = bool(found.get("finished")) and result.exists()
    if not overwrite and (complete or step_files(folder)):
        if found:
            _compare(folder, "settings", found["config"], settings)
            _compare(folder, "inputs", found.get("inputs", {}), digests)
        if complete:
            print(f"{result} is there and complete; nothing to do (--overwrite trains again)")
            return True
        if not resume:
            raise UserError(
                f"{folder} holds an unfinished run; --resume goes on with it, --overwrite starts "
                "anew, --output-dir DIR leaves it alone"
            )
    if overwrite or not resume:
        _clear(folder)
    try:
        run = {"config": settings, "inputs": digests, "finished": False}
        before = found.get("commands", []) if resume else []
        run |= {"environment": environment(), "commands": [*before, command()]}
        write_json(folder / RUN_FILE, run)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror})") from None
    return False


def finish(config: RunConfig) -> None:
    """Marks the run as finished; its resolved configuration lies beside the results."""
    run = _read(config.out / RUN_FILE) or {}
    write_json(config.out / RUN_FILE, run | {"finished": True})


def _compare(folder: Path, what: str, found: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuses a run that is not the one that is there; lists every difference."""
    keys = [k for k in {**found, **asked} if k not in FREE and found.get(k) != asked.get(k)]
    if keys:
        lines = [f"\n  {k}: {found.get(k)!r} there, {asked.get(k)!r} now" for k in keys]
        raise UserError(
            f"{folder} holds a run with other {what}:{''.join(lines)}\n"
            "give --output-dir DIR for a new place, or --overwrite to train it anew"
        )


def _clear(folder: Path) -> None:
    """Takes away what an earlier run left, and nothing else."""
    for path in [*step_files(folder), *(folder / name for name in LEFT_BY_A_RUN)]:
        path.unlink(missing_ok=True)
    for events in (folder / "tensorboard").glob("events.out.*"):
        events.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, OSError):
        raise UserError(f"{path}: cannot be read as JSON; give --overwrite to start anew") from None
