"""What the tests of stage E share: a data folder of eighteen records and the three parts."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import ENCODERS, tiny_model, tiny_tokenizer, write_image, write_wave

from omnitune.data.records import FILES
from omnitune.models.components import save_encoder, save_thinker


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of eighteen records and the three parts."""
    home = tmp_path_factory.mktemp("home")
    data: dict[str, list[dict[str, Any]]] = {"text_only": [], "image_text": [], "audio_text": []}
    for name in data:
        (home / "data" / FILES[name]).parent.mkdir(parents=True)
    splits = ["train"] * 4 + ["validation", "test"]
    for n, split in enumerate(splits):
        qa = {"question": "what is it?", "answer": f"number {n}.", "split": split}
        image = write_image(home / "data" / "images" / f"{n}.png", seed=n)
        clip = write_wave(home / "data" / "audio" / f"{n}.wav", 0.3 + 0.1 * n, seed=n)
        data["text_only"].append(qa)
        data["image_text"].append(qa | {"image": image.name})
        data["audio_text"].append(qa | {"audio": clip.name, "task": "transcription"})
    for name, records in data.items():
        (home / "data" / FILES[name]).write_text(json.dumps(records))
    model = tiny_model()
    save_thinker(home / "thinker.pt", model, tiny_tokenizer())
    for name in ENCODERS:
        state = model.encoders[name].state_dict()
        save_encoder(home / f"{name}.pt", name, ENCODERS[name], state)
    return home
