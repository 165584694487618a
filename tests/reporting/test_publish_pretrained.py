"""Exports of models whose parts are pretrained: they come back as they were, and go to ONNX."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import write_image, write_source, write_wave
from miniatures import save_audio_folder, save_thinker_folder, save_vision_folder

from omnitune import cli
from omnitune.data.taught import Taught
from omnitune.evaluation import certificate
from omnitune.evaluation.certificate import answer_probes
from omnitune.models.loading import assemble, load_omni, read_reading, save_omni
from omnitune.reporting import publish
from omnitune.sample import UserError

TAUGHT = Taught({"image": 1, "audio": 2}, media_after_text=True, media_together=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of a thinker in half precision with DINOv2 and Whisper, its data and its export."""
    home = tmp_path_factory.mktemp("home")
    parts = {
        "image": save_vision_folder(home / "vision"),
        "audio": save_audio_folder(home / "audio"),
    }
    thinker = save_thinker_folder(home / "thinker", dtype=torch.bfloat16)
    save_omni(home / "run" / "omni.pt", *assemble(thinker, parts), step=4, **TAUGHT.values())
    for name in ("images", "audio"):
        (home / "data" / name).mkdir(parents=True)
    write_image(home / "data/images/a.png")
    asked = {"question": "what is it?", "answer": "red.", "split": "test"}
    write_source(home / "data", "image_text", [asked | {"image": "a.png"}])
    for number, seconds in enumerate((0.4, 2.3)):
        write_wave(home / f"data/audio/{number}.wav", seconds, seed=number)
    write_source(home / "data", "audio_text", [asked | {"audio": f"{n}.wav"} for n in (0, 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            certificate,
            "_in_fresh_process",
            lambda folder, probes: answer_probes(
                folder, [{"messages": p.messages, "told": p.told, "room": p.room} for p in probes]
            ),
        )
        publish.export(home / "run", "hf", home / "exported", home / "data")
        yield home


def test_an_export_is_read_as_the_run_is(home: Path) -> None:
    (model, _, values), (back, _, facts) = map(load_omni, (home / "run", home / "exported"))
    expected, found = model.state_dict(), back.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    assert Taught.of(facts) == Taught.of(values) == TAUGHT


def test_commands_take_an_export(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, data = str(home / "exported"), str(home / "data")
    assert cli.main(["evaluate", "--ckpt_dir", out, "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scored_split"] == "test"
    assert cli.main(["inspect", "--ckpt_dir", out, "--data", data]) == 0
    assert cli.main(["chat", "--ckpt_dir", out, "--prompt", "hello", "--max-new-tokens", "2"]) == 0
    assert cli.main(["export", str(tmp_path / "again"), "--ckpt_dir", out, "--data", data]) == 0
    capsys.readouterr()
    for command in (["report", "--ckpt_dir", out], ["compare", out, str(home / "run")]):
        assert cli.main(command) == 2
        assert f"{out}: is an exported model" in capsys.readouterr().err, command


def test_a_folder_that_is_no_export_or_not_whole_is_refused(home: Path, tmp_path: Path) -> None:
    for file in (home / "exported").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model-media.safetensors").unlink()
    with pytest.raises(UserError, match="1 of 2 shards are missing, the first is model-media"):
        load_omni(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for read in (load_omni, lambda folder: read_reading(folder, 100)):
        with pytest.raises(UserError, match="its processor cannot be read"):
            read(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    for read in (load_omni, lambda folder: read_reading(folder, 100)):
        with pytest.raises(UserError, match="family 'qwen2_vl', and no model that omnitune"):
            read(tmp_path)


@pytest.mark.slow
def test_whisper_of_any_length_in_onnx(home: Path, tmp_path: Path) -> None:
    publish.export(home / "run", "onnx", tmp_path / "out", home / "data")
    told = json.loads((tmp_path / "out" / certificate.FILE).read_text())["onnx"]
    assert told["audio"]["dynamic"]
    assert told["audio"]["compared"] == 2
