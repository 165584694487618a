"""omnitune export: what is written is what was trained, or nothing is left of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ENCODERS, tiny_model, tiny_renderer, write_image, write_source, write_wave
from miniatures import save_thinker_folder
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM

from omnitune import cli
from omnitune.config.lora import LoraSettings
from omnitune.evaluation import certificate
from omnitune.evaluation.evaluate import evaluate_checkpoint
from omnitune.models import adapters, export
from omnitune.models.exported import load_exported
from omnitune.models.loading import load_omni, load_thinker, read_reading, save_omni
from omnitune.reporting import publish
from omnitune.reporting.model_card import UNKNOWN, licence_of, write_card
from omnitune.sample import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a model, and data that are held out."""
    folder = tmp_path_factory.mktemp("home")
    save_omni(folder / "run" / "omni.pt", tiny_model(), tiny_renderer(), step=4)
    for name in ("images", "audio"):
        (folder / "data" / name).mkdir(parents=True)
    write_image(folder / "data/images/a.png")
    write_wave(folder / "data/audio/a.wav", 0.4)
    write_wave(folder / "data/audio/b.wav", 0.9, seed=1)
    pictures = [
        {"image": "a.png", "question": f"which color is {n}?", "answer": "red.", "split": "test"}
        for n in range(3)
    ]
    sounds = [
        {"audio": f"{n}.wav", "question": "what is said?", "answer": "sky.", "split": "test"}
        for n in "ab"
    ]
    write_source(folder / "data", "image_text", pictures)
    write_source(folder / "data", "audio_text", sounds)
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported model is reopened here: a fresh process takes seconds."""

    def here(folder: Path, probes: list[Any]) -> list[dict[str, Any]]:
        asked = [{"messages": p.messages, "told": p.told, "room": p.room} for p in probes]
        return certificate.answer_probes(folder, asked)

    monkeypatch.setattr(certificate, "_in_fresh_process", here)


def test_an_export_by_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The only one that is reopened in a process of its own."""
    out = home / "exported"
    words = ["export", str(out), "--ckpt_dir", str(home / "run"), "--data", str(home / "data")]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "opened again in a fresh process" in said
    assert "1 of text, 3 of image, 2 of audio" in said
    found = json.loads((out / certificate.FILE).read_text())
    assert found["probes"] == {"text": 1, "image": 3, "audio": 2}
    assert found["prompt_tokens_equal"] == found["answers_equal"] == 6
    assert found["template_alone_equal"] == 6
    assert found["logits"]["largest_difference"] < found["logits"]["tolerance"]
    assert set(found["versions"]) >= {"omnitune", "torch", "transformers"}
    assert found["files"].items() <= certificate.digests(out).items()
    assert not list(home.glob(f"*{publish.WRITING}"))


