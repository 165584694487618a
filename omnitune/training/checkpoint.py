"""Step checkpoints: all that a run needs to go on from where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from omnitune.sample import UserError
from omnitune.storage import edit_manifest, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from omnitune.training.loop import Run


def save(run: Run) -> Path:
    """Saves all that is needed to go on, as ``<prefix><step>.pt``; keeps the newest few."""
    folder = run.config.out
    path = folder / f"{run.config.step_prefix}{run.step}.pt"
    values = {
        "step": run.step,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "state": run.state,
        "config": json.loads(run.config.model_dump_json()),
    }
    write_checkpoint(path, values)
    for old in step_files(folder)[: -run.config.keep_checkpoints]:
        old.unlink()
        edit_manifest(folder, old.name, None)
    return path


def restore(run: Run) -> bool:
    """Goes on from the newest whole checkpoint of the run's folder; False if there is none."""
    for path in reversed(step_files(run.config.out)):
        try:
            values = read_checkpoint(path)
        except UserError as error:
            run.log.warn(f"{error}; trying the one before")
            continue
        run.model.load_state_dict(values["model"])
        run.optimizer.load_state_dict(values["optimizer"])
        torch.set_rng_state(values["torch_rng"])
        run.state.update(values["state"])
        run.step = values["step"]
        run.log.truncate(run.step)
        return True
    run.log.truncate(0)
    return False


def step_files(folder: Path) -> list[Path]:
    """The step checkpoints of a folder, oldest first."""
    numbered = []
    for path in folder.glob("*step_*.pt"):
        match = re.fullmatch(r"(?:\w+_)?step_(\d+)\.pt", path.name)
        if match:
            numbered.append((int(match[1]), path))
    return [path for _, path in sorted(numbered)]
