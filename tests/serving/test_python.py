"""Three lines of Python: a model of a run, and the same one exported."""

import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import tiny_model, tiny_renderer, write_image, write_wave
from PIL import Image

import omnitune
from omnitune import ChatModel, load_model
from omnitune.models.export import write_standard
from omnitune.models.loading import load_omni, save_omni
from omnitune.sample import UserError
from omnitune.serving.session import ChatSession


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_omni(folder / "omni.pt", tiny_model(max_positions=512), tiny_renderer())
    write_image(folder / "a.png")
    write_wave(folder / "a.wav")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return load_model(folder, device="cpu")


def talk(model: ChatModel, text: str, **media: Path) -> str:
    """As the terminal answers."""
    session = ChatSession(model.model, model.renderer, 20)
    for kind, path in media.items():
        session.attach(path, kind)
    return "".join(session.ask(text))


def test_it_says_what_the_terminal_says(model: ChatModel, folder: Path) -> None:
    image, audio = folder / "a.png", folder / "a.wav"
    given: list[dict[str, Any]] = [{}, {"image": image}, {"audio": audio}]
    given.append({"image": image, "audio": audio})
    answers = [model.chat("what is it?", max_new_tokens=20, **media) for media in given]
    assert answers == [talk(model, "what is it?", **media) for media in given]
    assert len(set(answers)) == 4


def test_an_exported_folder_says_the_same(model: ChatModel, folder: Path, tmp_path: Path) -> None:
    whole, renderer, _ = load_omni(folder)
    write_standard(tmp_path / "hf", whole, renderer)
    other = load_model(tmp_path / "hf", device="cpu")
    for media in ({}, {"image": folder / "a.png"}):
        assert other.chat("hello", max_new_tokens=9, **media) == model.chat(
            "hello", max_new_tokens=9, **media
        )


def test_media_as_programs_hold_them(model: ChatModel, folder: Path) -> None:
    path = folder / "a.png"
    with Image.open(path) as image:
        forms = [path, str(path), path.read_bytes(), image.copy(), np.asarray(image), [path, None]]
    answers = {model.chat("what?", image=form, max_new_tokens=9) for form in forms[:-1]}
    assert len(answers) == 1
    nothing = model.chat("what?", image=None, audio=[], max_new_tokens=9)
    assert nothing == model.chat("what?", max_new_tokens=9)


def test_sounds_as_programs_hold_them(model: ChatModel, folder: Path) -> None:
    path = folder / "a.wav"
    samples, rate = soundfile.read(path)
    tensor = torch.tensor(samples, dtype=torch.float32, requires_grad=True)
    stereo = np.stack([samples, samples])
    forms = [path, samples, (samples, rate), tensor, (tensor, rate), stereo, stereo.T, stereo[:1]]
    forms += [{"array": samples, "sampling_rate": rate}, {"bytes": path.read_bytes(), "path": None}]
    forms += [io.BytesIO(path.read_bytes()), memoryview(path.read_bytes())]
    answers = {model.transcribe(form, max_new_tokens=9) for form in forms}
    assert len(answers) == 1


def test_pictures_as_programs_hold_them(model: ChatModel, folder: Path) -> None:
    path = folder / "a.png"
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image))
    forms = [path, pixels, pixels.permute(2, 0, 1), {"path": str(path)}, path.open("rb")]
    assert len({model.chat("what?", image=form, max_new_tokens=9) for form in forms}) == 1


def test_pieces_add_up(model: ChatModel, folder: Path) -> None:
    pieces = list(model.chat("what?", image=folder / "a.png", stream=True, max_new_tokens=20))
    assert len(pieces) > 1
    assert "".join(pieces) == model.chat("what?", image=folder / "a.png", max_new_tokens=20)


def test_several_turns(model: ChatModel, folder: Path) -> None:
    session = model.session(20)
    session.attach(str(folder / "a.png"), "image")
    first = "".join(session.ask("what is it?"))
    second = "".join(session.ask("and why?"))
    turns = [
        {"role": "user", "content": "what is it?", "image": folder / "a.png"},
        {"role": "assistant", "content": first},
    ]
    assert model.chat("and why?", messages=turns, max_new_tokens=20) == second
    turns.append({"role": "user", "content": "and why?"})
    assert model.chat(messages=turns, max_new_tokens=20) == second
    assert model.media_rows.hits > 0


def test_settings(model: ChatModel) -> None:
    def drawn(seed: int) -> str:
        return model.chat("what?", temperature=1.5, seed=seed, max_new_tokens=20)

    assert drawn(1) == drawn(1) != drawn(2)
    whole = model.chat("what?", max_new_tokens=20)
    assert model.chat("what?", stop=whole[3:6], max_new_tokens=20) == whole[:3].rstrip()


