"""Where and with what a run is made: versions, machine, commit, command."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "omnitune")


def environment() -> dict[str, str]:
    """Facts by name, as they are kept in ``run.json``."""
    import torch

    from omnitune.storage import usable_cores

    facts = {
        "Python": platform.python_version(),
        **versions(PACKAGES),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        facts["GPU"] = f"{count} x {torch.cuda.get_device_name()}"
    facts["git commit"] = _commit(Path(__file__).resolve().parents[2])
    return {name: fact for name, fact in facts.items() if fact}


def command() -> str:
    """The command line of this process, as it can be typed again."""
    program = Path(sys.argv[0])
    start = ["python", program.name] if program.suffix == ".py" else [program.name]
    if program.name == "cli.py":
        start = ["python", "-m", "omnitune.cli"]
    return shlex.join([*start, *sys.argv[1:]])


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the project runs from its folder without being installed
        return "not installed"


def _processor() -> str:
    """The processor's name; "" where the system does not tell it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: *(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor()


def _commit(root: Path) -> str:
    """The commit of the project's own checkout; "" for an installed package."""
    if not (root / ".git").exists():
        return ""
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
