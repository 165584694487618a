"""The examples of starting a run on several processes can be read by their tools."""

import json
import re
import subprocess
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
