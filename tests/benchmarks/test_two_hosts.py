"""Two hosts, as network namespaces: one is cut off, or dies and comes back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until

from benchmarks import host_network

ROOT = Path(__file__).resolve().parents[2]


def has_namespaces() -> bool:
    """Whether this process may make network namespaces with a bridge between them."""
    if not host_network.can_make():
        return False
    try:
        with host_network.Network():
            return True
    except (host_network.HostsError, OSError):
        return False


needs_namespaces = pytest.mark.skipif(
    not has_namespaces(), reason="needs root, iproute2 and a kernel with bridges"
)


def left_of(process: int) -> list[str]:
    """Namespaces and their files that a process has made."""
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    begin = f"{host_network.PREFIX}{process}-"
    files = [path.name for path in host_network.FILES.glob(f"{begin}*")]
    return files + [name for name in said.stdout.split() if name.startswith(begin)]


LISTEN = """
import socket
with socket.create_server(("0.0.0.0", 5000)) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""
CALL = "import socket, sys; socket.create_connection((sys.argv[1], 5000), 1).close()"


@needs_namespaces
def test_a_cable_that_is_pulled_is_pulled() -> None:
    with host_network.Network() as network:

        def call() -> bool:
            inside = ["ip", "netns", "exec", network.hosts[1], sys.executable, "-c", CALL]
            done = subprocess.run([*inside, network.addresses[0]], capture_output=True, check=False)
            return done.returncode == 0

        inside = ["ip", "netns", "exec", network.hosts[0], sys.executable, "-c", LISTEN]
        with subprocess.Popen(inside, stdout=subprocess.PIPE) as listening:
            assert listening.stdout is not None
            assert listening.stdout.readline() == b"ready\n"
            wait_until(call)
            network.plug(1, False)
            assert not call()
            network.plug(1, True)
            wait_until(call)
            listening.kill()
    assert not left_of(os.getpid())


STAY = """
import time
from benchmarks.host_network import Network, stop_in_order
stop_in_order()
with Network():
    print("ready", flush=True)
    time.sleep(60)
"""


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_benchmark_that_is_stopped(number: int) -> None:
    command = [sys.executable, "-c", STAY]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(left_of(process.pid)) == 6
        process.send_signal(number)
        process.send_signal(number)  # people are impatient
        process.wait(300)
    assert not left_of(process.pid)


@needs_namespaces
def test_what_is_left_of_a_benchmark_that_was_killed_is_cleared() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    host_network.ip("netns", "add", f"{host_network.PREFIX}{ended.pid}-0")
    assert left_of(ended.pid)
    host_network.clear_left_ones()
    assert not left_of(ended.pid)


@pytest.mark.slow
@needs_namespaces
@pytest.mark.skipif("OMNITUNE_LONG" not in os.environ, reason="takes minutes: OMNITUNE_LONG")
def test_a_host_that_is_cut_off_or_lost_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.two_hosts"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ended bit for bit as the undisturbed run") == 4
