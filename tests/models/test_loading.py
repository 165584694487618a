"""Parts written and read back, and what is said when one is missing or another's."""

from pathlib import Path

import pytest
import torch
from helpers import ENCODERS, mixed_samples, tiny_model, tiny_reader, tiny_renderer, tiny_tokenizer

from omnitune.data.packing import pack
from omnitune.encoders.vocab_head import VocabHead
from omnitune.models.loading import (
    assemble,
    load_omni,
    save_encoder,
    save_omni,
    save_thinker,
    vocabulary,
)
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint


def write_parts(folder: Path, model: OmniModel) -> tuple[Path, dict[str, Path]]:
    thinker = folder / "thinker.pt"
    save_thinker(thinker, model, tiny_tokenizer(), scores={"loss": 1.0})
    paths = {name: folder / f"{name}.pt" for name in ENCODERS}
    for name, path in paths.items():
        save_encoder(path, name, ENCODERS[name], model.encoders[name].state_dict())
    return thinker, paths


def test_assembled_parts_are_the_saved_ones(tmp_path: Path) -> None:
    model = tiny_model(seed=3)
    joined, renderer = assemble(*write_parts(tmp_path, model))
    state = joined.state_dict()
    parts = {n: t for n, t in model.state_dict().items() if n.startswith(("thinker", "encoders"))}
    assert parts
    assert all(torch.equal(state[name], tensor) for name, tensor in parts.items())
    assert renderer.tokenizer.to_str() == tiny_tokenizer().to_str()


def test_fresh_projectors_follow_the_seed(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, tiny_model())
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(assemble(*parts)[0].proj_v.state_dict())
    assert torch.equal(states[0]["down.weight"], states[1]["down.weight"])
    assert not torch.equal(states[0]["down.weight"], states[2]["down.weight"])


def test_words_of_another_vocabulary_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An encoder that names the thinker's words keeps its readout, another loses it and says so."""
    thinker, paths = write_parts(tmp_path, tiny_model())
    head = torch.nn.Linear(ENCODERS["audio"]["hidden_size"], 6)
    path = paths["audio"]
    state = read_checkpoint(path)["state"] | VocabHead.state_of(head)
    known = vocabulary(tiny_tokenizer())
    for words in (known, "another"):
        settings = ENCODERS["audio"] | {"words": 5, "slot_share": 0.5}
        save_encoder(path, "audio", settings, state, vocabulary=words)
        model = assemble(thinker, paths)[0]
        warned = f"{path} names words of another thinker's vocabulary" in capsys.readouterr().out
        assert warned == (words != known)
        readout = model.readout("audio")
        assert (readout is None) == warned
        assert readout is None or torch.equal(readout.weight, head.weight)
        assert model.modalities["audio"].num_slots(torch.zeros(160, 40)) == (20 if warned else 10)


def test_every_missing_or_swapped_part_is_named(tmp_path: Path) -> None:
    thinker, encoders = write_parts(tmp_path, tiny_model())
    swapped = {"image": encoders["audio"], "audio": tmp_path / "none.pt"}
    with pytest.raises(UserError) as error:
        assemble(thinker, swapped)
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "audio.pt: is a checkpoint of kind 'audio', expected 'image'" in lines[0]
    assert (
        "none.pt: no such checkpoint; make it with `omnitune parts` or `omnitune pretrain"
        in lines[1]
    )
    with pytest.raises(UserError, match="expected 'thinker'"):
        assemble(encoders["image"], encoders)


def test_whole_model_answers_as_before(tmp_path: Path) -> None:
    model = tiny_model(seed=4)
    save_omni(tmp_path / "omni.pt", model, tiny_renderer(), step=12)
    samples = mixed_samples(tmp_path)
    expected = model.token_scores(pack([tiny_reader(model).item(s) for s in samples])).nll_N
    for place in (tmp_path, tmp_path / "omni.pt"):
        found, renderer, values = load_omni(place)
        batch = pack([tiny_reader(found).item(s) for s in samples])
        assert torch.equal(found.token_scores(batch).nll_N, expected)
        assert renderer.tokenizer.to_str() == tiny_tokenizer().to_str()
        assert values["step"] == 12
        assert not found.training
        assert not any(p.requires_grad for p in found.parameters())


def test_keys_of_the_whole_model(tmp_path: Path) -> None:
    save_omni(tmp_path / "omni.pt", tiny_model(), tiny_renderer())
    values = read_checkpoint(tmp_path / "omni.pt")
    assert {"thinker", "proj_v", "proj_a", "encoders", "config", "tokenizer"} <= set(values)
    assert set(values["proj_v"]) == set(tiny_model().proj_v.state_dict())


def test_whole_model_that_is_missing_another_kind_or_of_other_sizes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sft_omni"):
        load_omni(tmp_path)
    thinker, _ = write_parts(tmp_path, tiny_model())
    with pytest.raises(UserError, match="expected 'omni'"):
        load_omni(thinker)
    save_omni(tmp_path / "omni.pt", tiny_model(), tiny_renderer())
    values = read_checkpoint(tmp_path / "omni.pt")
    values["proj_a"]["down.bias"] = torch.zeros(5)
    write_checkpoint(tmp_path / "omni.pt", values)
    with pytest.raises(UserError, match=r"omni\.pt: its weights do not fit"):
        load_omni(tmp_path)


@pytest.mark.parametrize("tokenizer", [None, 3, "", "{}"])
def test_a_model_without_a_tokenizer_is_named(tmp_path: Path, tokenizer: object) -> None:
    path = tmp_path / "mine"  # a file is found by any name
    save_omni(path, tiny_model(), tiny_renderer())
    write_checkpoint(path, read_checkpoint(path) | {"tokenizer": tokenizer})
    with pytest.raises(UserError, match="mine: holds no tokenizer that can be read"):
        load_omni(path)


@pytest.mark.parametrize("wrong", [{"max_seconds": 0}, {"long_audio": "cut"}])
def test_an_encoder_of_wrong_settings_is_named_and_not_the_thinker(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    model = tiny_model()
    thinker, paths = write_parts(tmp_path, model)
    state = model.encoders["audio"].state_dict()
    save_encoder(paths["audio"], "audio", ENCODERS["audio"] | wrong, state)
    with pytest.raises(UserError, match=rf"^{paths['audio']}: "):
        assemble(thinker, paths)


def test_encoder_weights_of_another_size_are_named(tmp_path: Path) -> None:
    thinker, paths = write_parts(tmp_path, tiny_model())
    state = tiny_model().encoders["image"].state_dict()
    save_encoder(paths["image"], "image", ENCODERS["image"] | {"hidden_size": 8}, state)
    with pytest.raises(UserError, match=r"image\.pt: its weights do not fit"):
        assemble(thinker, paths)
