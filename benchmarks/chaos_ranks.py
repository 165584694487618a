"""Starts a command in one process, on ranks or under torchrun; signals it; waits for its end."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from omnitune import cli
from omnitune.training.stopping import STATUS, StoppedError, stop_now

PATIENCE = 300.0  # seconds after which a command hangs
ALONE = 60.0  # seconds in which a rank that has lost another one has to end
MET = "joining, in million weights"  # what is printed first after the ranks have met
FAULT = "something that omnitune did not expect"
TORCHRUN = -1  # in the place of a rank: the process that starts the ranks
ROOT = Path(__file__).resolve().parents[1]


class ChaosError(Exception):
    """A promise was broken."""


@dataclass
class Job:
    """The processes of a command.

    Attributes:
        log: the file that they print to.
        running: process numbers, by rank. ended: exit statuses, by rank.
        forced: whether processes had to be stopped that waited for one that was lost.
        held: the port at which they meet, which the system gives to nobody else meanwhile.
    """

    log: Path
    running: dict[int, int] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    forced: bool = False
    held: socket.socket | None = None

    @property
    def said(self) -> str:
        """All that the command has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def last_lines(self) -> str:
        """The end of it."""
        return "\n".join(self.said.splitlines()[-40:])

    @property
    def finished(self) -> bool:
        """Whether every process has done all its work."""
        return not self.running and not any(self.ended.values())

    def poll(self) -> bool:
        """Notes which processes have ended; returns whether all have."""
        for rank, process in list(self.running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                del self.running[rank]
                self.ended[rank] = os.waitstatus_to_exitcode(status)
        if self.held and not self.running:
            self.held.close()
        return not self.running

    def wait(self, seconds: float) -> bool:
        """Waits so long at most; returns whether all processes have ended."""
        deadline = time.monotonic() + seconds
        while not self.poll() and time.monotonic() < deadline:
            time.sleep(0.001)
        return not self.running

    def send(self, number: signal.Signals, ranks: Sequence[int] | None = None) -> None:
        """Sends a signal to some processes that run, or to all of them."""
        for rank in list(self.running) if ranks is None else ranks:
            if rank in self.running:
                os.kill(self.running[rank], number)

    def workers(self) -> list[int]:
        """Process numbers of what torchrun has started."""
        agent = self.running.get(TORCHRUN)
        try:
            return [
                int(n) for n in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
            ]
        except OSError:
            return []

    def end(self) -> None:
        """Waits for the end of all processes, which has to come by itself.

        Ranks that had not met yet when they lost one of them wait for it; those are stopped, as
        torchrun would.

        Raises:
            ChaosError: one of them hangs, or the command says that it has a fault.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.poll():
            if any(self.ended.values()):
                deadline = min(deadline, time.monotonic() + ALONE)
                if MET not in self.said and not self.wait(1.0):
                    self.stop()
            if time.monotonic() > deadline:
                waiting = ", ".join(f"rank {rank}" for rank in self.running)
                self.kill()
                raise ChaosError(f"{waiting} of a command hangs\n{self.last_lines}")
            time.sleep(0.001)
        if FAULT in (said := self.said):
            raise ChaosError(f"a fault of omnitune's own\n{said}")

    def stop(self) -> None:
        """Stops what still runs: politely, then not."""
        self.forced = True
        self.send(signal.SIGTERM)
        if not self.wait(2.0):
            self.kill()

    def kill(self) -> None:
        """Ends all processes at once, also those of torchrun."""
        for process in self.workers():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.send(signal.SIGKILL)
        self.wait(PATIENCE)


def start(
    arguments: list[str],
    log: Path,
    ranks: int = 1,
    torchrun: bool = False,
    limit: int | None = None,
) -> Job:
    """Starts ``omnitune`` with arguments.

    Args:
        limit: bytes of a file at most.
    """
    log.write_bytes(b"")
    job = Job(log, held=_hold_port())
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, STATUS)  # until a new process knows what they mean
    for rank in [TORCHRUN] if torchrun else range(ranks):
        if process := os.fork():
            job.running[rank] = process
            continue
        status = 1
        try:
            _begin(log, limit)
            if torchrun:
                status = _be_torchrun(arguments, ranks)
            else:
                if ranks > 1 and job.held:
                    os.environ |= _environment(rank, ranks, job.held.getsockname()[1])
                status = cli.main(arguments)
            signal.pthread_sigmask(signal.SIG_BLOCK, STATUS)  # it has ended
        except StoppedError as stopped:
            status = stopped.status
        except BaseException as error:
            print(f"{type(error).__name__} outside of the command: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STATUS)
    return job


def _begin(log: Path, limit: int | None) -> None:
    """What a process of its own needs: its output, Ctrl-C, one thread."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number in STATUS:  # as the command does it in a moment; a shell may have Ctrl-C ignored
        signal.signal(number, stop_now)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STATUS)
    # Before threads do it at once, which in a fresh copy of a process torch cannot bear.
    torch.set_num_threads(1)
    if limit:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def _be_torchrun(arguments: list[str], ranks: int) -> int:
    """The command that everybody uses, with ranks that are new processes."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    os.environ |= {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    options = ["--standalone", f"--nproc_per_node={ranks}", "--max-restarts=3"]
    try:
        main([*options, "--monitor-interval=0.2", "-m", "omnitune.cli", *arguments])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def _hold_port() -> socket.socket:
    """A free port; it does not listen, so rank 0 may: both allow the other to use the address."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
