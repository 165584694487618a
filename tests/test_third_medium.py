"""A medium, its encoder, source and task are added from here, without touching any other file."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sft_settings, tiny_tokenizer
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.encoders.base import Encoder, MediaStats
from omnitune.encoders.registry import ENCODERS
from omnitune.media.base import Fingerprint, Medium, open_file
from omnitune.media.registry import MEDIA
from omnitune.models.loading import load_omni, save_encoder
from omnitune.reporting.report import scores_table, write_report
from omnitune.sample import UserError
from omnitune.serving.session import ChatSession
from omnitune.sources import SOURCES, Source
from omnitune.storage import read_checkpoint
from omnitune.tasks import TASKS, Task
from omnitune.training.sft import finetune


class Thermal(Medium):
    """Temperatures in a row, as a JSON list."""

    name = "thermal"
    caption_key = "reading"
    unit = "degrees"

    def load(self, path: Path) -> list[float]:
        """The temperatures of a file."""
        with open_file(path, "thermal file") as file:
            try:
                return [float(x) for x in json.load(file)]
            except (ValueError, TypeError):
                raise UserError(f"{path}: is no JSON list of numbers") from None

    def check(self, path: Path) -> None:
        self.load(path)

    def fingerprint(self, path: Path) -> Fingerprint:
        found = self.load(path)
        digest = hashlib.blake2b(json.dumps(found).encode(), digest_size=8).digest()
        return Fingerprint(int.from_bytes(digest, "big"), len(found))


class ThermalEncoder(Encoder):
    """Each temperature is a slot."""

    type = "thermal_linear"
    medium_name = "thermal"
    feature_dim = 8

    def read(self, path: Path) -> Tensor:
        return torch.tensor(Thermal().load(path))[:, None]

    def measure(self, path: Path) -> MediaStats:
        count = len(Thermal().load(path))
        return MediaStats(count, 0.0, count, count)

    def num_slots(self, inputs: Tensor) -> int:
        return len(inputs)

    def build(self) -> nn.Module:
        return nn.Linear(1, self.feature_dim)

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        return [module(x) for x in inputs]


@pytest.fixture
def thermal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEDIA, "thermal", Thermal())
    monkeypatch.setitem(ENCODERS, "thermal_linear", ThermalEncoder)
    source = Source("thermal_text", "thermal/qa.json", media=("thermal",))
    monkeypatch.setitem(SOURCES, "thermal_text", source)
    task = Task(
        "thermal_qa",
        media=frozenset({"thermal"}),
        metric="exact_match",
        headline="thermal_qa_acc",
        title="questions about temperatures",
    )
    monkeypatch.setitem(TASKS, "thermal_qa", task)


def write_thermal(home: Path) -> Path:
    """Records of the third medium, and its encoder; returns the encoder's checkpoint."""
    folder = home / "data" / "thermal"
    folder.mkdir(exist_ok=True)
    records = []
    for n, split in enumerate(["train"] * 4 + ["validation", "test"] * 2):
        (folder / f"{n}.json").write_text(json.dumps([n, 20.0 + n]))
        qa = {"question": "how hot?", "answer": f"number {n}.", "split": split}
        records.append(qa | {"thermal": f"{n}.json", "reading": f"{n} degrees"})
    (folder / "qa.json").write_text(json.dumps(records))
    state = ThermalEncoder({}).build().state_dict()
    path = home / "thermal.pt"
    save_encoder(path, "thermal", {"type": "thermal_linear"}, state)
    return path


def settings(home: Path, name: str, **rest: Any) -> SftConfig:
    mix = {"text_only": 0.3, "image_text": 0.3, "thermal_text": 0.4}
    return sft_settings(
        home, name, data_mix=mix, encoder_ckpts={"thermal": home / "thermal.pt"}, **rest
    )


@pytest.mark.usefixtures("thermal")
def test_a_third_medium_is_trained_scored_shown_resumed_and_talked_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_thermal(home)
    whole = settings(home, "whole")
    finetune(whole)
    results = json.loads((whole.out / "results.json").read_text())
    assert set(results["tasks"]) >= {"text", "image_qa", "thermal_qa"}
    assert 0 <= results["thermal_qa_acc"] <= 1
    assert "thermal" in results["reliance"]
    assert "thermal_qa" in " ".join(scores_table(results)).replace(" ", "_")
    assert "questions about temperatures" in write_report(whole.out, whole.data_dir).read_text()
    start = read_checkpoint(home / "thermal.pt")["state"]
    values = read_checkpoint(whole.out / "omni.pt")
    assert torch.equal(values["encoders"]["thermal"]["weight"], start["weight"])  # frozen
    assert "<|thermal|>" in values["tokenizer"]

    broken = settings(home, "broken")
    with monkeypatch.context() as patch:
        patch.setattr("omnitune.training.sft.final_scores", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(broken)
    finetune(broken, resume=True)
    again = read_checkpoint(broken.out / "omni.pt")
    for name, tensor in values["proj_thermal"].items():
        assert torch.equal(again["proj_thermal"][name], tensor), name

    model, renderer, _ = load_omni(whole.out)
    session = ChatSession(model, renderer, max_new_tokens=4)
    assert session.attach(home / "data" / "thermal" / "1.json", "thermal") == 2
    "".join(session.ask("how hot?"))
    assert [len(m.parts) for m in session.messages] == [2, 1] or session.messages == []


def test_models_from_before_load_with_a_third_medium_registered(
    home: Path, request: pytest.FixtureRequest
) -> None:
    before = sft_settings(home, "before", max_steps=1)
    finetune(before)
    request.getfixturevalue("thermal")
    model, renderer, _ = load_omni(before.out)
    assert set(model.modalities) == {"image", "audio"}
    assert renderer.tokenizer.get_vocab_size() == tiny_tokenizer().get_vocab_size()
    session = ChatSession(model, renderer, max_new_tokens=2)
    with pytest.raises(UserError, match="no encoder for thermal"):
        session.attach(home / "any.json", "thermal")
    assert np.isfinite(len("".join(session.ask("hello"))))


@pytest.mark.usefixtures("thermal")
def test_an_encoder_of_no_known_type_is_refused(home: Path) -> None:
    write_thermal(home)
    save_encoder(home / "thermal.pt", "thermal", {"type": "thermal_cnn"}, {})
    with pytest.raises(UserError, match="'thermal_cnn'; known for thermal: thermal_linear"):
        finetune(settings(home, "refused"))
