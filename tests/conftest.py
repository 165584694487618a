"""Shared by all tests: no network, two threads, one seed each; data and parts for stage E."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMNITUNE_HISTORY"] = ""  # what tests type is no history of the user's
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # servers of the tests
# Threads that wait do not spin: several processes share the cores in some tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ENCODERS, tiny_model, tiny_tokenizer, write_image, write_wave
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from omnitune.models.loading import save_encoder, save_thinker
from omnitune.sources import SOURCES
from omnitune.training import precision, stopping

# Who starts the tests may have said otherwise, on a terminal or as one of several processes.
os.environ["TERM"] = "xterm"
for _name in (
    *("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES", "TTY_COMPATIBLE"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"),
    *("OMNITUNE_API_KEY", "WANDB_PROJECT", "TRACKIO_PROJECT"),
):
    os.environ.pop(_name, None)
# The same examples each time, however slow the machine is and whatever it found before. To look
# for others: `pytest --hypothesis-profile=default`.
hypothesis_settings.register_profile(
    "the same",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("the same")


def seed_all() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What the fixtures draw does not depend on the tests that this process ran before."""
    seed_all()
    torch.set_num_threads(2)
    # A command that ran in this process has left its own. A shell starts what runs in its
    # background with Ctrl-C ignored, for its children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in stopping.STATUS.keys() - {signal.SIGINT}:
        signal.signal(number, signal.SIG_DFL)
    stopping._begun.clear()
    stopping._stopped.clear()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """What a test draws does not depend on which fixtures were made for it."""
    seed_all()


@pytest.fixture(scope="session", autouse=True)
def _precision_and_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compared must run in one precision, whatever the processor has units for.

    Nothing is found that another run has left, and nothing is left in the user's own folders.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "has_bf16_units", lambda: False)
        patch.setenv("OMNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of eight records a source and the three parts."""
    home = tmp_path_factory.mktemp("home")
    data: dict[str, list[dict[str, Any]]] = {"text_only": [], "image_text": [], "audio_text": []}
    for name in data:
        (home / "data" / SOURCES[name].file).parent.mkdir(parents=True)
    splits = ["train"] * 4 + ["validation", "test"] * 2
    for n, split in enumerate(splits):
        qa = {"question": "what is it?", "answer": f"number {n}.", "split": split}
        image = write_image(home / "data" / "images" / f"{n}.png", seed=n)
        clip = write_wave(home / "data" / "audio" / f"{n}.wav", 0.3 + 0.1 * n, seed=n)
        data["text_only"].append(qa)
        data["image_text"].append(qa | {"image": image.name})
        data["audio_text"].append(qa | {"audio": clip.name, "task": "transcription"})
    for name, records in data.items():
        (home / "data" / SOURCES[name].file).write_text(json.dumps(records))
    model = tiny_model()
    save_thinker(home / "thinker.pt", model, tiny_tokenizer())
    for name in ENCODERS:
        state = model.encoders[name].state_dict()
        save_encoder(home / f"{name}.pt", name, ENCODERS[name], state)
    return home
