"""Folders of weights that are damaged, not whole, or not what they seem."""

import json
import re
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


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": "wide"}, r"'hidden_size' expected int, got str \(value: 'wide'\); take"),
        ({"hidden_size": 33}, r"The hidden size \(33\) is not a multiple"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(
    tmp_path: Path, values: dict[str, object], said: str
) -> None:
    folder = save_thinker_folder(tmp_path)
    edit(folder, **values)
    for read in (families.load, families.settings_of, load):
        with pytest.raises(UserError, match=f"^{re.escape(str(folder))}/config.json: {said}"):
            read(folder)


def test_a_word_that_the_library_does_not_know_is_told_as_one(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    edit(folder, hidden_act="foo")
    with pytest.raises(UserError, match=r"cannot be loaded \('foo' is not known to it\)"):
        families.load(folder)


def test_layers_that_the_configuration_leaves_out_are_not_dropped(tmp_path: Path) -> None:
    folder = save_thinker_folder(tmp_path)
    edit(folder, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"weight model\.layers\.1\..* asks for 1 layers"):
        load(folder)
    weights = load_file(folder / "model.safetensors")
    whole = {n: w for n, w in weights.items() if not n.startswith("model.layers.1.")}
    whole["tower.layers.1.weight"] = torch.zeros(2)  # of a part that this class does not have
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    load(folder)


def test_what_is_said_while_loading_is_not_in_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(save_thinker_folder(tmp_path))
    found = capsys.readouterr()
    assert f"loading {tmp_path}" in found.err
    assert not found.out
