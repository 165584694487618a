"""A user's file is opened only if it is one: nothing hangs, and every refusal is one sentence."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import ENCODERS, write_image, write_wave

from omnitune.data.feature_cache import _digest
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.vit import VitEncoder
from omnitune.media import base, sound
from omnitune.media.audio import read_wave
from omnitune.media.image import decode
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError

IMAGE, AUDIO = VitEncoder(ENCODERS["image"]), FastConformerEncoder(ENCODERS["audio"])
OPENERS: list[Callable[[Path], object]] = [
    MEDIA["image"].check, IMAGE.measure, IMAGE.read, MEDIA["image"].fingerprint, decode,
    MEDIA["audio"].check, AUDIO.measure, AUDIO.read, MEDIA["audio"].fingerprint, read_wave,
    lambda path: _digest(path, ""),
]  # fmt: skip


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """A pipe that is opened waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("opener", OPENERS)
def test_what_is_no_regular_file_is_refused_and_not_opened(
    opener: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    os.mkfifo("pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server, at_most(60):
        server.bind("socket")
        for name in ("pipe", "socket", "link", "/dev/zero"):
            with pytest.raises(UserError, match=rf"{name}: is a pipe, socket or device"):
                opener(Path(name))
    refused = {"loop": "cannot be read", ".": "is a folder", "x" * 300: "cannot be read",
               "a\0b": r"'a\\x00b': no .* can have this name", "none": "no such"}  # fmt: skip
    for name, words in refused.items():
        with pytest.raises(UserError, match=words):
            opener(Path(name))


def test_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(write_image(tmp_path / "b.png"))
    (tmp_path / "a.wav").symlink_to(write_wave(tmp_path / "b.wav"))
    assert IMAGE.read(tmp_path / "a.png").equal(IMAGE.read(tmp_path / "b.png"))
    assert AUDIO.read(tmp_path / "a.wav").equal(AUDIO.read(tmp_path / "b.wav"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_forbidden_file_is_told(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(UserError, match=r"a\.png: cannot be read \(Permission denied\)"):
        MEDIA["image"].check(path)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(
    opener: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(base.MAX_BYTES + 1)  # holes, which take no room
    with at_most(60), pytest.raises(UserError, match=r"huge: has 4\.0 GiB; .* is not read"):
        opener(path)


@pytest.mark.parametrize("opener", [MEDIA["audio"].check, AUDIO.measure, AUDIO.read, read_wave])
def test_a_sound_that_no_memory_holds_is_refused_by_its_header(
    opener: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "MAX_SAMPLES", 16_000)
    path = write_wave(tmp_path / "long.wav", 1.5)
    with pytest.raises(UserError, match=r"long\.wav: 0\.0 hours of sound.*name a stretch"):
        opener(path)
    opener(Path(f"{path}::t=0.2,1.1"))
