"""Two hosts train together, one is cut off or dies, and the run ends as an undisturbed one.

    sudo python -m benchmarks.two_hosts --mode fsdp

Each host is a network namespace of this machine; a third one is the switch between them. Both start
``examples/launch/two_machines.sh``. The faults, each in the middle of a run: a cable that is pulled
for a moment; one that is pulled until both have given up; a host that dies and comes back, first
the second one, then the one that all meet at. Weights, optimiser, scores, answers, log and run hash
must be, bit for bit, those of an undisturbed run of both. Each host holds the whole model (ddp) or
half of it (fsdp); or it has two processes that share the model, which the other host has once more
(hybrid). It needs Linux, root and ``ip``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_home import config_of, make_home
from benchmarks.chaos_outcome import difference, newest_step, outcome
from benchmarks.host_network import HostsError, Network, can_make, in_order

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "launch" / "two_machines.sh"
PATIENCE = 400.0  # seconds after which a run hangs
TIMEOUT = 10.0  # of a step, seconds
# How the model is shared, and the number of processes on a host.
MODES: dict[str, tuple[dict[str, str | int], int]] = {
    "ddp": ({"mode": "ddp"}, 1),
    "fsdp": ({"mode": "fsdp"}, 1),
    "hybrid": ({"mode": "fsdp", "shard": 2, "replicate": 2}, 2),
}
MOMENT = 2.0  # a cut that nobody has to notice
# torchrun's own waiting, cut short: its defaults are minutes.
RDZV_CONF = "join_timeout=60,read_timeout=10,keep_alive_interval=1,keep_alive_max_attempt=3"


@dataclass
class Cluster:
    """Two hosts, the data and parts that they share, and what runs on them."""

    home: Path
    network: Network
    steps: int
    mode: str
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, host: int, name: str) -> None:
        """Starts the script on a host, in a session of its own."""
        parallel, processes = MODES[self.mode]
        config = config_of(self.home, name, self.steps, "ddp" if self.mode == "ddp" else "fsdp")
        file = self.home / f"{name}.json"
        file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
        inside = ["ip", "netns", "exec", self.network.hosts[host], "bash", str(SCRIPT), str(file)]
        settings = parallel | {"timeout": TIMEOUT}
        given = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PROCESSES": str(processes),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0",
            "LOCAL_ADDR": self.network.addresses[host],
            "RDZV_CONF": RDZV_CONF,
        }
        with (self.home / f"{name}-{host}.log").open("ab") as log:
            self.running[host] = subprocess.Popen(
                [*inside, self.network.addresses[0], "--parallel", json.dumps(settings)],
                cwd=ROOT,
                env=os.environ | given,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, host: int) -> None:
        """Kills all that runs on a host, at once."""
        self.network.kill(host)
        if started := self.running.pop(host, None):
            started.wait()

    def clear(self) -> None:
        """Kills all that runs on the hosts."""
        for host in range(2):
            for _ in range(3):  # what is just being started too
                self.kill(host)

    def log(self, name: str, host: int) -> str:
        """What a host has printed."""
        path = self.home / f"{name}-{host}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def until(self, name: str, what: str, done: Callable[[], bool]) -> None:
        """Waits for something."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise HostsError(f"{name}: no {what} within {PATIENCE:g} s\n{self.tails(name)}")
            ended = [host for host, process in self.running.items() if process.poll()]
            if ended:
                raise HostsError(f"{name}: host {ended[0]} gave up\n{self.tails(name)}")
            time.sleep(0.01)

    def until_trained(self, name: str, step: int) -> None:
        """Waits until a checkpoint of a step, or of a later one, is there."""

        def there() -> bool:
            found = newest_step(self.home / name)
            return found != "none" and int(found.rpartition("_")[2]) >= step

        self.until(name, f"checkpoint of step {step}", there)

    def tails(self, name: str) -> str:
        """The end of both hosts' logs."""
        return "\n".join(f"--- host {n}\n{self.log(name, n)[-4000:]}" for n in range(2))

    def run(self, name: str, fault: Callable[[Cluster, str], None]) -> None:
        """A whole run with a fault in its middle."""
        began = time.monotonic()
        for host in range(2):
            self.start(host, name)
        self.until_trained(name, self.steps // 3)
        fault(self, name)
        at = newest_step(self.home / name)
        ended = self.running.values
        self.until(name, "end", lambda: all(process.poll() == 0 for process in ended()))
        said = "".join(self.log(name, host) for host in range(2))
        resumed = re.findall(r"going on from step (\d+)", said)
        how = f"went on from step {', '.join(resumed)}" if resumed else "never stopped"
        seconds = time.monotonic() - began
        print(f"{name}: {how}; newest checkpoint after the fault {at}; {seconds:.0f} s", flush=True)
        self.running.clear()
        if name != "undisturbed":
            self.compare(name)

    def compare(self, name: str) -> None:
        """Raises HostsError where a run's end is not the undisturbed one's."""
        one, other = outcome(self.home / "undisturbed"), outcome(self.home / name)
        if found := difference(other, one):
            raise HostsError(f"{name} does not end as the undisturbed run: {found}")
        print(f"{name}: ended bit for bit as the undisturbed run", flush=True)


def nothing(cluster: Cluster, name: str) -> None:
    """No fault."""


def cut_for_a_moment(cluster: Cluster, name: str) -> None:
    """The second host's cable is pulled for less than the limit."""
    cluster.network.plug(1, False)
    time.sleep(MOMENT)
    cluster.network.plug(1, True)


def cut(cluster: Cluster, name: str) -> None:
    """The second host's cable is pulled until both have noticed."""
    cluster.network.plug(1, False)
    cluster.until(
        name,
        "error of a host that waits",
        lambda: all("waited more than" in cluster.log(name, host) for host in range(2)),
    )
    time.sleep(10)
    cluster.network.plug(1, True)


def lose_second(cluster: Cluster, name: str) -> None:
    """The second host dies and comes back."""
    lose(cluster, name, 1)


def lose_first(cluster: Cluster, name: str) -> None:
    """The host that all meet at, which writes the checkpoints, dies and comes back."""
    lose(cluster, name, 0)


def lose(cluster: Cluster, name: str, host: int) -> None:
    """A host dies, and is started again some seconds later."""
    cluster.kill(host)
    time.sleep(3)
    cluster.start(host, name)


FAULTS: dict[str, Callable[[Cluster, str], None]] = {
    "undisturbed": nothing,
    "moment": cut_for_a_moment,
    "cut": cut,
    "second": lose_second,
    "first": lose_first,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", nargs="*", choices=[*FAULTS][1:], default=[*FAULTS][1:])
    parser.add_argument("--mode", choices=[*MODES], default="ddp", help="[default: ddp]")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a run")
    options = parser.parse_args(arguments)
    if not can_make():
        print("two hosts need Linux, root and the command ip (iproute2)")
        return 2

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="omnitune-hosts-") as folder, Network() as network:
            cluster = Cluster(make_home(Path(folder)), network, options.steps, options.mode)
            try:
                for name in ("undisturbed", *options.faults):
                    cluster.run(name, FAULTS[name])
            finally:
                cluster.clear()

    return in_order(work)


if __name__ == "__main__":
    sys.exit(main())
