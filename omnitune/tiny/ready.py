"""Ready-made tiny parts: a thinker and two encoders, trained on the embedded corpus.

They lie in the package in half precision, one safetensors file each, with a JSON file that says
what they are: corpus, commit, settings and held-out scores. ``omnitune parts`` writes them as the
checkpoints that the pretraining stages leave.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnitune.config.settings import read_json_object
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, sha256, write_checkpoint, write_json

SHIPPED = Path(__file__).parent / "parts"
CARD = "parts.json"
TOKENIZER_FILE = "tokenizer.json"  # beside the thinker
# Where each part lies among the checkpoints.
PLACES = {
    "thinker": Path("thinker_tiny/thinker_best.pt"),
    "audio": Path("audio_enc_tiny/audio_enc.pt"),
    "image": Path("vision_tiny/vision.pt"),
}


def read_card(folder: Path = SHIPPED) -> dict[str, Any]:
    """What the ready-made parts are.

    Returns:
        ``corpus`` (``version``, ``seed``, ``scale``), ``commit`` and, by kind, ``parts``:
        ``scores`` (held out), ``settings`` they were trained with, ``sha256`` of the file,
        ``aliases`` (names of weights that are another's) and ``values``, all else that the
        checkpoint holds.
    """
    return read_json_object(folder / CARD)


def write_parts(checkpoints: Path, overwrite: bool = False, folder: Path = SHIPPED) -> list[Path]:
    """Writes the ready-made parts as checkpoints; returns those that were not there yet.

    Raises:
        UserError: another checkpoint or a damaged one lies where one belongs, and is not to be
            replaced; or a file cannot be read or written.
    """
    card = read_card(folder)
    made = {kind: _checkpoint(kind, card["parts"][kind], folder) for kind in PLACES}
    targets = {kind: checkpoints / place for kind, place in PLACES.items()}
    there = {kind: path for kind, path in targets.items() if path.exists()}
    found = {kind: _found(path, overwrite) for kind, path in there.items()}
    others = [path for kind, path in there.items() if not _same(found[kind], made[kind])]
    if others and not overwrite:
        raise UserError(
            f"{', '.join(map(str, others))}: another part is there; --overwrite replaces it, "
            "--checkpoints DIR leaves it alone"
        )
    new = [kind for kind, path in targets.items() if path not in set(there.values()) - set(others)]
    for kind in new:
        write_checkpoint(targets[kind], made[kind])
    for kind, path in targets.items():
        if tokenizer := made[kind].get("tokenizer"):  # encoders are trained with that alone
            beside = path.with_name(TOKENIZER_FILE)
            if kind in new or overwrite or not beside.exists():
                write_json(beside, json.loads(tokenizer))
    return [targets[kind] for kind in new]


def _found(path: Path, overwrite: bool) -> dict[str, Any]:
    """The part that is there; where it will be replaced, an empty one for a damaged one."""
    try:
        return read_checkpoint(path)
    except UserError as error:
        if overwrite:
            return {}
        raise UserError(
            f"{error}; --overwrite replaces it, --checkpoints DIR leaves it alone"
        ) from None


def ship_parts(checkpoints: Path, corpus: dict[str, Any], folder: Path = SHIPPED) -> None:
    """Replaces the ready-made parts by those that were trained last.

    Args:
        corpus: the object of the corpus's ``corpus.json``.

    Raises:
        UserError: a part is missing, or its training was not finished.
    """
    parts: dict[str, Any] = {}
    commits = set()
    for kind, place in PLACES.items():
        path = checkpoints / place
        values = read_checkpoint(path)
        run = read_json_object(path.parent / "run.json")
        if not run.get("finished"):
            raise UserError(f"{path.parent}: its training is not finished; go on with --resume")
        commits.add(run["environment"].get("git commit", ""))
        state, aliases = _halved(values.pop("state"))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / f"{kind}.safetensors")
        parts[kind] = {
            "scores": values.pop("scores"),
            "settings": _recipe(run["config"]),
            "sha256": sha256(folder / f"{kind}.safetensors"),
            "aliases": aliases,
            "values": values,
        }
    card = {
        "corpus": {key: corpus[key] for key in ("version", "seed", "scale")},
        "commit": ", ".join(sorted(commits)),
        "parts": parts,
    }
    write_json(folder / CARD, card)


def _checkpoint(kind: str, card: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / f"{kind}.safetensors"
    if not path.is_file() or sha256(path) != card["sha256"]:
        raise UserError(f"{path}: is missing or damaged; install omnitune anew")
    state = {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in load_file(path).items()
    }
    state |= {alias: state[name] for alias, name in card["aliases"].items()}
    return {**card["values"], "state": state, "scores": card["scores"]}


def _halved(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights in half precision, each once, and the names under which some stand again."""
    halved: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[int, int], str] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() and place in first:
            aliases[name] = first[place]
            continue
        first[place] = name
        half = tensor.half() if tensor.is_floating_point() else tensor
        halved[name] = half.contiguous().clone()
    return halved, aliases


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those of the machine and its folders."""
    own = ("data_dir", "output_dir", "tokenizer", "device", "workers", "trackers", "save_every")
    return {key: value for key, value in settings.items() if key not in own}


def _same(found: dict[str, Any], made: dict[str, Any]) -> bool:
    """Whether two checkpoints hold the same weights for the same settings."""
    one, other = found.get("state"), made["state"]
    if not isinstance(one, dict) or one.keys() != other.keys():
        return False
    settings = [json.dumps(v.get("config"), sort_keys=True) for v in (found, made)]
    return settings[0] == settings[1] and all(
        torch.equal(one[name], tensor) for name, tensor in other.items()
    )
