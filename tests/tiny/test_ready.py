"""Ready-made parts: those in the package fit the code, and what is shipped is what was trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnitune.cli import main
from omnitune.config.settings import load_config
from omnitune.models.loading import assemble
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint, write_checkpoint, write_json
from omnitune.tiny.corpus.build import VERSION
from omnitune.tiny.pretrain_audio import AudioEncoderConfig
from omnitune.tiny.pretrain_lm import ThinkerConfig
from omnitune.tiny.pretrain_vision import VisionEncoderConfig
from omnitune.tiny.ready import PLACES, read_card, ship_parts, write_parts
from omnitune.tiny.stage import load_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs"
CORPUS = {"version": 1, "seed": 2, "scale": 0.5}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    assert len(write_parts(folder)) == len(PLACES)
    return folder


def differs(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {k: (found.get(k), v) for k, v in expected.items() if found.get(k) != v}


def test_they_were_trained_on_the_corpus_of_this_version() -> None:
    """Where it fails, the corpus was changed: `make parts` trains them anew."""
    assert read_card()["corpus"] == {"version": VERSION, "seed": 0, "scale": 1.0}


def test_they_have_the_architecture_of_the_configurations(written: Path) -> None:
    """Where it fails, a part was changed: `make parts` trains them anew."""
    thinker, audio, image = (
        read_checkpoint(written / PLACES[kind])["config"] for kind in ("thinker", "audio", "image")
    )
    config = load_config(ThinkerConfig, CONFIGS / "thinker_tiny.json", [])
    wanted = json.loads(json.dumps(config.architecture(config.vocab_size)))
    wanted.pop("transformers_version")
    known = {key: value for key, value in wanted.items() if key in thinker}
    assert differs(thinker, known) == {}
    heard = load_config(AudioEncoderConfig, CONFIGS / "audio_enc_tiny.json", [])
    assert differs(audio, heard.encoder()) == {}
    seen = load_config(VisionEncoderConfig, CONFIGS / "vision_tiny.json", [])
    assert differs(image, seen.encoder()) == {}
    assert audio["words"] == image["words"] == thinker["vocab_size"]


def test_they_are_joined_without_a_word(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoders = {kind: written / PLACES[kind] for kind in ("audio", "image")}
    model, renderer = assemble(written / PLACES["thinker"], encoders)
    assert capsys.readouterr().out == ""  # the encoders name this thinker's own words
    assert renderer.tokenizer.get_vocab_size() == model.thinker.config.vocab_size
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    beside = load_tokenizer((written / PLACES["thinker"]).with_name("tokenizer.json"))
    assert beside.to_str() == renderer.tokenizer.to_str()  # for who trains another encoder


def test_a_second_time_nothing_is_written(written: Path) -> None:
    before = [(written / place).stat().st_mtime_ns for place in PLACES.values()]
    assert write_parts(written) == []
    assert [(written / place).stat().st_mtime_ns for place in PLACES.values()] == before


def test_another_part_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / PLACES["audio"]
    write_checkpoint(path, {"kind": "audio", "state": {"weight": torch.ones(2)}})
    with pytest.raises(UserError, match=r"audio_enc\.pt: another part is there; --overwrite"):
        write_parts(tmp_path)
    assert [p for p in PLACES.values() if (tmp_path / p).exists()] == [PLACES["audio"]]
    assert len(write_parts(tmp_path, overwrite=True)) == len(PLACES)


def test_a_damaged_part_and_a_lost_tokenizer_are_replaced(tmp_path: Path) -> None:
    write_parts(tmp_path)
    damaged, beside = tmp_path / PLACES["image"], (tmp_path / PLACES["thinker"]).parent
    whole, tokenizer = damaged.read_bytes(), (beside / "tokenizer.json").read_bytes()
    damaged.write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"vision\.pt: is damaged .*; --overwrite replaces it"):
        write_parts(tmp_path)
    (beside / "tokenizer.json").write_text("{}")
    assert write_parts(tmp_path, overwrite=True) == [damaged]
    assert (beside / "tokenizer.json").read_bytes() == tokenizer
    assert read_checkpoint(damaged)["kind"] == "image"
    (beside / "tokenizer.json").unlink()
    assert write_parts(tmp_path) == []
    assert (beside / "tokenizer.json").read_bytes() == tokenizer


def trained(folder: Path) -> dict[str, dict[str, Any]]:
    """What three finished stages leave."""
    made = {}
    for n, (kind, place) in enumerate(PLACES.items()):
        shared = torch.randn(3, 2, generator=torch.Generator().manual_seed(n))
        state = {"in": shared, "out": shared, "seen": torch.tensor(7)}
        made[kind] = {"kind": kind, "config": {"width": n}, "state": state, "scores": {"loss": 0.5}}
        write_checkpoint(folder / place, made[kind])
        run = {"finished": True, "config": {"seed": 0, "data_dir": "x"}, "environment": {}}
        write_json((folder / place).parent / "run.json", run)
    return made


def test_what_is_shipped_is_what_was_trained(tmp_path: Path) -> None:
    made = trained(tmp_path / "there")
    ship_parts(tmp_path / "there", CORPUS | {"more": 1}, tmp_path / "package")
    card = read_card(tmp_path / "package")
    assert card["corpus"] == CORPUS
    assert card["parts"]["image"]["settings"] == {"seed": 0}
    write_parts(tmp_path / "again", folder=tmp_path / "package")
    for kind, place in PLACES.items():
        found = read_checkpoint(tmp_path / "again" / place)
        assert found.keys() == made[kind].keys()
        assert found["scores"] == {"loss": 0.5}
        for name, tensor in made[kind]["state"].items():
            torch.testing.assert_close(found["state"][name], tensor, rtol=1e-3, atol=1e-3)
        assert found["state"]["seen"].dtype == torch.int64


def test_an_unfinished_part_is_not_shipped(tmp_path: Path) -> None:
    trained(tmp_path)
    path = (tmp_path / PLACES["audio"]).parent / "run.json"
    path.write_text(json.dumps({"finished": False}))
    with pytest.raises(UserError, match="its training is not finished"):
        ship_parts(tmp_path, CORPUS, tmp_path / "package")


def test_a_damaged_file_of_the_package_is_named(tmp_path: Path) -> None:
    trained(tmp_path / "there")
    ship_parts(tmp_path / "there", CORPUS, tmp_path / "package")
    with (tmp_path / "package" / "audio.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"audio\.safetensors: is missing or damaged"):
        write_parts(tmp_path / "again", folder=tmp_path / "package")
    assert not (tmp_path / "again").exists()


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for said in ("made", "is there"):
        assert main(["parts", "--checkpoints", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert out.count(f": {said} (") == len(PLACES)
        assert f"corpus {VERSION}, seed 0" in out
