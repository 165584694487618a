"""Trains while everything goes wrong, goes on each time, and ends as an undisturbed run.

    python -m benchmarks.chaos --minutes 10

Random faults hit a small run at random moments, in indexing, caching, training, saving and scoring:
a rank or all of them killed, politely stopped or paused; a small file system that is full; a
damaged checkpoint, a junk manifest; records that are no records; caches deleted. Broken media are
among the data all the time. Whole and divided models (DDP, FSDP) take turns, and so do ranks that
were started one by one and torchrun, which starts lost ones anew. After each fault the newest
checkpoint must be whole, and the same command with --resume goes on. Each run that reaches its end
is compared, bit for bit, with one of as many ranks that was never disturbed: weights, scores,
answers, the log, the run hash.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks import chaos_disk
from benchmarks.chaos_home import config_of, make_home
from benchmarks.chaos_outcome import damage, difference, newest_step, outcome, read_step
from benchmarks.chaos_ranks import TORCHRUN, ChaosError, Job, start
from omnitune.config.parallel import Mode
from omnitune.data import index
from omnitune.data.feature_cache import FEATURES_FOLDER
from omnitune.reporting import report as report  # here, so that no process need import them again
from omnitune.sources import SOURCES
from omnitune.training import sft as sft
from omnitune.training.checkpoint import step_files

STEPS = 24
ROOM = (0, 1_000_000)  # bytes that are left: of none of the checkpoints to all
SIGNALS = {
    "killed (SIGKILL)": signal.SIGKILL,
    "stopped (SIGTERM)": signal.SIGTERM,
    "warned (SIGUSR1)": signal.SIGUSR1,
    "interrupted (SIGINT)": signal.SIGINT,
}
STATUS = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGINT: 130, signal.SIGKILL: -9}
TIMEOUT = 2  # seconds that ranks wait for one that is paused for longer
OTHERS = (0, 2, 75)  # how ranks end of which another one was hit
Fault = Callable[["Chaos", "Disturbed"], tuple[str, Job]]


@dataclass
class Disturbed:
    """A run that is disturbed: its name, and how its ranks share the model."""

    name: str
    mode: Mode
    out: Path


@dataclass
class Chaos:
    """A folder in which runs are disturbed.

    Args:
        ranks: processes of a run. modes: of ``parallel``, which runs take in turn.
        torchrun: share of the commands that it starts.

    Attributes:
        survived: how often, by fault. finished: runs that ended as the undisturbed one.
        duration: seconds of an undisturbed command, by how it is started.
    """

    home: Path
    rng: random.Random
    steps: int = STEPS
    kills_only: bool = False
    ranks: int = 1
    modes: tuple[Mode, ...] = ("auto",)
    torchrun: float = 0.0
    survived: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    duration: dict[bool, float] = field(default_factory=dict)
    mounts: bool = False

    def begin(self) -> None:
        """Makes the data and the undisturbed runs."""
        self.mounts = chaos_disk.can_mount()
        make_home(self.home)
        if self.mounts:
            chaos_disk.mount(self.features)
        for mode in self.modes:
            took = self.go_on(self.run(f"straight-{mode}", mode))
            self.duration[False] = max(self.duration.get(False, 0.0), 0.5 * took)
            print(f"undisturbed run, {mode}: {took:.1f} s", flush=True)
        self.duration[True] = 3 * self.duration[False]

    @property
    def features(self) -> Path:
        """Where the cached features lie."""
        return self.home / "data" / FEATURES_FOLDER

    def run(self, name: str, mode: Mode) -> Disturbed:
        """A run with a folder of its own."""
        run = Disturbed(name, mode, self.home / name)
        if self.mounts:
            chaos_disk.mount(run.out)
        return run

    def forget(self, run: Disturbed) -> None:
        """Removes a run's folder."""
        if self.mounts:
            chaos_disk.unmount(run.out)
        shutil.rmtree(run.out)

    def start(
        self, run: Disturbed, torchrun: bool = False, limit: int | None = None, timeout: float = 60
    ) -> Job:
        """Starts the command with --resume."""
        config = config_of(self.home, run.name, self.steps, run.mode, timeout)
        file = self.home / f"{run.name}.json"
        file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
        arguments = ["sft", "--config", str(file), "--resume"]
        return start(arguments, self.home / "log.txt", self.ranks, torchrun, limit)

    def go_on(self, run: Disturbed) -> float:
        """Goes on to the end without a fault; returns the seconds that it took."""
        started = time.monotonic()
        job = self.start(run)
        job.end()
        if not job.finished:
            raise ChaosError(f"without a fault: the statuses are {job.ended}\n{job.last_lines}")
        return time.monotonic() - started

    def disturb(self, run: Disturbed) -> bool:
        """One command with one fault; returns whether the run is finished."""
        if self.rng.random() < 0.3:
            for path in self.features.glob("*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.survived["caches deleted"] += 1
        started = time.monotonic()
        what, job = self.rng.choice(self.faults())(self, run)
        self._check(run, what, job)
        if what:
            self.survived[what] += 1
        seconds = time.monotonic() - started
        told = f"{what or 'ended before the fault'}, newest checkpoint {newest_step(run.out)}"
        print(f"{run.name}: {told} ({seconds:.0f} s)", flush=True)
        return job.finished

    def faults(self) -> list[Fault]:
        """What may happen to the next command."""
        if self.torchrun and self.rng.random() < self.torchrun:
            return [of_torchrun]
        if self.kills_only:
            return [of_signal]
        return [of_signal, of_signal, of_signal, of_a_pause, of_no_room, of_damage, of_junk]

    def until_a_moment(self, job: Job, folder: Path) -> bool:
        """Waits for any time of a command, or for a file that is just being written.

        Returns:
            whether anything of it still runs.
        """
        duration = self.duration[TORCHRUN in job.running]
        if self.rng.random() < 0.4:
            job.wait(self.rng.uniform(0.1, duration))
        else:
            moment = time.monotonic() + self.rng.uniform(0.3, duration)
            while time.monotonic() < moment or not list(folder.glob("*.tmp")):
                if job.wait(0.001):
                    break
        if not job.running:  # a moment too late: this machine has become faster
            self.duration[TORCHRUN in job.ended] = max(0.5, 0.8 * duration)
        return bool(job.running)

    def _check(self, run: Disturbed, what: str, job: Job) -> None:
        """The newest checkpoint loads, whatever came before, and every process has a say."""
        try:
            for path in step_files(run.out)[-1:]:
                read_step(path)
        except Exception as error:
            raise ChaosError(f"after {what}: {error}") from error
        known = {0, 2, *STATUS.values()} | ({1} if TORCHRUN in job.ended else set())
        if wrong := {r: s for r, s in job.ended.items() if s not in known}:
            raise ChaosError(f"after {what}: the statuses are {wrong}\n{job.last_lines}")

    def compare(self, run: Disturbed) -> None:
        """Raises a ChaosError where a run's end differs from the undisturbed one's."""
        one, other = outcome(self.home / f"straight-{run.mode}"), outcome(run.out)
        if found := difference(other, one):
            raise ChaosError(f"{run.name} does not end as the undisturbed run: {found}")
        self.finished[run.mode] += 1
        print(f"{run.name}: ended bit for bit as the undisturbed run", flush=True)


def of_signal(chaos: Chaos, run: Disturbed) -> tuple[str, Job]:
    """A signal to one rank or all."""
    names = ["killed (SIGKILL)"] if chaos.kills_only else list(SIGNALS)
    what = chaos.rng.choice(names)
    number, everyone = SIGNALS[what], list(range(chaos.ranks))
    hit = everyone if chaos.rng.random() < 0.4 else [chaos.rng.choice(everyone)]
    job = chaos.start(run)
    if not chaos.until_a_moment(job, run.out):
        return "", job
    job.send(number, hit)
    job.end()
    for rank, status in job.ended.items():
        allowed = (
            (STATUS[number], 0) if rank in hit else (*OTHERS, *([143, -9] if job.forced else []))
        )
        if status not in allowed:
            raise ChaosError(
                f"{what}, ranks {hit}: rank {rank} ends with {status}\n{job.last_lines}"
            )
    whom = "" if chaos.ranks == 1 else "all ranks " if len(hit) > 1 else "one rank "
    return whom + what, job


def of_a_pause(chaos: Chaos, run: Disturbed) -> tuple[str, Job]:
    """A rank does nothing for a moment, or for longer than the others wait."""
    too_long = chaos.ranks > 1 and chaos.rng.random() < 0.4
    job = chaos.start(run, timeout=TIMEOUT if too_long else 60)
    if not chaos.until_a_moment(job, run.out):
        return "", job
    rank = [chaos.rng.randrange(chaos.ranks)]
    job.send(signal.SIGSTOP, rank)
    time.sleep(TIMEOUT + 1.5 if too_long else 0.3)
    job.send(signal.SIGCONT, rank)
    job.end()
    whom = "one rank " if chaos.ranks > 1 else ""
    return f"{whom}paused{' for longer than parallel.timeout' if too_long else ''} (SIGSTOP)", job


def of_no_room(chaos: Chaos, run: Disturbed) -> tuple[str, Job]:
    """The disk is full: that of the run's folder or that of the cache."""
    size = int(chaos.rng.uniform(*ROOM))
    full = chaos.features if chaos.mounts and chaos.rng.random() < 0.2 else run.out
    if chaos.mounts:
        if full == chaos.features:
            size //= 20
        chaos_disk.set_room(full, size)
        job = chaos.start(run)
    else:
        job = chaos.start(run, limit=30_000 + size)
    job.end()
    if chaos.mounts:
        chaos_disk.set_room(full, None)
    what = f"no room for {'features' if full == chaos.features else 'files'}"
    if wrong := {rank: status for rank, status in job.ended.items() if status not in (0, 2)}:
        raise ChaosError(f"{what} ({size} bytes): the statuses are {wrong}\n{job.last_lines}")
    if left := [path.name for path in run.out.glob("*.tmp")]:
        raise ChaosError(f"{what} ({size} bytes): {left} are left\n{job.last_lines}")
    return what, job


def of_damage(chaos: Chaos, run: Disturbed) -> tuple[str, Job]:
    """A checkpoint is not what it was."""
    files = step_files(run.out)
    if files:
        damage(chaos.rng, chaos.rng.choice(files))
    chaos.go_on(run)
    job = Job(chaos.home / "log.txt", ended={0: 0})
    return ("damaged checkpoint" if files else ""), job


def of_junk(chaos: Chaos, run: Disturbed) -> tuple[str, Job]:
    """A run that has begun refuses data that are others now, here with records that are none."""
    if not step_files(run.out):
        return of_signal(chaos, run)
    file = (
        chaos.home
        / "data"
        / chaos.rng.choice([SOURCES[n].file for n in ("text_only", "image_text")])
    )
    before = file.read_bytes()
    junk = chaos.rng.choice([b', {"question": 7}]', b', "', b"]]", b"\xff\xfe"])
    file.write_bytes(before.rstrip()[:-1] + junk)
    try:
        job = chaos.start(run)
        job.end()
    finally:
        file.write_bytes(before)
    if any(status != 2 for status in job.ended.values()):
        raise ChaosError(f"junk among the records: the statuses are {job.ended}\n{job.last_lines}")
    return "junk among the records", job


def of_torchrun(chaos: Chaos, run: Disturbed) -> tuple[str, Job]:
    """Something happens to a rank that torchrun has started, or to torchrun itself."""
    job = chaos.start(run, torchrun=True)
    if not chaos.until_a_moment(job, run.out):
        return "", job
    what = chaos.rng.choice(list(SIGNALS))
    workers = job.workers()
    if workers and chaos.rng.random() < 0.6:
        whom = "a rank of torchrun"
        with suppress(ProcessLookupError):
            os.kill(chaos.rng.choice(workers), SIGNALS[what])
    else:
        whom = "torchrun"
        job.send(SIGNALS[what])
        if SIGNALS[what] in (signal.SIGKILL, signal.SIGUSR1):  # it leaves its ranks alone
            job.kill()
            for process in workers:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
    job.end()
    return f"{whom} {what}", job


def run_chaos(chaos: Chaos, faults: int | None, seconds: float | None) -> None:
    """Disturbs runs, one after the other, so often or so long; ends with whole ones only."""
    chaos.begin()
    deadline = None if seconds is None else time.monotonic() + seconds
    number, done, run = 0, 0, None
    while (faults is None or done < faults) and (not deadline or time.monotonic() < deadline):
        mode = chaos.modes[number % len(chaos.modes)]
        run = run or chaos.run(f"run{number}-{mode}", mode)
        finished = chaos.disturb(run)
        trained = newest_step(run.out).endswith(f"_{chaos.steps}")
        if not finished and trained and chaos.rng.random() < 0.5:
            chaos.go_on(run)  # the next fault shall hit a run that is not trained yet
            finished = True
        if finished:
            chaos.compare(run)
            chaos.forget(run)
            number, run = number + 1, None
        done += 1
    if run:
        chaos.go_on(run)
        chaos.compare(run)
        chaos.forget(run)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="how long [default: 10, unless --faults]")
    parser.add_argument("--faults", type=int, help="so many faults instead")
    parser.add_argument("--ranks", type=int, default=2, help="processes of a run [default: 2]")
    parser.add_argument(
        "--modes", nargs="+", choices=["ddp", "fsdp"], default=["ddp", "fsdp"], help="in turn"
    )
    parser.add_argument("--torchrun", type=float, default=0.1, help="share of commands under it")
    parser.add_argument("--kills-only", action="store_true", help="no fault but SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of a run")
    options = parser.parse_args(arguments)
    minutes = options.minutes if options.minutes or options.faults else 10.0
    several = options.ranks > 1
    modes: tuple[Mode, ...] = tuple(options.modes) if several else ("auto",)
    torch.set_num_threads(1)
    index.KEEP_FROM = 0  # of the small data too an index is kept
    with tempfile.TemporaryDirectory(prefix="omnitune-chaos-") as folder:
        chaos = Chaos(
            Path(folder),
            random.Random(options.seed),
            options.steps,
            options.kills_only,
            options.ranks,
            modes,
            options.torchrun if several else 0.0,
        )
        try:
            run_chaos(chaos, options.faults, minutes and 60 * minutes)
        except ChaosError as error:
            print(f"broken promise: {error}")
            return 1
        finally:
            for place in Path(folder).iterdir() if chaos.mounts else ():
                chaos_disk.unmount(place)
            if chaos.mounts:
                chaos_disk.unmount(chaos.features)
    for what, times in chaos.survived.most_common():
        print(f"survived {times:4d}  {what}")
    for mode, times in chaos.finished.items():
        of = f" ({mode}, {options.ranks} ranks)" if several else ""
        print(f"{times} runs ended bit for bit as the undisturbed one{of}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
