"""Trains while everything goes wrong, goes on each time, and ends as an undisturbed run.

    python -m benchmarks.chaos --minutes 10

Random faults hit a small run at random moments, in indexing, caching, training, saving and scoring:
killed, politely stopped, paused, no room for a file, a damaged checkpoint, a junk manifest, caches
deleted. Broken media are among the data all the time. After each fault the newest checkpoint must
be whole, and the same command with --resume goes on. Each run that reaches its end is compared,
bit for bit, with one that was never disturbed: weights, scores, answers, the log, the run hash.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.chaos_home import config_of, make_home
from omnitune import cli
from omnitune.config.sft import SftConfig
from omnitune.data import index
from omnitune.reporting import report as report  # here, so that no process need import them again
from omnitune.storage import MANIFEST, read_checkpoint
from omnitune.training import sft as sft
from omnitune.training.checkpoint import step_files

PATIENCE = 300.0  # seconds after which a command hangs
STEPS = 24
LIMITS = (30_000, 1_000_000)  # bytes of a file, at most: from none of the checkpoints to all
SIGNALS = {
    "killed (SIGKILL)": signal.SIGKILL,
    "stopped (SIGTERM)": signal.SIGTERM,
    "warned (SIGUSR1)": signal.SIGUSR1,
    "interrupted (SIGINT)": signal.SIGINT,
}
STATUS = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130, signal.SIGKILL: -9}
CLOCKS = ("seconds", "scoring_seconds")


class ChaosError(Exception):
    """A promise was broken."""


@dataclass
class Chaos:
    """A folder in which runs are disturbed.

    Attributes:
        survived: how often, by fault. finished: runs that ended as the undisturbed one.
    """

    home: Path
    rng: random.Random
    steps: int = STEPS
    kills_only: bool = False
    survived: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    duration: float = 0.0

    def begin(self) -> None:
        """Makes the data and the undisturbed run."""
        make_home(self.home)
        self.ended(self.start(self.config("warm")))  # what is read for the first time takes longer
        started = time.monotonic()
        status = self.wait(self.start(self.config("straight")))
        self.duration = 0.7 * (time.monotonic() - started)
        if status:
            raise ChaosError(f"the undisturbed run ended with status {status}\n{self.log}")
        print(f"undisturbed run: {time.monotonic() - started:.1f} s", flush=True)

    def config(self, name: str) -> SftConfig:
        return config_of(self.home, name, self.steps)

    @property
    def log(self) -> str:
        """The last lines that the newest command printed."""
        lines = (self.home / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-30:])

    def start(self, config: SftConfig, limit: int | None = None) -> int:
        """Starts the command in a process of its own; returns its number."""
        file = self.home / f"{config.out.name}.json"
        file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
        sys.stdout.flush()
        if process := os.fork():
            return process
        status = 1
        try:
            log = os.open(self.home / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            # Before threads do it at once, which in a fresh copy of a process torch cannot bear.
            torch.set_num_threads(1)
            if limit:
                hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            status = cli.main(["sft", "--config", str(file), "--resume"])
        except BaseException as error:
            print(f"{type(error).__name__} outside of the command: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def wait(self, process: int, seconds: float = PATIENCE) -> int | None:
        """Exit status of a process; None if it runs on after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        return None

    def ended(self, process: int) -> int:
        """Exit status of a process that must end now."""
        status = self.wait(process)
        if status is None:
            os.kill(process, signal.SIGKILL)
            self.wait(process)
            raise ChaosError(f"a command hangs\n{self.log}")
        return status

    def disturb(self, name: str) -> bool:
        """One command with one fault; returns whether the run is finished."""
        config = self.config(name)
        faults: list[Callable[[SftConfig], tuple[str, int]]] = [self._signal] * 3
        if not self.kills_only:
            faults += [self._pause, self._no_room, self._damage]
        if self.rng.random() < 0.3:
            shutil.rmtree(self.home / "data" / ".features", ignore_errors=True)
            self.survived["caches deleted"] += 1
        what, status = self.rng.choice(faults)(config)
        if not what:  # a moment too late: this machine has become faster
            self.duration = max(0.5, 0.8 * self.duration)
        self._check_folder(config.out, what, status)
        if what:
            self.survived[what] += 1
        at = newest_step(config.out)
        print(f"{name}: {what or 'ended before the fault'}, newest checkpoint {at}", flush=True)
        return status == 0

    def _until_a_moment(self, process: int, folder: Path) -> int | None:
        """Waits for any time of the command, or for a file that is just being written."""
        if self.rng.random() < 0.4:
            return self.wait(process, self.rng.uniform(0.1, self.duration))
        waited = time.monotonic() + self.rng.uniform(0.3, self.duration)
        while time.monotonic() < waited or not list(folder.glob("*.tmp")):
            if (status := self.wait(process, 0.001)) is not None:
                return status
        return None

    def _signal(self, config: SftConfig) -> tuple[str, int]:
        names = ["killed (SIGKILL)"] if self.kills_only else list(SIGNALS)
        what = self.rng.choice(names)
        number = SIGNALS[what]
        process = self.start(config)
        status = self._until_a_moment(process, config.out)
        if status is not None:
            return "", status
        os.kill(process, number)
        status = self.ended(process)
        if status not in (STATUS[number], 0):
            raise ChaosError(f"{what}, but the status is {status}\n{self.log}")
        return what, status

    def _pause(self, config: SftConfig) -> tuple[str, int]:
        process = self.start(config)
        status = self._until_a_moment(process, config.out)
        if status is not None:
            return "", status
        os.kill(process, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(process, signal.SIGCONT)
        return "paused (SIGSTOP)", self.ended(process)

    def _no_room(self, config: SftConfig) -> tuple[str, int]:
        limit = int(self.rng.uniform(*LIMITS))
        status = self.ended(self.start(config, limit))
        if status not in (0, 2):
            raise ChaosError(f"no file above {limit} bytes: the status is {status}\n{self.log}")
        if left := [path.name for path in config.out.glob("*.tmp")]:
            raise ChaosError(f"no file above {limit} bytes: {left} are left")
        return "no room for a file", status

    def _damage(self, config: SftConfig) -> tuple[str, int]:
        files = step_files(config.out)
        if files:
            damage(self.rng, self.rng.choice(files))
        status = self.ended(self.start(config))
        if status:
            raise ChaosError(f"a damaged checkpoint: the status is {status}\n{self.log}")
        return ("damaged checkpoint" if files else ""), status

    def _check_folder(self, folder: Path, what: str, status: int) -> None:
        """The newest checkpoint loads, whatever came before."""
        try:
            for path in step_files(folder)[-1:]:
                read_checkpoint(path)
        except Exception as error:
            raise ChaosError(f"after {what}: {error}") from error
        if status not in (0, 2, *STATUS.values()):
            raise ChaosError(f"after {what}: the command ended with {status}\n{self.log}")

    def go_on(self, name: str) -> None:
        """Goes on to the end without a fault."""
        status = self.ended(self.start(self.config(name)))
        if status:
            raise ChaosError(f"going on to the end: the status is {status}\n{self.log}")

    def compare(self, name: str) -> None:
        """Raises a ChaosError where a run's end differs from the undisturbed one's."""
        one, other = outcome(self.home / "straight"), outcome(self.home / name)
        for key, value in one.items():
            if not same(value, other[key]):
                raise ChaosError(f"{name}: {key} differs from the undisturbed run's")
        self.finished += 1
        print(f"{name}: ended bit for bit as the undisturbed run", flush=True)


def damage(rng: random.Random, path: Path) -> None:
    """Flips a bit of a file or cuts it short, with its manifest there, gone or junk."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    manifest = path.parent / MANIFEST
    change = rng.randrange(3)
    if change == 1:
        manifest.unlink(missing_ok=True)
    elif change == 2:
        manifest.write_bytes(b'{"omni')


def newest_step(folder: Path) -> str:
    """Name of the newest checkpoint of a run."""
    files = step_files(folder)
    return files[-1].stem if files else "none"


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves but the clock's share."""
    model = read_checkpoint(folder / "omni.pt")
    last = read_checkpoint(step_files(folder)[-1])
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {
        "weights": {key: model[key] for key in ("thinker", "proj_v", "proj_a")},
        "optimiser": last["optimizer"],
        "random numbers": last["torch_rng"],
        "run hash": results["run_hash"],
        "scores": without_clock(results),
        "log": [without_clock(json.loads(line)) for line in lines],
        "answers": (folder / "predictions.jsonl").read_bytes(),
        "best": read_checkpoint(folder / "omni_best.pt")["model"],
    }


def without_clock(value: Any) -> Any:
    """Values without the seconds that something took."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in CLOCKS}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def run_chaos(chaos: Chaos, faults: int | None, seconds: float | None) -> None:
    """Disturbs runs, one after the other, so often or so long; ends with whole ones only."""
    chaos.begin()
    deadline = None if seconds is None else time.monotonic() + seconds
    number, done = 0, 0
    while (faults is None or done < faults) and (not deadline or time.monotonic() < deadline):
        name = f"run{number}"
        finished = chaos.disturb(name)
        trained = newest_step(chaos.home / name).endswith(f"_{chaos.steps}")
        if not finished and trained and chaos.rng.random() < 0.5:
            chaos.go_on(name)  # the next fault shall hit a run that is not trained yet
            finished = True
        if finished:
            chaos.compare(name)
            shutil.rmtree(chaos.home / name)
            number += 1
        done += 1
    chaos.go_on(f"run{number}")
    chaos.compare(f"run{number}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="how long [default: 10, unless --faults]")
    parser.add_argument("--faults", type=int, help="so many faults instead")
    parser.add_argument("--kills-only", action="store_true", help="no fault but SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of a run")
    options = parser.parse_args(arguments)
    minutes = options.minutes if options.minutes or options.faults else 10.0
    torch.set_num_threads(1)
    index.KEEP_FROM = 0  # of the small data too an index is kept
    with tempfile.TemporaryDirectory(prefix="omnitune-chaos-") as folder:
        chaos = Chaos(Path(folder), random.Random(options.seed), options.steps, options.kills_only)
        try:
            run_chaos(chaos, options.faults, minutes and 60 * minutes)
        except ChaosError as error:
            print(f"broken promise: {error}")
            return 1
    for what, times in chaos.survived.most_common():
        print(f"survived {times:4d}  {what}")
    print(f"{chaos.finished} runs ended bit for bit as the undisturbed one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
