"""The examples of starting a run on several processes can be read by their tools."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnitune.config.sft import SftConfig

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "launch"
ROOT = FOLDER.parent.parent


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.s*")), ids=lambda path: path.name)
def test_scripts_are_shell(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        text = yaml.safe_load(text)["run"]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_every_file_starts_torchrun_and_is_listed() -> None:
    said = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        if path.name == "README.md":
            continue
        text = path.read_text(encoding="utf-8")
        assert f"`{path.name}`" in said
        assert "torchrun" in text
        assert "sft_omni.py" in text
        for named in re.findall(r"configs/[a-z_]+\.json", text):
            assert (ROOT / named).is_file(), named


def test_jobset_names_its_first_pod() -> None:
    found = read("jobset.yaml")
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = found["spec"]["replicatedJobs"]
    name, pods = found["metadata"]["name"], job["template"]["spec"]
    assert pods["completions"] == pods["parallelism"] == 2
    assert pods["completionMode"] == "Indexed"
    (container,) = pods["template"]["spec"]["containers"]
    assert f"--rdzv_endpoint={name}-{job['name']}-0-0.{name}:29500" in container["command"]
    mounted = {volume["name"] for volume in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pods["template"]["spec"]["volumes"]}


def test_trainjob_has_the_keys_of_its_kind() -> None:
    found = read("trainjob.yaml")
    assert (found["apiVersion"], found["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert found["spec"]["runtimeRef"]["name"]
    known = {"numNodes", "numProcPerNode", "image", "command", "args", "env", "resourcesPerNode"}
    assert found["spec"]["trainer"].keys() <= known


def test_skypilot_has_the_keys_of_a_task() -> None:
    known = {"name", "num_nodes", "resources", "workdir", "file_mounts", "setup", "run", "envs"}
    assert read("skypilot.yaml").keys() <= known


def test_settings_in_the_scripts_are_settings() -> None:
    text = (FOLDER / "two_machines.sh").read_text(encoding="utf-8")
    (given,) = re.findall(r"--parallel '(.*)'", text)
    config = SftConfig(output_dir=Path("out"), parallel=json.loads(given))
    assert config.parallel.replicate == 2


def test_every_file_goes_on_with_a_run_that_was_broken_off() -> None:
    """Schedulers start them again; the run would else be refused."""
    for path in FOLDER.iterdir():
        if path.name != "README.md":
            assert "--resume" in path.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.s*")), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not checker:
        pytest.skip("shellcheck is not installed")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        text = "#!/usr/bin/env bash\n" + yaml.safe_load(text)["run"]
    done = subprocess.run([checker, "-"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_slurm_knows_the_options_of_the_job() -> None:
    """Slurm refuses a job with an option that it does not know."""
    text = (FOLDER / "slurm.sbatch").read_text(encoding="utf-8")
    first = text.index("set -euo")
    options = re.findall(r"^#SBATCH (\S+)", text, re.M)
    assert {option.partition("=")[0] for option in options} <= {
        *("--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task"),
        *("--time", "--requeue", "--signal", "--open-mode", "--output"),
    }
    assert "#SBATCH" not in text[first:], "sbatch reads them up to the first command only"


# What a stand-in for Slurm's srun does; the last one is warned, which the script hands on to it.
ENDS = {
    "well": "exit 0",
    "breaks off": "exit 1",
    "warned": "trap 'exit 1' USR1; kill -USR1 $PPID; while true; do sleep 0.05; done",
}


def run_slurm_job(folder: Path, srun: str, comment: str = "(null)", plan: int = 0) -> int:
    """Runs the job with stand-ins for Slurm's commands; what it asks for is in ``seen``."""
    for name, does in {
        "scontrol": 'if [ "$1" = show ]; then echo node1; else echo "$@" >>"$SEEN"; fi',
        "squeue": f"echo '{comment}'",
        "srun": srun,
        "omnitune": f"exit {plan}",
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{does}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    (folder / "seen").touch()
    given = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    given |= {"SLURM_GPUS_ON_NODE": "8", "SEEN": str(folder / "seen")}
    given["PATH"] = f"{folder}:{os.environ['PATH']}"
    command = ["bash", str(FOLDER / "slurm.sbatch"), "x.json"]
    return subprocess.run(command, env=given, check=False, timeout=300).returncode


@pytest.mark.parametrize(
    ("end", "comment", "asked"),
    [
        ("well", "(null)", []),
        ("breaks off", "(null)", ["update JobId=7 Comment=broke off, 1", "requeue 7"]),
        ("breaks off", "broke off, 2", ["update JobId=7 Comment=broke off, 3", "requeue 7"]),
        ("breaks off", "broke off, 3", []),
        ("warned", "broke off, 3", ["requeue 7"]),
    ],
)
def test_slurm_queues_a_job_again_that_did_not_end(
    tmp_path: Path, end: str, comment: str, asked: list[str]
) -> None:
    """However often its time was over; some times where it broke off."""
    status = run_slurm_job(tmp_path, ENDS[end], comment)
    assert status == (0 if end == "well" else 1)
    assert (tmp_path / "seen").read_text(encoding="utf-8").splitlines() == asked


def test_slurm_does_not_start_a_job_with_a_mistake(tmp_path: Path) -> None:
    status = run_slurm_job(tmp_path, 'echo started >>"$SEEN"', plan=2)
    assert status == 2
    assert not (tmp_path / "seen").read_text(encoding="utf-8")


def unknown(model: Any, given: Any, place: str = "") -> list[str]:
    """Keys of a file that its schema has no place for; such models keep silent about them."""
    wrong: list[str] = []
    if isinstance(given, dict) and hasattr(type(model), "model_fields"):
        fields = type(model).model_fields.items()
        known = {field.alias or name: getattr(model, name) for name, field in fields}
        for key, value in given.items():
            where = f"{place}.{key}"
            wrong += unknown(known[key], value, where) if key in known else [where]
    elif isinstance(given, list) and isinstance(model, list):
        for n, (one, two) in enumerate(zip(model, given, strict=True)):
            wrong += unknown(one, two, f"{place}[{n}]")
    return wrong


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("jobset.yaml", "jobset_v1alpha2_job_set.JobsetV1alpha2JobSet"),
        ("trainjob.yaml", "trainer_v1alpha1_train_job.TrainerV1alpha1TrainJob"),
    ],
)
def test_kubeflow_has_a_place_for_each_key(name: str, kind: str) -> None:
    pytest.importorskip("kubeflow_trainer_api")
    file, _, model = kind.partition(".")
    kinds = importlib.import_module(f"kubeflow_trainer_api.models.{file}")
    found = read(name)
    assert not unknown(getattr(kinds, model).from_dict(found), found)


def test_kubernetes_takes_the_job_of_the_jobset() -> None:
    checker = pytest.importorskip("kubernetes_validate")
    (job,) = read("jobset.yaml")["spec"]["replicatedJobs"]
    found = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    checker.validate(found | {"spec": job["template"]["spec"]}, "1.30", strict=True)


def test_skypilot_takes_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    sky = pytest.importorskip("sky")
    task = sky.Task.from_yaml(str(FOLDER / "skypilot.yaml"))
    assert task.num_nodes == 2
