"""torchrun starts the ranks anew when one is lost, and the run ends as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings
from rank_helpers import needs_fork

from omnitune.models.loading import load_omni

# Rank 1 is killed in the middle of the sixth step, once.
SCRIPT = """
import os, signal, sys
import omnitune.training.loop as loop
from omnitune.tasks import TASKS
from dataclasses import replace

for name, task in list(TASKS.items()):
    TASKS[name] = replace(task, answer_limit=2)
inner = loop.update

def update(run, fed):
    lost = (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], run.step) == ("1", "0", 5)
    if lost and os.environ["LOSE"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(run, fed)

loop.update = update
from omnitune.cli import main
sys.exit(main(["sft", *sys.argv[1:]]))
"""


def launch(home: Path, name: str, lose: bool, mode: str) -> subprocess.CompletedProcess[str]:
    settings = json.loads(
        sft_settings(
            home, name, parallel={"mode": mode}, max_steps=8, max_interpolation=0, log_every=100
        ).model_dump_json(exclude_unset=True)
    )
    (home / f"{name}.json").write_text(json.dumps(settings), encoding="utf-8")
    (home / "script.py").write_text(SCRIPT, encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    given = {"LOSE": str(int(lose)), "PYTHONPATH": root, "GLOO_SOCKET_IFNAME": "lo"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    torchrun += ["--max-restarts=2", "--standalone", "--monitor-interval=0.2"]
    return subprocess.run(
        [*torchrun, str(home / "script.py"), "--config", str(home / f"{name}.json")],
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_killed_rank_changes_nothing(home: Path, mode: str) -> None:
    found: dict[str, Any] = {}
    for name, lose in ((f"{mode} straight", False), (f"{mode} broken", True)):
        done = launch(home, name, lose, mode)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("going on from step" in done.stdout) == lose
        found[name] = load_omni(home / name / "omni.pt")[0].state_dict()
        assert (home / name / "results.json").is_file()
    one, two = found.values()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    lines = [(home / n / "metrics.jsonl").read_text().splitlines() for n in found]
    steps = [[json.loads(line)["step"] for line in each] for each in lines]
    assert steps[0] == steps[1]
