"""Somebody who types at a pseudo-terminal."""

import io
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import PATIENCE


class Typist:
    """Somebody at the other end of a pseudo-terminal on which a chat runs."""

    def __init__(self, chat: Callable[[], int]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            status = 1
            try:
                sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False))  # noqa: SIM115
                sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False))  # noqa: SIM115
                sys.stderr = sys.stdout
                status = chat()
                sys.stdout.flush()
            except SystemExit as leaving:
                status = int(leaving.code or 0)
            finally:
                os._exit(status)
        self.screen = ""

    def see(self, text: str) -> None:
        """Waits for a text after what was seen before."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} on the screen: {self.screen!r}"
            try:
                self.screen += os.read(self.fd, 4096).decode()
            except OSError:
                pytest.fail(f"ended before {text!r}: {self.screen!r}")
        self.screen = self.screen.partition(text)[2]

    def press(self, keys: str) -> None:
        """Types, once the chat waits for it: a signal just before would be noticed after it."""
        self.rest()
        os.write(self.fd, keys.encode())

    def rest(self) -> None:
        """Waits until the chat sleeps."""
        stat = Path(f"/proc/{self.pid}/stat")
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "SZ":
            time.sleep(0.001)

    def status(self) -> int:
        """Waits for the end; returns the exit status."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if select.select([self.fd], [], [], 0.01)[0]:
                try:
                    self.screen += os.read(self.fd, 4096).decode()
                except OSError:
                    continue
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        pytest.fail(f"did not end: {self.screen!r}")
