"""Folders of weights that are damaged, not whole, or not what they seem."""

import json
from pathlib import Path

import pytest
import torch
from miniatures import save_thinker_folder
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from omnitune.hub import POINTER, check_weights, load_pretrained
from omnitune.models import families
from omnitune.sample import UserError

EMBEDDINGS = "model.embed_tokens.weight"


def load(folder: Path) -> None:
    load_pretrained(AutoModelForCausalLM, folder)


def test_a_weight_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    rows, width = weights[EMBEDDINGS].shape
    weights[EMBEDDINGS] = weights[EMBEDDINGS][:200].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    said = rf"{EMBEDDINGS} has the size \[200, {width}\], and config.json asks for \[{rows}, "
    with pytest.raises(UserError, match=said):
        load(folder)


def test_a_pointer_of_git_lfs_is_no_weights(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(POINTER + b".github.com/spec/v1\nsize 1\n")
    with pytest.raises(
        UserError, match=r"model\.safetensors: is a pointer of Git LFS.*git lfs pull"
    ):
        check_weights(folder)


def test_what_is_said_of_a_pickle_advises_nothing_unsafe(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": families}, folder / "pytorch_model.bin", pickle_module=_by_name())
    with pytest.raises(UserError, match="damaged, or holds other things than weights"):
        load(folder)


def _by_name():
    """Pickles a module as a call of Python's own, which no reader of weights may execute."""
    import pickle
    import types

    class Pickler(pickle.Pickler):
        def reducer_override(self, thing):
            if isinstance(thing, types.ModuleType):
                return __import__, (thing.__name__,)
            return NotImplemented

    found = types.ModuleType("pickle_by_name")
    found.__dict__.update(pickle.__dict__ | {"Pickler": Pickler})
    return found


def test_a_value_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_size": "32"}))
    with pytest.raises(UserError, match=r"hidden_size': .*expected int"):
        families.load(folder)