def test_transcripts(model: ChatModel, folder: Path) -> None:
    asked = model.chat("Transcribe the speech.", audio=folder / "a.wav", max_new_tokens=9)
    assert model.transcribe(folder / "a.wav", max_new_tokens=9) == asked
    assert model.transcribe((folder / "a.wav").read_bytes(), max_new_tokens=9) == asked
    silent = ChatModel(tiny_model(media=["image"]), tiny_renderer())
    with pytest.raises(UserError, match="no encoder for audio"):
        silent.transcribe(folder / "a.wav")


def test_threads_share_the_steps(model: ChatModel) -> None:
    texts = [f"number {n}?" for n in range(6)]
    alone = [model.chat(text, max_new_tokens=15) for text in texts]
    found: dict[str, str] = {}

    def ask(text: str) -> None:
        found[text] = model.chat(text, max_new_tokens=15)

    threads = [threading.Thread(target=ask, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[text] for text in texts] == alone


def test_a_stream_left_early_frees_its_place(model: ChatModel) -> None:
    pieces = model.chat("hello", stream=True)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    model.chat("hello", max_new_tokens=3)
    assert model._scheduler.idle


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing to answer"),
        ({"text": "a", "image": "gone.png"}, "gone.png: no such image file"),
        ({"text": "a", "picture": "a.png"}, "there is no 'picture'; media are image, audio"),
        ({"text": "a", "image": object()}, "expected a path"),
        ({"text": "a", "temperature": -1}, "temperature is -1"),
        ({"text": "a", "top_p": 0}, "top_p is 0"),
        ({"text": "a", "max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"text": 3}, "text is int, expected a text"),
        ({"text": "a", "seed": [1]}, "seed is \\[1\\], expected a whole number"),
        ({"text": "a", "stop": [3]}, "stop is \\[3\\], expected a text"),
        ({"text": "a", "max_new_tokens": None}, "max_new_tokens is None"),
        ({"text": "a", "temperature": "hot"}, "temperature is 'hot'"),
        ({"messages": "hello"}, "messages is str, expected a list"),
        ({"messages": ["hello"]}, "message 1 is str, expected an object"),
        ({"image": "https://example.org/a.png"}, "an address, and nothing is fetched"),
        ({"image": "data:image/png;base64,AAAA"}, "an address, and nothing is fetched"),
        ({"image": "x" * 5000}, "no such file"),
        ({"image": np.zeros((2, 3, 4, 5))}, "expected a path"),
        ({"audio": [0.1, 0.2]}, "audio is a list of numbers"),
        ({"audio": np.zeros((2, 3, 4))}, "expected a path"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "message 1: \"role\" is 'robot'"),
        ({"messages": [{"role": "user", "content": [1]}]}, 'message 1: "content" is list'),
        (
            {"text": "a", "messages": [{"role": "assistant", "content": "b", "image": "a.png"}]},
            "what the user says",
        ),
    ],
)
def test_mistakes_are_told(model: ChatModel, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        model.chat(**given)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no omni"):
        load_model(tmp_path)


def test_what_is_no_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "processor_config.json").write_text("{}")
    given: list[tuple[Any, str]] = [
        (tmp_path / "gone", "no such folder"),
        (tmp_path / "junk.pt", "is not a checkpoint that can be read"),
        (folder / "a.png", "is not a checkpoint that can be read"),
        (tmp_path / "hf", "holds no config.json"),
        (None, "ckpt_dir is None"),
    ]
    for path, said in given:
        with pytest.raises(UserError, match=said):
            load_model(path)
    for device in ("tpu", "cuda:99", "mps"):
        with pytest.raises(UserError, match="device is"):
            load_model(folder, device)


def test_the_file_of_a_model(model: ChatModel, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes((folder / "omni.pt").read_bytes())
    answer = load_model(str(path), torch.device("cpu")).chat("hello", stop=None, max_new_tokens=9)
    assert answer == model.chat("hello", max_new_tokens=9)


def test_one_step_of_a_run_is_no_model(tmp_path: Path) -> None:
    torch.save({"step": 5, "optimizer": {}, "model": {}}, tmp_path / "omni_step_5.pt")
    with pytest.raises(UserError, match=r"a run at step 5.*the model is in the omni\.pt"):
        load_model(tmp_path / "omni_step_5.pt")


def test_a_transcript_needs_a_sound(model: ChatModel) -> None:
    with pytest.raises(UserError, match="sound is None, expected a path"):
        model.transcribe(None)
    with pytest.raises(UserError, match=r"max_new_tokens is 0, expected a number from 1$"):
        model.chat("hello", max_new_tokens=0)


def test_the_package_names_them() -> None:
    assert {"load_model", "ChatModel"} <= set(dir(omnitune))
    with pytest.raises(AttributeError, match="has no attribute 'load_modle'"):
        omnitune.load_modle  # noqa: B018
    code = "import omnitune, sys; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
