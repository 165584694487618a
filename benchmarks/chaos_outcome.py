"""What a run has left: read, compared bit for bit with another one's, and damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from omnitune.storage import MANIFEST, read_checkpoint
from omnitune.training import sharded_checkpoint
from omnitune.training.checkpoint import step_files
from omnitune.training.progress import BEST_FILE

CLOCKS = ("seconds", "scoring_seconds")


def read_step(path: Path) -> dict[str, Any]:
    """A step checkpoint, a file or the folder of a divided model; raises UserError."""
    return (sharded_checkpoint.read if path.is_dir() else read_checkpoint)(path)


def damage(rng: random.Random, path: Path) -> None:
    """Flips a bit of a checkpoint or cuts it short, with its manifest there, gone or junk.

    Of a folder, one of its files is meant, and the manifest in it.
    """
    if path.is_dir():
        path = rng.choice(sorted(file for file in path.iterdir() if file.name != MANIFEST))
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    manifest = path.parent / MANIFEST
    change = rng.randrange(3)
    if change == 1:
        manifest.unlink(missing_ok=True)
    elif change == 2:
        manifest.write_bytes(b'{"omni')


def newest_step(folder: Path) -> str:
    """Name of the newest checkpoint of a run."""
    files = step_files(folder)
    return files[-1].stem if files else "none"


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves but the clock's share."""
    model = read_checkpoint(folder / "omni.pt")
    last = read_step(step_files(folder)[-1])
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    best = folder / BEST_FILE
    return {
        "weights": {key: model[key] for key in ("thinker", "proj_v", "proj_a")},
        "optimiser": last["optimizer"],
        "random numbers": last["torch_rng"],
        "run hash": results["run_hash"],
        "scores": without_clock(results),
        "log": [without_clock(json.loads(line)) for line in lines],
        "answers": (folder / "predictions.jsonl").read_bytes(),
        "best": read_checkpoint(best)["model"] if best.exists() else None,
    }


def without_clock(value: Any) -> Any:
    """Values without the seconds that something took."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in CLOCKS}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def difference(one: Any, other: Any, place: str = "") -> str:
    """Where nested values first differ, and how; "" where they are equal, tensors bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        places = ((f"{place}.{key}", value, other[key]) for key, value in one.items())
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{place}: {len(one)} entries, not {len(other)}"
        places = ((f"{place}[{n}]", *pair) for n, pair in enumerate(zip(one, other, strict=True)))
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return "" if torch.equal(one, other) else f"{place}: tensors of {tuple(one.shape)}"
    else:
        return "" if one == other else f"{place}: {str(one)[:200]}, not {str(other)[:200]}"
    return next((found for p, a, b in places if (found := difference(a, b, p))), "")


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal, tensors bit for bit."""
    return not difference(one, other)
