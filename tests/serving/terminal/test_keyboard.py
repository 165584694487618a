"""A tiny model at the prompt of a pseudo-terminal: Tab, history, what is shown."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import write_image, write_wave
from typist import Typist
from waiting import wait_until

from omnitune import cli
from omnitune.serving.session import ChatSession
from omnitune.serving.terminal import chat
from omnitune.serving.terminal.keyboard import history_file, in_columns

Start = Callable[..., Typist]


@pytest.fixture
def start(session: ChatSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chat, "_open_session", lambda *_: session)
    for name in ("NO_COLOR", "TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("OMNITUNE_HISTORY", str(tmp_path / "state" / "history"))
    begun = []

    def talk(*options: str) -> int:
        torch.set_num_threads(1)  # threads do not survive a fork
        return cli.main(["chat", "--ckpt-dir", "mine", *options])

    def start(*options: str) -> Typist:
        begun.append(Typist(lambda: talk(*options)))
        begun[-1].see("you>")
        return begun[-1]

    yield start
    for typist in begun:
        os.close(typist.fd)


def leave(typist: Typist) -> None:
    typist.press("/quit\n")
    typist.see("Goodbye.")
    assert typist.status() == 0


def test_a_conversation_is_shown_saved_and_loaded(start: Start, tmp_path: Path) -> None:
    image, wave = write_image(tmp_path / "my cat.png"), write_wave(tmp_path / "q.wav")
    typist = start("--timings", "--system", "be brief")
    typist.press(f"'{image}' what is this?\n")
    typist.see("took my cat.png, 4 tokens")
    typist.see("\x1b[38;2;")
    typist.see("▀")
    typist.see("model>")
    typist.see("the first after")
    typist.see("you>")
    typist.press("/retry\n")
    typist.see("model>")
    typist.see("you>")
    typist.press(f"{wave.as_uri()}\n")
    typist.see("█")
    typist.see(" 0.5 s")
    typist.see("you>")
    typist.press("/save talk\n")
    typist.see("saved 1 turn in talk.json")
    typist.see("you>")
    typist.press("/reset\n")
    typist.see("you>")
    typist.press("/load ta\t\n")  # completed to talk.json
    typist.see("▀")
    typist.see("what is this?")
    typist.see("loaded 1 turn from talk.json")
    typist.see("system text: be brief")
    typist.see("you>")
    leave(typist)


def test_tab_completes_commands_and_paths(start: Start, tmp_path: Path) -> None:
    write_image(tmp_path / "my cat.png")
    write_image(tmp_path / "my dog.png")
    typist = start()
    typist.press("/im\tmy\t")
    typist.see("\r\nmy cat.png  my dog.png\r\n")
    typist.see("/image my ")
    typist.press("c\t\n")
    typist.see("at.png")
    typist.see("my cat.png, 4 tokens")
    typist.see("you>")
    typist.press("what is in ./my\\ d\t")
    typist.see("og.png")
    typist.press("\n")
    typist.see("took my dog.png")
    typist.see("you>")
    leave(typist)


def test_lines_are_kept_between_starts(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "state" / "history"
    typist = start()
    typist.press("who are you?\n")
    typist.see("model>")
    typist.see("you>")
    leave(typist)
    assert file.read_text().splitlines()[-2:] == ["who are you?", "/quit"]
    assert file.stat().st_mode & 0o77 == 0
    typist = start()
    typist.press("\x10\x10")  # twice up
    typist.see("who are you?")
    typist.press("\n")
    typist.see("model>")
    typist.see("you>")
    leave(typist)


def test_a_terminal_of_pictures_gets_them(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_image(tmp_path / "a.png")
    typist = start("--pictures", "iterm")
    typist.press(f"{image}\n")
    typist.see("\x1b]1337;File=inline=1;")
    typist.see("\a")
    typist.see("you>")
    leave(typist)


def test_enter_ends_a_recording_and_ctrl_c_drops_it(
    start: Start,
    program: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program("arecord")
    typist = start()
    for count, (key, told) in enumerate((("\x03", "(stopped)"), ("\n", "recorded, 13 tokens")), 1):
        typist.press("/record\n")
        typist.see("recording by arecord; Enter ends it, Ctrl-C drops it")
        # until it listens to signals
        wait_until(lambda count=count: len(list(tmp_path.rglob("*.started"))) == count)
        typist.press(key)
        typist.see(told)
        typist.see("you>")
    leave(typist)
    assert not list(tmp_path.rglob("*.wav"))  # nothing is left


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"OMNITUNE_HISTORY": ""}, None),
        ({"OMNITUNE_HISTORY": "/x/mine", "XDG_STATE_HOME": "/y"}, Path("/x/mine")),
        ({"XDG_STATE_HOME": "/y"}, Path("/y/omnitune/history")),
        ({"XDG_STATE_HOME": "relative"}, Path("~/.local/state/omnitune/history").expanduser()),
        ({}, Path("~/.local/state/omnitune/history").expanduser()),
    ],
)
def test_where_the_history_lies(environ: dict[str, str], path: Path | None) -> None:
    assert history_file(environ) == path


def test_many_names_stand_in_columns_and_not_all_of_them() -> None:
    names = [f"picture {n}.png" for n in range(12_000)]
    lines = in_columns(names, 80).split("\n")
    assert lines[0].split("  ")[0] == "picture 0.png"
    assert lines[-1] == "(and 11,900 more)"
    assert max(map(len, lines)) <= 80
    assert in_columns(["a" * 90, "b"], 80).split("\n") == ["a" * 90, "b"]
    assert in_columns([], 80) == ""
