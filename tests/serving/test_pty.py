"""The prompt on a terminal of its own: Ctrl-C, Ctrl-D, a kill, and an output that goes away."""

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from typist import Typist

from omnitune import cli
from omnitune.serving.session import Timing
from omnitune.serving.terminal import chat


class SlowSession:
    """Answers a word at a time; no model, as threads of torch do not survive a fork."""

    model = SimpleNamespace(modalities={"image": None})
    pending = ()
    messages = ()
    answer_tokens = ()
    room = 9
    system, temperature, timing = "", 0.0, Timing()

    def ask(self, text: str) -> Iterator[str]:
        for word in ("you ", "said ", text) if text != "wait" else ["hm "] * 100_000:
            yield word
            time.sleep(0.01)


@pytest.fixture
def typist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Typist]:
    monkeypatch.setattr(chat, "_open_session", lambda *_: SlowSession())
    monkeypatch.setenv("TERM", "dumb")
    found = Typist(lambda: cli.main(["chat", "--ckpt-dir", "mine"]))
    found.see("you> ")
    yield found
    os.close(found.fd)


def test_ctrl_c_clears_the_line_and_leaves_when_pressed_twice(typist: Typist) -> None:
    typist.press("half a lin\x03")
    typist.see("(press Ctrl-C again to leave)")
    typist.see("you> ")
    typist.press("hello\n")
    typist.see("model> you said hello")
    typist.see("you> ")
    typist.press("\x03")
    typist.see("(press Ctrl-C again to leave)")
    typist.see("you> ")
    typist.press("\x03")
    typist.see("Goodbye.")
    assert typist.status() == 0


def test_ctrl_c_stops_an_answer_and_ctrl_d_leaves(typist: Typist) -> None:
    typist.press("wait\n")
    typist.see("hm hm")
    typist.press("\x03")
    typist.see("(stopped)")
    typist.see("you> ")
    typist.press("\x03")  # the first one at the prompt
    typist.see("(press Ctrl-C again to leave)")
    typist.see("you> ")
    typist.press("\x04")
    typist.see("Goodbye.")
    assert typist.status() == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_polite_kill_ends_it(typist: Typist, busy: bool) -> None:
    if busy:
        typist.press("wait\n")
        typist.see("hm hm")
    typist.rest()
    os.kill(typist.pid, signal.SIGTERM)
    assert typist.status() == 128 + signal.SIGTERM
    assert not re.search("Traceback|Error", typist.screen)


def broken_pipe(lines: int) -> Any:
    """A standard output of which so many lines are read."""
    ends = os.pipe()
    os.close(ends[0])
    return open(ends[1], "w", encoding="utf-8", buffering=1 if lines else -1)


@pytest.mark.parametrize("lines", [0, 1])
@pytest.mark.parametrize("prompt", [[], ["--prompt", "hello"]])
def test_nobody_reads_the_output(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lines: int,
    prompt: list[str],
) -> None:
    monkeypatch.setattr(chat, "_open_session", lambda *_: SlowSession())
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    with broken_pipe(lines) as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.main(["chat", *prompt]) == 141
    assert capsys.readouterr().err == ""  # and what was left to write has gone without a word


def test_a_full_disk_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chat, "_open_session", lambda *_: SlowSession())
    with open("/dev/full", "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.main(["chat", "--prompt", "hello"]) == 2
    assert "No space left on device" in capsys.readouterr().err
