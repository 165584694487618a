"""Two hosts on a switch, as network namespaces of this machine. It needs Linux, root and ``ip``."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PREFIX = "omnitune-hosts-"
FILES = Path("/etc/netns")  # ``ip netns exec`` shows a host the files in its folder in here


class HostsError(Exception):
    """A promise was broken."""


def ip(*arguments: str) -> None:
    """Calls ``ip``; raises HostsError with what it says."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostsError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    """Two hosts on a switch, each a network namespace; gone when the block ends.

    Attributes:
        addresses: of the hosts.
    """

    addresses = ("10.123.0.1", "10.123.0.2")

    def __init__(self) -> None:
        self.switch = f"{PREFIX}{os.getpid()}-switch"
        self.hosts = [f"{PREFIX}{os.getpid()}-{n}" for n in range(2)]

    def __enter__(self) -> Network:
        clear_left_ones()
        try:
            self._lay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _lay(self) -> None:
        for space in (self.switch, *self.hosts):
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            self._write_names(space)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for n, host in enumerate(self.hosts):
            ends = ["name", "eth0", "netns", host]
            ip("-n", self.switch, "link", "add", f"port{n}", "type", "veth", "peer", *ends)
            ip("-n", self.switch, "link", "set", f"port{n}", "master", "bridge")
            ip("-n", host, "address", "add", f"{self.addresses[n]}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            self.plug(n, True)

    def _write_names(self, space: str) -> None:
        """Who the hosts are; no server of names can be asked, and to wait for one takes long."""
        folder = FILES / space
        folder.mkdir(parents=True)
        lines = [f"{address} host{n}" for n, address in enumerate(self.addresses)]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def plug(self, host: int, whole: bool) -> None:
        """Pulls a host's cable out of the switch, or puts it back."""
        ip("-n", self.switch, "link", "set", f"port{host}", "up" if whole else "down")

    def processes(self, host: int) -> list[int]:
        """Those that run on a host."""
        return _processes(self.hosts[host])

    def kill(self, host: int) -> None:
        """Kills all that runs on a host, at once."""
        _kill(self.hosts[host])

    def kill_all(self) -> None:
        """Kills all that runs on the hosts and the switch, what is just being started too."""
        for space in (*self.hosts, self.switch) * 3:
            _kill(space)

    def __exit__(self, *_: object) -> None:
        for space in (*self.hosts, self.switch):
            remove(space)


def _processes(space: str) -> list[int]:
    said = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    return list(map(int, said.stdout.split()))


def _kill(space: str) -> None:
    for process in _processes(space):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def remove(space: str) -> None:
    """Removes a network namespace and its files."""
    shutil.rmtree(FILES / space, ignore_errors=True)
    with suppress(HostsError):
        ip("netns", "delete", space)


def clear_left_ones() -> None:
    """Removes namespaces of a benchmark that was killed."""
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for name, process in re.findall(rf"^({PREFIX}(\d+)-\w+)", said.stdout, re.M):
        if not Path(f"/proc/{process}").exists():
            remove(name)


def can_make() -> bool:
    """Whether this process can make network namespaces, as far as that can be seen."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None


def stop_in_order() -> None:
    """Whatever stops this process, what it made is removed: signals raise a KeyboardInterrupt."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)


def in_order(work: Callable[[], None]) -> int:
    """Does work with hosts, whatever stops it; tells how it ended, and returns the exit status."""
    stop_in_order()
    try:
        work()
    except HostsError as error:
        print(f"broken promise: {error}")
        return 1
    except KeyboardInterrupt:
        print("stopped")
        return 130
    return 0


def _stop(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # or a second one would leave something
    raise KeyboardInterrupt
