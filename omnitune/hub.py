"""Pretrained parts in the layout of Hugging Face: a local folder, or a repository of the Hub.

Nothing of a repository is executed: weights are safetensors or read by ``weights_only``, and code
that lies beside them stays where it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from omnitune.config.settings import read_json_object
from omnitune.sample import UserError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What is fetched of a repository. It may hold the same weights in other formats, in other number
# formats and in folders for other programs too: of weights the first of these kinds that it has.
WANTED = ("*.json", "*.jinja", "*.model", "*.txt")
STORED = (
    ("model.safetensors", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*.bin"),
)
# ``owner/name`` or ``name``, and after an @ the revision: a branch, a tag or a commit.
# How a file begins that stands for another one, which git has not fetched.
POINTER = b"version https://git-lfs"
_LAYER = re.compile(r"(?P<stack>(?:[^.]+\.)*?)(?P<number>[0-9]+)\.")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def say(text: str) -> None:
    """Tells what takes a while: on standard error, as standard output may be read as JSON."""
    print(text, file=sys.stderr, flush=True)


def is_repository(given: str | Path) -> bool:
    """Whether a text has the form of a Hub id and no file or folder of that name is there."""
    text = Path(given).as_posix()
    is_id = _REPOSITORY.fullmatch(text) and not text.startswith(".")
    return bool(is_id) and not text.endswith(".pt") and not Path(given).exists()


def find_part(given: str | Path) -> Path:
    """The file or folder of a part; a Hub id is fetched into the Hub's cache first.

    What the cache holds whole is taken without asking the Hub.

    Raises:
        UserError: the repository is neither cached nor to be had; says what to do.
    """
    if not is_repository(given):
        return Path(given)
    name, _, revision = Path(given).as_posix().partition("@")
    if (folder := _cached(name, revision)) is not None:
        return folder
    say(f"fetching {name} from the Hugging Face Hub")
    try:
        return _fetched(name, revision)
    except Exception as error:  # the library's errors have many classes
        raise UserError(f"{given}: {refusal(name, revision, error)}") from None


def _options(revision: str, weights: Iterable[str]) -> dict[str, Any]:
    patterns = [*WANTED, *weights]
    return {"revision": revision or None, "allow_patterns": patterns, "ignore_patterns": "*/*"}


def _cached(name: str, revision: str) -> Path | None:
    """The folder of a repository in the cache, if it is whole."""
    # Imported here: most runs read local files, and this takes a second.
    from huggingface_hub import snapshot_download

    for weights in STORED:
        try:
            options = _options(revision, weights)
            folder = Path(snapshot_download(name, local_files_only=True, **options))
        except Exception:  # not cached, or not whole
            return None
        if any(found for pattern in weights for found in folder.glob(pattern)):
            return folder
    return None


def _fetched(name: str, revision: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    files = HfApi().list_repo_files(name, revision=revision or None)
    held = [weights for weights in STORED if any(fnmatch(f, p) for f in files for p in weights)]
    return Path(snapshot_download(name, **_options(revision, held[0] if held else ())))


def refusal(name: str, revision: str, error: Exception, data_set: bool = False) -> str:
    """Why the Hub does not give a repository, and what to do about it."""
    from huggingface_hub import errors

    what, option = ("data set", "--repo-type dataset ") if data_set else ("repository", "")
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"the Hugging Face Hub gives {name} only to those who have accepted its terms; accept "
            "them on its page there, and log in (hf auth login, or HF_TOKEN)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{name} has no revision {revision!r} on the Hugging Face Hub; give a branch, a tag or "
            "a whole commit that it has, or none"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return (
            f"no such file or folder, and the Hugging Face Hub has no {what} of this name that is "
            "open to you; check the name, and if it is private log in (hf auth login, or HF_TOKEN)"
        )
    if status >= 500:
        return (
            f"the Hugging Face Hub has a fault of its own (status {status}); try again later: "
            "files that have arrived whole are kept"
        )
    return (
        f"no such file or folder, and the Hugging Face Hub does not give it ({said_by(error)}); "
        "check the name and the network and try again (files that have arrived whole are kept), "
        f"or fetch it where there is a network (hf download {option}{name}) and give the folder"
    )


def is_folder(path: Path) -> bool:
    """Whether a part is to be read as a folder: it is one, or is missing and named as no file."""
    return path.is_dir() or not (path.exists() or path.suffix == ".pt")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a pretrained folder, with its ``model_type``.

    Raises:
        UserError: the folder is missing, or holds no model of this layout.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such file or folder; expected a checkpoint, a folder with {CONFIG}, or "
            "the id of a repository of the Hugging Face Hub (owner/name)"
        )
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: holds no {CONFIG}; expected a model in Hugging Face's layout")
    values = read_json_object(folder / CONFIG)
    if not isinstance(values.get("model_type"), str):
        raise UserError(f'{folder / CONFIG}: "model_type" is missing, which names the family')
    return values


def read_optional(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object that a folder may hold; an empty one where it does not."""
    return read_json_object(folder / name) if (folder / name).is_file() else {}


