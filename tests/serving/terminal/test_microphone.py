"""Recording by programs and by a package, played by stand-ins."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
from waiting import wait_until

from omnitune.sample import UserError
from omnitune.serving.session import ChatSession
from omnitune.serving.terminal.microphone import PROGRAMS, start_recording
from omnitune.serving.terminal.prompt import Terminal

BROKEN = "#!/bin/sh\necho 'no such device' >&2\nexit 1\n"


@pytest.mark.parametrize("name", [command[0] for command in PROGRAMS])
def test_a_program_records_until_it_is_ended(
    program: Callable[..., None], tmp_path: Path, name: str
) -> None:
    program(name)
    path = tmp_path / "a.wav"
    recording = start_recording(path)
    wait_until((tmp_path / "a.wav.started").exists)
    assert recording.by == name
    assert recording.going()
    recording.end()
    assert soundfile.info(path).duration == 1
    assert not recording.going()


def test_a_dropped_recording_ends(program: Callable[..., None], tmp_path: Path) -> None:
    program("arecord")
    recording = start_recording(tmp_path / "a.wav")
    recording.drop()
    assert not recording.going()


def test_a_missing_microphone_is_told(
    program: Callable[..., None],
    converse: Callable[..., tuple[str, str]],
    session: ChatSession,
) -> None:
    _, err = converse("/record 1", "/record", "/record soon")
    none, piped, wrong = err.splitlines()
    assert none.startswith("nothing here records; install the Python package sounddevice, or")
    assert piped == "nobody can press Enter here; say how long: /record SECONDS"
    assert wrong == "/record soon: expected a number of seconds"
    program("arecord", BROKEN)
    _, err = converse("/record 1")
    assert err.startswith("arecord recorded nothing (no such device); is a microphone connected")
    assert not session.pending


def test_a_recording_is_attached(
    monkeypatch: pytest.MonkeyPatch,
    converse: Callable[..., tuple[str, str]],
    talk: Terminal,
) -> None:
    class Stream:
        """Gives a tenth of a second of sound at once."""

        active = True

        def __init__(self, callback: Callable[..., None], **settings: Any) -> None:
            assert settings == {"samplerate": 16_000, "channels": 1, "dtype": "int16"}
            callback(memoryview(bytes(range(200)) * 16), 1_600, None, None)

        def start(self) -> None:
            pass

        stop = close = start

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawInputStream=Stream))
    out, err = converse("/record 0", "what is this?")
    assert out.startswith(
        "(recording by sounddevice; 0 s, Enter ends it before, Ctrl-C drops it)\n"
    )
    assert "(recorded, 2 tokens, goes with your next line; an empty one sends it)" in out
    assert not err
    [medium] = talk.transcript.turns[0]["media"]
    assert medium["uri"].startswith("data:audio/wav;base64,")


def test_a_device_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("Error querying device -1")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawInputStream=refuse))
    with pytest.raises(UserError, match=r"no microphone can be used \(Error querying device -1\)"):
        start_recording(tmp_path / "a.wav")
