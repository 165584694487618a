"""Parts trained side by side: each is a process of its own, on its share of the cores.

The steps of small parts gain little from a second core, and parts do not disturb one another
(docs/log.md, "What the second core is worth").
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omnitune.config.run import RunConfig
from omnitune.sample import UserError
from omnitune.storage import cores
from omnitune.tiny.pretrain_lm import ThinkerConfig
from omnitune.tiny.ready import TOKENIZER_FILE
from omnitune.training.stopping import GO_ON, StoppedError

PAUSE = 0.1  # seconds between two looks at what runs


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        name: what the lines that it prints are marked with.
        makes: a file that it writes anew before its work is done.
        needs: a file without which it cannot begin. If another job makes it, that one's is meant.
    """

    name: str
    command: Sequence[str]
    makes: Path | None = None
    needs: Path | None = None


def part_jobs(configs: Mapping[Path, RunConfig], arguments: Sequence[str]) -> list[Job]:
    """The parts of these files as jobs; encoders wait for no more than a thinker's tokenizer.

    Args:
        configs: by file, with all else that the command line says.
        arguments: the rest of the command line, for each of them.

    Raises:
        UserError: two of them would write to one folder.
    """
    by_folder = {config.out.resolve(): path for path, config in configs.items()}
    for path, config in configs.items():
        other = by_folder[config.out.resolve()]
        if other != path:
            raise UserError(
                f"{path} and {other} would both write to {config.out}; give each an output_dir of "
                "its own, in its file"
            )
    jobs = []
    for path, config in configs.items():
        command = [sys.executable, "-m", "omnitune.cli", "pretrain", "--config", str(path)]
        makes = config.out / TOKENIZER_FILE if isinstance(config, ThinkerConfig) else None
        needs = getattr(config, "tokenizer", None)
        files = [file and file.resolve() for file in (makes, needs)]
        jobs.append(Job(path.stem, [*command, *arguments], *files))
    return jobs


def run_side_by_side(jobs: Sequence[Job]) -> None:
    """Runs commands, as many at a time as there are cores; prints what they print, line by line.

    If it is interrupted or a job fails, the others are interrupted too, once, and waited for.

    Raises:
        UserError: a job ended with another status than 0.
        StoppedError: a job stopped because its time was up.
    """
    usable, waiting, width = cores(), list(jobs), max(len(job.name) for job in jobs)
    count = min(len(jobs), len(usable))
    share = len(usable) // count
    free = [usable[n * len(usable) // count :][:share] for n in range(count)]
    unmade = {job.makes: _stamp(job.makes) for job in jobs if job.makes}
    running: list[_Running] = []
    try:
        while waiting or running:
            unmade = {path: old for path, old in unmade.items() if _stamp(path) == old}
            for job in [job for job in waiting if job.needs not in unmade][: len(free)]:
                waiting.remove(job)
                running.append(_start(job, free.pop(0), width))
            time.sleep(PAUSE)
            for ended in [one for one in running if one.process.poll() is not None]:
                ended.printer.join()
                running.remove(ended)
                free.append(ended.cores)
                _check_status(ended)
                if ended.job.makes:  # a part that was there already leaves it as it is
                    unmade.pop(ended.job.makes, None)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
            one.printer.join()


@dataclass
class _Running:
    job: Job
    cores: list[int]
    process: subprocess.Popen[str]
    printer: threading.Thread


def _start(job: Job, cores: list[int], width: int) -> _Running:
    process = subprocess.Popen(
        job.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"OMP_NUM_THREADS": str(len(cores)), **os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C comes from here, so that it comes once
    )
    if hasattr(os, "sched_setaffinity"):  # its threads, which come later, are bound as it is
        os.sched_setaffinity(process.pid, cores)
    printer = threading.Thread(target=_print_lines, args=(process, job.name.ljust(width)))
    printer.start()
    return _Running(job, cores, process, printer)


def _check_status(ended: _Running) -> None:
    if ended.process.returncode == GO_ON:  # its time is up, and so is that of the others
        raise StoppedError(f"{ended.job.name} was asked to", GO_ON)
    if ended.process.returncode:
        raise UserError(
            f"{ended.job.name} ended with status {ended.process.returncode}; what it said "
            "stands above. The others were stopped; the same command with --resume goes on"
        )


def _print_lines(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            print(f"{name} | {line.rstrip()}\n", end="", flush=True)


def _stamp(path: Path) -> int:
    """Changes when the file is written; 0 without one."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
