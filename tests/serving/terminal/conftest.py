"""A tiny model at the prompt."""

import io
import sys
from collections.abc import Callable

import pytest
from helpers import tiny_model, tiny_renderer

from omnitune.models.omni import OmniModel
from omnitune.serving.session import ChatSession
from omnitune.serving.terminal.prompt import Terminal


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
