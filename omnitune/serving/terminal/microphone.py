"""The microphone: by the package ``sounddevice`` where it is installed, else by a program."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from omnitune.sample import UserError

RATE = 16_000
PATIENCE = 5.0  # seconds in which a program has to write the end of its file
SOURCE = {"darwin": ("avfoundation", ":0"), "linux": ("pulse", "default")}
# Programs that record to a WAV file until Ctrl-C ends them; the file's name is laid in.
FILE = "FILE"
PROGRAMS: tuple[tuple[str, ...], ...] = (
    ("arecord", "-q", "-t", "wav", "-f", "S16_LE", "-r", str(RATE), "-c", "1", FILE),
    ("parecord", f"--rate={RATE}", "--channels=1", "--format=s16le", "--file-format=wav", FILE),
    ("ffmpeg", "-nostdin", "-y", "-v", "error", "-f", "SYSTEM", "-i", "SOURCE")
    + ("-ac", "1", "-ar", str(RATE), FILE),
)
NO_MICROPHONE = (
    "nothing here records; install the Python package sounddevice, or a program that does: "
    "arecord (of alsa-utils), parecord (of pulseaudio-utils) or ffmpeg"
)


class Recording(Protocol):
    """A recording that goes on.

    Attributes:
        by: what records.
    """

    by: str

    def going(self) -> bool:
        """Whether it still goes on."""

    def end(self) -> None:
        """Ends it and writes the file; raises UserError if nothing could be recorded."""

    def drop(self) -> None:
        """Ends it; nothing needs to be written."""


class ByProgram:
    """A program that records until it is told to end."""

    def __init__(self, command: tuple[str, ...], path: Path) -> None:
        system, source = SOURCE.get(sys.platform, SOURCE["linux"])
        named = {FILE: str(path), "SYSTEM": system, "SOURCE": source}
        self.by, self.path = command[0], path
        # In a session of its own, Ctrl-C at the prompt does not reach it.
        self._process = subprocess.Popen(
            [named.get(word, word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def going(self) -> bool:
        """Whether it still goes on."""
        return self._process.poll() is None

    def end(self) -> None:
        """Ends it; raises UserError with what the program says if it has written nothing."""
        if self.going():
            self._process.send_signal(signal.SIGINT)
        try:
            _, told = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, told = self._process.communicate()
        if not self.path.is_file() or self.path.stat().st_size <= 44:  # a header alone
            reason = " ".join(told.decode(errors="replace").split())[-300:]
            raise UserError(
                f"{self.by} recorded nothing ({reason or 'it says no reason'}); is a microphone "
                "connected and allowed?"
            )

    def drop(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.communicate()


class BySoundDevice:
    """The package ``sounddevice``."""

    by = "sounddevice"

    def __init__(self, sounddevice: Any, path: Path) -> None:
        self.path, self._pieces = path, list[bytes]()
        try:
            self._stream = sounddevice.RawInputStream(
                samplerate=RATE,
                channels=1,
                dtype="int16",
                callback=lambda data, *_: self._pieces.append(bytes(data)),
            )
            self._stream.start()
        except Exception as error:  # its own class of errors, for a missing device
            raise UserError(f"no microphone can be used ({' '.join(str(error).split())})") from None

    def going(self) -> bool:
        """Whether it still goes on."""
        return bool(self._stream.active)

    def end(self) -> None:
        """Ends it and writes the file; raises UserError if there is nothing to write."""
        self.drop()
        if not self._pieces:
            raise UserError("the microphone gave no sound; is it connected and allowed?")
        with wave.open(str(self.path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(b"".join(self._pieces))

    def drop(self) -> None:
        """Ends it."""
        self._stream.stop()
        self._stream.close()


def start_recording(path: Path, which: Callable[[str], str | None] = shutil.which) -> Recording:
    """Begins to record to a WAV file.

    Args:
        which: finds a program.

    Raises:
        UserError: there is no microphone, or nothing that records; says what to install.
    """
    try:
        import sounddevice
    except (ImportError, OSError):  # the package, or the library that it needs
        sounddevice = None
    if sounddevice is not None:
        return BySoundDevice(sounddevice, path)
    for command in PROGRAMS:
        if which(command[0]):
            return ByProgram(command, path)
    raise UserError(NO_MICROPHONE)
