"""The output folder of a run: checked at the start, marked at the end, never lost silently."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omnitune.config.run import RunConfig
from omnitune.data.content_key import content_key
from omnitune.evaluation.environment import command, environment
from omnitune.hub import check_weights, find_part, read_config
from omnitune.sample import UserError
from omnitune.storage import MANIFEST, sha256, write_json
from omnitune.training.checkpoint import is_step_file, step_files
from omnitune.training.lock import lock, owner, refuse, unlock
from omnitune.training.precision import pick_device
from omnitune.training.progress import BAD_STEPS_FILE, BEST_FILE, LOG_FILE
from omnitune.training.trackers import TRACKER_FILE, check_installed

RUN_FILE = "run.json"
CACHE_NOTE = "feature_cache.json"
RUN_ARTIFACTS = (
    CACHE_NOTE,
    LOG_FILE,
    BEST_FILE,
    BAD_STEPS_FILE,
    "results.json",
    "predictions.jsonl",
    "examples.json",
    "truncation.json",
    "report.html",
    "curves.png",
    "answers.png",
    TRACKER_FILE,
)
# Settings that say how a run is watched, not what it learns: they may differ on resuming. So may
# paths: what counts is the content of the files they lead to.
MAY_DIFFER_ON_RESUME = {
    "log_every",
    "save_every",
    "keep_checkpoints",
    "on_full_disk",
    "max_bad_steps",
    "stop_after",
    "device",
    "parallel",
    "workers",  # of older runs
    "activation_checkpointing",
    "trackers",
}


@dataclass(frozen=True)
class OutputDir:
    """A folder that a run may write to, which is as it was until it is opened.

    Attributes:
        record: what ``run.json`` will hold.
        keep: go on with what is there.
        result: the file that the run will leave; an older run's is cleared away with it.
    """

    folder: Path
    result: Path
    record: dict[str, Any]
    keep: bool

    def open(self) -> None:
        """Clears away an earlier run that is to be replaced, and enters this one.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock(self.folder)
            _clear(self.folder, self.result, self.keep)
            write_json(self.folder / RUN_FILE, self.record)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written to ({error.strerror}); give another "
                "--output-dir DIR"
            ) from None


def prepare_output_dir(
    config: RunConfig,
    result: Path,
    resume: bool,
    overwrite: bool,
    inputs: Mapping[str, Path | str] = MappingProxyType({}),
) -> OutputDir | None:
    """Whether a run may write to its output folder; None if it is there already, and finished.

    Nothing is written yet: a run that is refused for another reason leaves all as it was.

    Args:
        result: the file that a finished run leaves.
        inputs: files that the run is made from, or digests, by name. Another place is no other;
            other content is.

    Raises:
        UserError: another run writes to the folder; or it holds another one, or a started one and
            neither ``resume`` nor ``overwrite`` is given; or a tracker is not installed, or there
            is no GPU as asked for.
    """
    folder = config.out
    check_installed(config.trackers)
    pick_device(config.device)
    check_writable(folder)
    refuse(folder, owner(folder))
    settings = config.model_dump(mode="json")
    digests = {name: digest for name, path in inputs.items() if (digest := _digest(path))}
    found = {} if overwrite else _read(folder / RUN_FILE) or {}
    complete = bool(found.get("finished")) and result.exists()
    if not overwrite and (complete or step_files(folder)):
        if found:
            places = {name for name, value in config if isinstance(value, Path)}
            defaults = type(config).model_construct().model_dump(mode="json")
            before = defaults | found["config"]  # older runs had fewer settings
            _compare(folder, "settings", before, settings, MAY_DIFFER_ON_RESUME | places)
            _compare(folder, "inputs", found.get("inputs", {}), digests)
        if complete:
            print(f"{result} is there and complete; nothing to do (--overwrite trains again)")
            return None
        if not found and resume:
            print(
                f"note: {folder / RUN_FILE} is missing: nobody can tell whether the settings and "
                "inputs are those of the run that goes on",
                flush=True,
            )
        if not resume:
            raise UserError(
                f"{folder} holds an unfinished run; --resume goes on with it, --overwrite starts "
                "anew, --output-dir DIR leaves it alone"
            )
    elif not overwrite and not found and result.exists():
        raise UserError(
            f"{result} is there, and no run here has made it; --overwrite replaces it, "
            "--output-dir DIR leaves it alone"
        )
    run = {"config": settings, "inputs": digests, "finished": False}
    earlier = found.get("commands", []) if resume else []
    run |= {"environment": environment(), "commands": [*earlier, command()]}
    return OutputDir(folder, result, run, keep=resume)


def check_writable(folder: Path) -> None:
    """Raises UserError if a folder is none, or could not be made or written to."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{folder}: {place} is a file, expected a folder; give --output-dir DIR")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {place} cannot be written to; give --output-dir DIR")


def finish(config: RunConfig) -> None:
    """Marks the run as finished; its resolved configuration lies beside the results."""
    run = _read(config.out / RUN_FILE) or {}
    write_json(config.out / RUN_FILE, run | {"finished": True})
    unlock(config.out)


def _compare(
    folder: Path,
    what: str,
    found: dict[str, Any],
    asked: dict[str, Any],
    free: Collection[str] = (),
) -> None:
    """Refuses a run that is not the one that is there; lists every difference."""
    keys = [k for k in {**found, **asked} if k not in free and found.get(k) != asked.get(k)]
    if keys:
        lines = [f"\n  {k}: {found.get(k)!r} there, {asked.get(k)!r} now" for k in keys]
        raise UserError(
            f"{folder} holds a run with other {what}:{''.join(lines)}\n"
            "give --output-dir DIR for a new place, or --overwrite to train it anew"
        )


def _clear(folder: Path, result: Path, keep: bool) -> None:
    """Removes half-written files and, unless ``keep``, what an earlier run left; nothing else."""
    names = (*RUN_ARTIFACTS, RUN_FILE, MANIFEST)
    left = [p for p in folder.glob("*.tmp") if p.stem in names or is_step_file(p.stem)]
    if not keep:
        left += [result, *step_files(folder), *(folder / name for name in RUN_ARTIFACTS)]
        left += folder.glob("tensorboard/events.out.*")
        left += folder.glob("logs/rank_*.log")
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _digest(given: Path | str) -> str:
    """SHA-256 of an input's content: of a pretrained folder that of its settings and weights."""
    if isinstance(given, str):
        return given
    path = find_part(given)
    if path.is_file():
        return content_key([path])
    if not path.is_dir():
        return ""
    read_config(path)
    files = [*sorted(path.glob("*.json")), *check_weights(path)]
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """The record of a run; None without one.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise UserError(
            f"{path}: cannot be read as the record of a run; give --overwrite to start anew, or "
            "--output-dir DIR for a new place"
        )
    return found