def test_what_is_there_is_not_overwritten(home: Path, in_process: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish.export(home / "run", "hf", out, home / "data")
    with pytest.raises(UserError, match="--overwrite"):
        publish.export(home / "run", "hf", out, home / "data")
    publish.export(home / "run", "hf", out, home / "data", overwrite=True)
    (out / "thinker" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds thinker/mine\.txt beside an earlier export"):
        publish.export(home / "run", "hf", out, home / "data", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        publish.export(home / "run", "hf", tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "mine.txt").read_text() == "x"


def change_weights(folder: Path) -> None:
    path = folder / "model-media.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith("down.weight"))
    state[name] = state[name] + 1.0
    save_file(state, path, metadata={"format": "pt"})


def change_tokens(folder: Path) -> None:
    path = folder / "processor_config.json"
    values = json.loads(path.read_text())
    values["image_processor"]["settings"]["pixel_shuffle"] = 4
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "said"),
    [(change_weights, "the logits of .* \\((image|audio)\\)"), (change_tokens, "prompt tokens")],
)
def test_another_model_is_refused_and_named(
    home: Path,
    in_process: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    said: str,
) -> None:
    write = publish.write_standard

    def write_and_change(out: Path, *rest: Any) -> None:
        write(out, *rest)
        change(out)

    monkeypatch.setattr(publish, "write_standard", write_and_change)
    with pytest.raises(UserError, match=said):
        publish.export(home / "run", "hf", tmp_path / "out", home / "data")
    assert not list(tmp_path.iterdir())


def test_an_export_that_cannot_be_opened_is_taken_back(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = publish.write_standard

    def write_and_lose(out: Path, *rest: Any) -> None:
        write(out, *rest)
        (out / "model-media.safetensors").unlink()

    monkeypatch.setattr(publish, "write_standard", write_and_lose)
    with pytest.raises(UserError, match="cannot be opened, so it was taken back"):
        publish.export(home / "run", "hf", tmp_path / "out", home / "data")
    assert not list(tmp_path.iterdir())


def test_without_data_texts_are_compared_and_that_is_said(
    home: Path, in_process: None, tmp_path: Path
) -> None:
    lines = publish.export(home / "run", "hf", tmp_path / "out", tmp_path / "nowhere")
    assert any("no held-out records were compared" in line and "nowhere" in line for line in lines)


def test_half_precision_is_compared_exactly(home: Path, in_process: None, tmp_path: Path) -> None:
    """And the checkpoint's own weights are written, not what they were compared in."""
    model, renderer = load_thinker(
        save_thinker_folder(tmp_path / "thinker", dtype=torch.bfloat16), ENCODERS
    )
    save_omni(tmp_path / "run" / "omni.pt", model, renderer)
    publish.export(tmp_path / "run", "hf", tmp_path / "out", home / "data")
    found = json.loads((tmp_path / "out" / certificate.FILE).read_text())
    assert found["answers_equal"] == sum(found["probes"].values()) == 6
    assert found["logits"]["largest_difference"] < 1e-4
    state = load_file(tmp_path / "out" / "model-thinker.safetensors")
    thinker = model.thinker.state_dict()
    assert all(torch.equal(thinker[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("settings", [{}, {"dora": True, "rslora": True}])
def test_adapters(home: Path, in_process: None, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Beside their base as PEFT has them, or merged; the plain export says which to choose."""
    model = tiny_model()
    adapters.add_adapters(model, LoraSettings(r=4, alpha=8, **settings))
    draw = torch.Generator().manual_seed(0)
    for name, weight in model.thinker.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=draw) * 0.1
    save_omni(tmp_path / "run" / "omni.pt", model, tiny_renderer())
    with pytest.raises(UserError, match="--to merged"):
        publish.export(tmp_path / "run", "hf", tmp_path / "hf", home / "data")
    publish.export(tmp_path / "run", "merged", tmp_path / "merged", home / "data")
    publish.export(tmp_path / "run", "adapter", tmp_path / "adapter", home / "data")
    merged = AutoModelForMultimodalLM.from_pretrained(tmp_path / "merged").eval()
    beside, _ = load_exported(tmp_path / "adapter")
    base = AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter" / "base").eval()
    ids = torch.tensor([[2, 40, 41, 4, 3]])
    with torch.no_grad():
        logits = beside(input_ids=ids).logits
        assert torch.allclose(merged(ids).logits, logits, atol=1e-4)
        assert not torch.allclose(base(ids).logits, logits, atol=1e-2)
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files >= {"adapter_config.json", "adapter_model.safetensors", "base", "README.md"}
    with pytest.raises(UserError, match="is an adapter"):
        load_omni(tmp_path / "adapter")


def test_the_folder_that_one_stands_in(
    home: Path, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    publish.export(home / "run", "hf", Path("."), home / "data")
    assert (tmp_path / "here" / "config.json").is_file()
    assert "# here" in (tmp_path / "here" / "README.md").read_text()


def test_what_cannot_be_written_is_named(home: Path, in_process: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file.*: cannot be written \(Not a directory\); give"):
        publish.export(home / "run", "hf", tmp_path / "file" / "out", home / "data")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("to", ["hf", "adapter"])
def test_a_full_disk_is_told_of_and_nothing_is_left(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    def full(state: Any, path: Path, **_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    model = tiny_model()
    if to == "adapter":
        adapters.add_adapters(model, LoraSettings(r=2))
    save_omni(tmp_path / "run" / "omni.pt", model, tiny_renderer())
    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(UserError, match=r"safetensors: cannot be written \(.*No space left"):
        publish.export(tmp_path / "run", to, tmp_path / "out", home / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_weights_may_be_read_by_whoever_may_read_the_rest(home: Path, tmp_path: Path) -> None:
    export.write_standard(tmp_path / "out", tiny_model(), tiny_renderer())
    assert len({path.stat().st_mode for path in (tmp_path / "out").glob("*.*")}) == 1


def test_a_model_without_adapter_has_none_to_export(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--to hf"):
        publish.export(home / "run", "adapter", tmp_path / "out", home / "data")


def test_commands_score_an_export(home: Path, in_process: None, tmp_path: Path) -> None:
    publish.export(home / "run", "hf", tmp_path / "out", home / "data")
    expected = evaluate_checkpoint(home / "run", home / "data", "")
    found = evaluate_checkpoint(tmp_path / "out", home / "data", "")
    limits = read_reading(tmp_path / "out", 100)
    assert limits.modalities.keys() == {"image", "audio"}
    assert found["tasks"].keys() == expected["tasks"].keys()
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_onnx(home: Path, tmp_path: Path) -> None:
    lines = publish.export(home / "run", "onnx", tmp_path / "out", home / "data")
    told = json.loads((tmp_path / "out" / certificate.FILE).read_text())["onnx"]
    assert told["image"]["input"] == [3, 32, 32]
    assert told["audio"]["dynamic"]
    assert told["audio"]["compared"] == 2
    assert {path.name for path in (tmp_path / "out").glob("*.onnx")} == {"image.onnx", "audio.onnx"}
    assert any("any length" in line for line in lines)


def test_the_card(home: Path, tmp_path: Path) -> None:
    run, base = tmp_path / "run", tmp_path / "parts" / "thinker"
    run.mkdir()
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    results = {
        "scored_split": "test",
        "image_qa_acc": 0.75,
        "intervals": {"image_qa_acc": [0.7, 0.8]},
        "tasks": {"image_qa": {"exact_match": 0.75, "questions": 40}},
    }
    config = {
        "data_dir": "/home/somebody/data",
        "learning_rate": 0.001,
        "data_mix": {"image_text": 0.5},
        "vision_ckpt": "/home/somebody/vision.pt",
    }
    (run / "results.json").write_text(json.dumps(results))
    (run / "run.json").write_text(json.dumps({"config": config}))
    write_card(
        tmp_path / "README.md",
        "model",
        run,
        {"thinker": str(base)},
        {"probes": {"image": 2}, "answers_equal": 2},
    )
    text = (tmp_path / "README.md").read_text()
    for words in ("75.0 %", "| image_text | 0.5 |", "`learning_rate` | 0.001", "apache-2.0"):
        assert words in text, words
    assert "somebody" not in text
    got = {"got": 1200, "share": 0.25, "asked": 1210}
    row = {"asked": 0.26, "samples": got, "tokens": got, "supervised": got}
    results |= {
        "receipt": {"total": {"image_text": row}},
        "run_hash": {"hash": "00ff", "steps": 12},
    }
    (run / "results.json").write_text(json.dumps(results))
    told = {"probes": {"image": 2}, "answers_equal": 2}
    write_card(tmp_path / "README.md", "model", run, {}, told)
    text = (tmp_path / "README.md").read_text()
    assert f"| image_text | 26.0 % {'| 1,200 (25.0 %) ' * 3}|" in text
    assert "Run hash: `00ff` after 12 steps." in text
    assert licence_of(run) == UNKNOWN