def check_weights(folder: Path) -> list[Path]:
    """The files of a folder's weights.

    Raises:
        UserError: there are none, or a shard that the index names is missing; names it.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            files = [folder / name]
        elif (folder / f"{name}.index.json").is_file():
            files = _shards(folder, f"{name}.index.json")
        else:
            continue
        for file in files:
            _check_pointer(file)
        return files
    raise UserError(
        f"{folder}: holds no weights; expected {' or '.join(WEIGHTS)}, or shards with their index"
    )


def _check_pointer(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(POINTER)) == POINTER:
            raise UserError(
                f"{file}: is a pointer of Git LFS and holds no weights; fetch them (git lfs pull, "
                "in the folder)"
            )


def _shards(folder: Path, index: str) -> list[Path]:
    places = read_json_object(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f'{folder / index}: "weight_map" is missing, which names the shards')
    names = sorted({str(name) for name in places.values()})
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing, the first is "
            f"{missing[0]} ({index} names it); fetch the folder again"
        )
    return [folder / name for name in names]


def load_pretrained(kind: Any, folder: Path, **options: Any) -> Any:
    """A model of one of transformers' classes, with all its weights from a folder.

    Args:
        kind: has ``from_pretrained``. options: of that; without a ``dtype`` weights keep theirs.

    Raises:
        UserError: weights are missing, damaged or of another size; names the first.
    """
    size = sum(file.stat().st_size for file in check_weights(folder))
    say(f"loading {folder} ({size / 1e6:,.0f} MB)")
    options = {"dtype": "auto", "local_files_only": True, "trust_remote_code": False} | options
    # Of what has another size it says no more than that there is something.
    options["ignore_mismatched_sizes"] = True
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, found = kind.from_pretrained(folder, output_loading_info=True, **options)
    except UserError:
        raise
    except Exception as error:  # the library has no class of its own for what it finds wrong
        check_said(folder, error)
        raise UserError(f"{folder}: its weights cannot be loaded ({said_by(error)})") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    _check_loaded(folder, found)
    _check_layers(folder, found.get("unexpected_keys") or (), model.state_dict())
    return model


def check_said(folder: Path, error: Exception) -> None:
    """Raises a UserError that names the key, if an error is about a value of the configuration."""
    if not isinstance(error, StrictDataclassError):
        return
    _, _, said = str(error).partition("\n")
    said = re.sub(r"^\s*\w+: (Field )?", "", said or str(error)).partition(". Errors:")[0]
    raise UserError(f"{folder / CONFIG}: {said}; take the file from where the weights come from")


def said_by(error: Exception) -> str:
    """An error's own words, as far as they are one sentence."""
    if isinstance(error, KeyError):  # its text is the key alone
        return f"{error} is not known to it"
    text = str(error).strip() or type(error).__name__
    if "weights_only" in text:  # torch advises to execute what is there
        return "it is damaged, or holds other things than weights"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _check_loaded(folder: Path, found: Mapping[str, Any]) -> None:
    if other := sorted(found.get("mismatched_keys") or ()):
        name, *sizes = other[0]
        there, asked = (list(size) for size in sizes)
        raise UserError(
            f"{folder}: {name} has the size {there}, and {CONFIG} asks for {asked}; weights and "
            "configuration are of two models"
        )
    if missing := sorted(found.get("missing_keys") or ()):
        raise UserError(
            f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}; they would "
            "be random, so take a whole checkpoint of this class"
        )


def _check_layers(folder: Path, surplus: Iterable[str], there: Iterable[str]) -> None:
    """Refuses weights of layers that the configuration leaves out of a stack which it has."""
    stacks: dict[str, set[int]] = {}
    for name in there:
        if found := _LAYER.match(name):
            stacks.setdefault(found["stack"], set()).add(int(found["number"]))
    for name in sorted(surplus):
        found = _LAYER.match(name)
        numbers = stacks.get(found["stack"], set()) if found else set()
        if found and numbers and int(found["number"]) not in numbers:
            raise UserError(
                f"{folder}: holds the weight {name}, and {CONFIG} asks for {len(numbers)} layers "
                f"({found['stack']}0 to {max(numbers)}); without the others it is another model, "
                "so take both files from one checkpoint"
            )


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types and values of weights: equal for equal weights, wherever they lie."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
