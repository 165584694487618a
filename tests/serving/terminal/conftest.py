"""A tiny model at the prompt."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import tiny_model, tiny_renderer

from omnitune.models.omni import OmniModel
from omnitune.serving.session import ChatSession
from omnitune.serving.terminal import microphone
from omnitune.serving.terminal.microphone import PROGRAMS
from omnitune.serving.terminal.prompt import Terminal

# Writes a second of sound when it is told to end, as its likes do.
RECORDER = f"""#!{sys.executable}
import signal, sys, time, wave
def end(*_):
    with wave.open(sys.argv[-1], "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(range(250)) * 128)
    sys.exit(1)
signal.signal(signal.SIGINT, end)
open(sys.argv[-1] + ".started", "w").close()
time.sleep(100)
"""


@pytest.fixture(scope="session")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture
def session(model: OmniModel) -> ChatSession:
    return ChatSession(model, tiny_renderer(), max_new_tokens=8)


@pytest.fixture
def talk(session: ChatSession, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return Terminal(session, "checkpoints/mine")


@pytest.fixture
def converse(
    talk: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Pipes lines into the prompt; returns standard output and standard error."""

    def run(*lines: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        assert talk.run() == 0
        return capsys.readouterr()

    return run


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts the only recorder there is on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    names = {command[0] for command in PROGRAMS}
    real = microphone.shutil.which
    which = lambda name: real(name, path=str(folder)) if name in names else real(name)  # noqa: E731
    monkeypatch.setattr(microphone.shutil, "which", which)
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    def put(name: str, content: str = RECORDER) -> None:
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)

    return put
