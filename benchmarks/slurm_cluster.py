"""Slurm on two hosts of this machine: its own controller, nodes and keys, gone when the block ends.

It needs Linux, root, ``ip`` and the packages slurm-wlm and munge. Nothing of a Slurm that the
machine has already is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.host_network import HostsError, Network, can_make, ip

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "launch" / "slurm.sbatch"
TOOLS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare")
PATIENCE = 600.0  # seconds after which a job hangs
CONTROLLER = "10.123.0.254"
# Graphics processors that everybody has: nothing opens them.
GPUS = "Name=gpu File=/dev/null,/dev/zero\n"
CONF = """
ClusterName=omnitune
SlurmctldHost=controller({controller})
SlurmUser=root
AuthInfo=socket={home}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=10
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
NodeName=host0 NodeAddr={addresses[0]} CPUs=1 Gres=gpu:2
NodeName=host1 NodeAddr={addresses[1]} CPUs=1 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def can_start() -> bool:
    """Whether Slurm can be started here, as far as that can be seen."""
    return can_make() and all(shutil.which(tool, path=_path()) for tool in TOOLS)


def _path() -> str:
    """Where this Python's commands are found first, and those of the system last."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


class Slurm:
    """A controller at the switch of a network, and a node on each host.

    Args:
        home: a folder for its files.
    """

    def __init__(self, home: Path, network: Network) -> None:
        self.home, self.network = home, network
        self._conf, self._running = home / "slurm.conf", list[subprocess.Popen[bytes]]()
        self._env = os.environ | {
            "PATH": _path(),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "SLURM_CONF": str(self._conf),
        }

    def __enter__(self) -> Slurm:
        for name in ("state", "spool-host0", "spool-host1"):
            (self.home / name).mkdir()
        addresses = self.network.addresses
        self._conf.write_text(
            CONF.format(controller=CONTROLLER, home=self.home, addresses=addresses)
        )
        (self.home / "gres.conf").write_text(GPUS)
        (self.home / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        (self.home / "munge.key").write_bytes(os.urandom(128))
        (self.home / "munge.key").chmod(0o400)
        ip("-n", self.network.switch, "address", "add", f"{CONTROLLER}/24", "dev", "bridge")
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}
        given = [f"--{option}={self.home}/munge.{end}" for option, end in files.items()]
        self._begin(["munged", "--foreground", "--force", f"--seed-file={self.home}/seed", *given])
        self._begin(self._as_host(self.network.switch, "controller", "slurmctld", "-D"))
        for host in range(2):
            self.start_node(host)
        until(
            "two nodes that are idle", lambda: self.call("sinfo", "-ho", "%t%D").strip() == "idle2"
        )
        return self

    def start_node(self, host: int) -> None:
        """Starts a host's daemon."""
        self._begin(self._as_host(self.network.hosts[host], f"host{host}", "slurmd", "-D"))

    def _as_host(self, space: str, name: str, *command: str) -> list[str]:
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *command]
        return ["ip", "netns", "exec", space, *named]

    def _begin(self, command: list[str]) -> None:
        with (self.home / "daemons.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    command, env=self._env, stdout=log, stderr=log, start_new_session=True
                )
            )

    def call(self, *command: str, **env: str) -> str:
        """What one of Slurm's commands prints; nothing where it fails."""
        whole = ["ip", "netns", "exec", self.network.switch, *command]
        done = subprocess.run(
            whole, env=self._env | env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout

    def submit(self, config: Path, *options: str, processes: int = 1) -> str:
        """Queues the example's job; returns its number."""
        options = (
            f"--output={self.home}/%j.log",
            "--gpus-per-node=1",
            "--cpus-per-task=1",
            *options,
        )
        command = ["sbatch", "--parsable", *options, str(SCRIPT), str(config)]
        if not (job := self.call(*command, PROCESSES=str(processes)).strip()):
            raise HostsError("sbatch did not take the job")
        return job

    def told(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job, such as its JobState."""
        return dict(re.findall(r"(\w+)=(\S+)", self.call("scontrol", "-o", "show", "job", job)))

    def log(self, job: str) -> str:
        """What a job has printed."""
        path = self.home / f"{job}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def processes(self, host: int, words: str) -> list[int]:
        """Those of a host whose command has these words in it."""
        found = []
        for process in self.network.processes(host):
            try:
                command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if re.search(words, command.decode(errors="replace")):
                found.append(process)
        return found

    def __exit__(self, *_: object) -> None:
        self.network.kill_all()
        for process in self._running:
            process.kill()
            process.wait()


def until(what: str, done: Callable[[], bool]) -> None:
    """Waits for something; raises HostsError where it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise HostsError(f"no {what} within {PATIENCE:g} s")
        time.sleep(0.2)
