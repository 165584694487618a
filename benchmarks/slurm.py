"""The Slurm example on a real Slurm: faults hit the job, and the run ends as an undisturbed one.

    sudo python -m benchmarks.slurm

Two hosts, network namespaces of this machine, are the nodes. The job is
``examples/launch/slurm.sbatch`` as it is. It runs on two nodes and on one; is warned that its time
is over; is cancelled and submitted again; loses a rank, a torchrun, a node; has a mistake in its
configuration. Weights, optimiser, scores, answers, log and run hash must be, bit for bit, those of
the undisturbed run. It needs Linux, root, ``ip``, slurm-wlm and munge.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos_home import config_of, make_home
from benchmarks.chaos_outcome import difference, newest_step, outcome
from benchmarks.host_network import HostsError, Network, in_order
from benchmarks.slurm_cluster import Slurm, can_start, until

RANK, TORCHRUN = r"python\S* -u sft_omni", r"python\S* \S*torchrun"


@dataclass
class Trial:
    """A run and its job."""

    slurm: Slurm
    home: Path
    name: str
    steps: int
    job: str = ""

    def submit(self, *options: str, processes: int = 1) -> None:
        """Queues the job."""
        config = config_of(self.home, self.name, self.steps, "ddp")
        file = self.home / f"{self.name}.json"
        file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
        self.job = self.slurm.submit(file, *options, processes=processes)

    def submit_and_train(self) -> None:
        """Queues the job and waits until a third of the steps is saved."""
        self.submit()

        def trained() -> bool:
            self.check()
            found = newest_step(self.home / self.name)
            return found != "none" and int(found.rpartition("_")[2]) >= self.steps // 3

        until(f"checkpoint of {self.name}", trained)

    def state(self) -> str:
        """How the job is, in Slurm's words."""
        return self.slurm.told(self.job)["JobState"]

    def check(self) -> None:
        """Raises HostsError where the job has failed."""
        if (state := self.state()) not in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED"):
            raise HostsError(f"{self.name}: {state}\n{self.slurm.log(self.job)[-6000:]}")

    def end(self, restarts: int = 0) -> None:
        """Waits for the job's good end, after so many new starts by Slurm; compares the run's."""

        def over() -> bool:
            self.check()
            return self.state() == "COMPLETED"

        until(f"end of {self.name}", over)
        told = self.slurm.told(self.job)
        if int(told["Restarts"]) != restarts:
            raise HostsError(f"{self.name}: {told['Restarts']} restarts, expected {restarts}")
        if self.name == "undisturbed":
            return
        one, other = outcome(self.home / "undisturbed"), outcome(self.home / self.name)
        if found := difference(other, one):
            raise HostsError(f"{self.name} does not end as the undisturbed run: {found}")

    def expect(self, words: str) -> None:
        """Raises HostsError where the job has not printed something."""
        if words not in self.slurm.log(self.job):
            raise HostsError(f"{self.name}: not told: {words}\n{self.slurm.log(self.job)[-6000:]}")


def undisturbed(trial: Trial) -> None:
    """Two nodes, a process on each."""
    trial.submit()
    trial.end()


def one_node(trial: Trial) -> None:
    """Two processes on one node."""
    trial.submit("--nodes=1", processes=2)
    trial.end()


def warned(trial: Trial) -> None:
    """The job's time is over: it saves, is queued again and goes on."""
    trial.submit_and_train()
    trial.slurm.call("scancel", "--batch", "--signal=USR1", trial.job)  # as --signal=B:USR1 does
    trial.end(restarts=1)
    trial.expect("stopped (SIGUSR1); the same command with --resume goes on from here")


def cancelled(trial: Trial) -> None:
    """It saves, and does not come back by itself."""
    trial.submit_and_train()
    trial.slurm.call("scancel", trial.job)
    until("end of a cancelled job", lambda: trial.state() == "CANCELLED")
    time.sleep(10)
    trial.expect("stopped (SIGTERM); the same command with --resume goes on from here")
    if trial.state() != "CANCELLED":
        raise HostsError(f"a cancelled job is {trial.state()}")
    trial.submit()
    trial.end()


def rank(trial: Trial) -> None:
    """A rank is killed: torchrun starts the ranks anew, in the same job."""
    trial.submit_and_train()
    os.kill(trial.slurm.processes(1, RANK)[0], signal.SIGKILL)
    trial.end()
    trial.expect("going on from step")


def torchrun(trial: Trial) -> None:
    """A node's torchrun is killed: the job ends, and is queued again."""
    trial.submit_and_train()
    os.kill(trial.slurm.processes(1, TORCHRUN)[0], signal.SIGKILL)
    trial.end(restarts=1)
    trial.expect("going on from step")


def node(trial: Trial) -> None:
    """A node dies and comes back: Slurm queues the job again."""
    trial.submit_and_train()
    trial.slurm.network.kill(1)
    until("notice of the lost node", lambda: trial.state() != "RUNNING")
    trial.slurm.start_node(1)
    trial.end(restarts=1)
    trial.expect("going on from step")


def mistake(trial: Trial) -> None:
    """One sentence, and the job is not queued again."""
    file = trial.home / "mistake.json"
    file.write_text('{"batch_sise": 3}', encoding="utf-8")
    trial.job = trial.slurm.submit(file)
    until("end of a job with a mistake", lambda: trial.state() == "FAILED")
    time.sleep(10)
    told, said = trial.slurm.told(trial.job), trial.slurm.log(trial.job)
    if (told["JobState"], told["ExitCode"], said.count("\n")) != ("FAILED", "2:0", 1):
        raise HostsError(f"a mistake: {told['JobState']}, {told['ExitCode']}\n{said}")


TRIALS: dict[str, Callable[[Trial], None]] = {
    trial.__name__: trial
    for trial in (undisturbed, one_node, warned, cancelled, rank, torchrun, node, mistake)
}


def run(slurm: Slurm, home: Path, name: str, steps: int) -> None:
    """One trial, and a line about it."""
    began, trial = time.monotonic(), Trial(slurm, home, name, steps)
    TRIALS[name](trial)
    told, said = slurm.told(trial.job), slurm.log(trial.job)
    steps_of = ", ".join(re.findall(r"going on from step (\d+)", said)) or "none"
    how = f"{told['JobState']}, exit {told['ExitCode']}, restarts {told['Restarts']}"
    seconds = time.monotonic() - began
    print(f"{name}: {how}, went on from step: {steps_of}; {seconds:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", nargs="*", choices=[*TRIALS][1:], default=[*TRIALS][1:])
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of a run")
    options = parser.parse_args(arguments)
    if not can_start():
        print("this needs Linux, root, ip (iproute2), slurm-wlm and munge")
        return 2

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="omnitune-slurm-") as folder, Network() as network:
            home = make_home(Path(folder))
            with Slurm(home, network) as slurm:
                for name in ("undisturbed", *options.trials):
                    run(slurm, home, name, options.steps)

    return in_order(work)


if __name__ == "__main__":
    sys.exit(main())
