"""Every command of the README on a miniature: from nothing to a model that answers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"hidden_size": 64, "num_layers": 2, "intermediate_size": 128, "warmup_steps": 5}
PARTS: dict[str, dict[str, object]] = {
    "thinker_tiny": {**SMALL, "num_epochs": 6, "vocab_size": 700},
    "audio_enc_tiny": {**SMALL, "num_epochs": 1, "subsampling_channels": 8},
    "vision_tiny": {**SMALL, "num_epochs": 1},
}
SFT = ["--config", str(ROOT / "configs/omni_sft_tiny.json"), "--num-epochs", "2"]
FAST = [
    "--save-every",
    "5",
    "--log-every",
    "20",
    "--probe-questions",
    "2",
    "--epoch-questions",
    "4",
]


def run(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command of the project in a folder and checks its exit status."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=6000
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def omnitune(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "omnitune.cli", *arguments, status=status)


def pretrain_parts(
    folder: Path, *arguments: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    files = [f"{name}.json" for name in PARTS]
    return omnitune(folder, "pretrain", "--config", *files, *arguments, status=status)


def sft(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return run(folder, str(ROOT / "sft_omni.py"), *SFT, *FAST, *arguments, status=status)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with corpus, parts and a finished joint model."""
    folder = tmp_path_factory.mktemp("work")
    omnitune(folder, "corpus", "--scale", "0.01")
    for name, settings in PARTS.items():
        values = json.loads((ROOT / f"configs/{name}.json").read_text()) | settings
        (folder / f"{name}.json").write_text(json.dumps(values))
    lines = pretrain_parts(folder, "--seed", "0").stdout.splitlines()
    for name in PARTS:
        assert any(re.match(rf"{name} +\| .* held-out", line) for line in lines), lines
    (folder / "sft.log").write_text(sft(folder).stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    return folder / "checkpoints/omni_sft_tiny"


def test_parts_are_where_the_configuration_expects_them(folder: Path) -> None:
    config = json.loads((ROOT / "configs/omni_sft_tiny.json").read_text())
    for key in ("thinker_ckpt", "audio_ckpt", "vision_ckpt"):
        values = torch.load(folder / config[key], weights_only=True)
        assert {"kind", "config", "state"} <= values.keys()


def test_parts_that_are_there_are_left_alone(folder: Path) -> None:
    before = (folder / "checkpoints/thinker_tiny/thinker_best.pt").stat().st_mtime_ns
    assert pretrain_parts(folder).stdout.count("nothing to do") == len(PARTS)
    alone = omnitune(folder, "pretrain", "--config", "thinker_tiny.json", "--resume")
    assert "nothing to do" in alone.stdout
    assert (folder / "checkpoints/thinker_tiny/thinker_best.pt").stat().st_mtime_ns == before


def test_a_part_that_cannot_begin_ends_the_others(folder: Path) -> None:
    done = pretrain_parts(folder, "--seed", "1", status=2)
    assert re.search(r"\w+ +\| error: .* holds a run with other settings", done.stdout)
    assert "ended with status 2" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_parts_say_that_there_is_no_gpu(folder: Path) -> None:
    done = pretrain_parts(folder, "--device", "cuda", "--seed", "1", status=2)
    assert "torch finds no GPU" in done.stdout


def test_parts_need_folders_of_their_own(folder: Path) -> None:
    done = pretrain_parts(folder, "--output-dir", "one", status=2)
    assert "would both write to one" in done.stderr
    assert not (folder / "one").exists()


def test_lines_are_printed_in_the_promised_form(folder: Path) -> None:
    log = (folder / "sft.log").read_text(encoding="utf-8")
    block = (
        r"Epoch 1/2:\nStep \d+: loss=\d+\.\d{3} text_acc=\d+\.\d%SPREAD\n"
        r"→ Image QA acc: \d+\.\d%SPREAD\n→ Audio transcription WER: \d+\.\d%SPREAD\n"
    ).replace("SPREAD", r"( \(\d+\.\d to \d+\.\d\))?")
    assert re.search(block, log), log
    assert "Epoch 2/2:" in log


def test_model_file_holds_thinker_and_projectors(out: Path) -> None:
    values = torch.load(out / "omni.pt", weights_only=True)
    assert {"thinker", "proj_v", "proj_a", "encoders", "config", "tokenizer"} <= values.keys()


def test_results_and_metrics_are_written(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    for key in ("loss", "text_acc", "image_qa_acc", "audio_wer"):
        low, high = results["intervals"][key]
        assert 0 <= low <= results[key] <= high
    assert results["reliance"].keys() == {"image", "audio"}
    assert "prior" in results["tasks"]["image_qa"]
    assert {"test", "test_composition", "test_voices"} == results["splits"].keys()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len({line["step"] for line in lines}) == len(lines)
    assert lines[0]["step"] == 0  # scored before the first step
    assert "loss" not in lines[0]["train"]
    assert set(lines[1]["train"]["sources"]) == {"text_only", "image_text", "audio_text"}
    for name in ("report.html", "curves.png", "answers.png"):
        assert (out / name).stat().st_size > 1000


def test_training_lowers_the_loss(out: Path) -> None:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train"]["loss"] < lines[1]["train"]["loss"]


def test_only_the_newest_three_step_checkpoints_are_kept(out: Path) -> None:
    steps = sorted(int(p.stem.split("_")[-1]) for p in out.glob("omni_step_*.pt"))
    assert len(steps) == 3
    assert all(step % 5 == 0 for step in steps[:-1])
    assert steps[-1] == json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def test_a_second_run_says_so_and_changes_nothing(folder: Path, out: Path) -> None:
    before = (out / "omni.pt").stat().st_mtime_ns
    assert "nothing to do" in sft(folder).stdout
    assert "nothing to do" in sft(folder, "--resume").stdout
    assert (out / "omni.pt").stat().st_mtime_ns == before


def test_a_run_with_other_settings_is_refused(folder: Path, out: Path) -> None:
    done = sft(folder, "--learning-rate", "3e-4", status=2)
    assert "learning_rate: 0.0001 there, 0.0003 now" in done.stderr


def test_interrupted_run_goes_on_to_the_same_end(folder: Path, out: Path) -> None:
    other = folder / "checkpoints/interrupted"
    command = [sys.executable, str(ROOT / "sft_omni.py"), *SFT, *FAST, "--output-dir", str(other)]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        if (other / "metrics.jsonl").exists():
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert "going on from step" in sft(folder, "--output-dir", str(other), "--resume").stdout
    straight, resumed = (torch.load(d / "omni.pt", weights_only=True) for d in (out, other))
    for part in ("thinker", "proj_v", "proj_a"):
        for name, tensor in straight[part].items():
            assert torch.equal(tensor, resumed[part][name]), name


def test_evaluate_repeats_the_final_scores(folder: Path, out: Path) -> None:
    done = omnitune(
        folder, "evaluate", "--ckpt_dir", str(out), "--data", "data/multimodal", "--json",
        "--predictions", "answers.jsonl",
    )  # fmt: skip
    scores, results = json.loads(done.stdout), json.loads((out / "results.json").read_text())
    assert scores["follow_ups"] == results["follow_ups"]
    assert scores["loss"] == pytest.approx(results["loss"], rel=1e-3)
    assert scores["audio_wer"] == pytest.approx(results["audio_wer"], abs=0.02)
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all({"id", "kind", "reference", "answer"} <= row.keys() for row in rows)


def test_evaluate_takes_a_folder_with_one_file(folder: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    record = {"messages": [{"role": "user", "content": "hello"},
                           {"role": "assistant", "content": "hi"}], "split": "mine"}  # fmt: skip
    (tmp_path / "text/conversations.json").write_text(json.dumps([record]))
    done = omnitune(
        folder, "evaluate", "--ckpt_dir", str(out), "--data", str(tmp_path), "--split", "mine"
    )
    assert "text" in done.stdout


def test_chat_answers_once(folder: Path, out: Path) -> None:
    image = next((folder / "data/multimodal/images/pictures").glob("*.png"))
    done = run(
        folder, str(ROOT / "infer_chat.py"), "--ckpt_dir", str(out),
        "--prompt", "what do you see?", "--image", str(image), "--json",
    )  # fmt: skip
    assert "answer" in json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sft", "--config", "nowhere.json"], "nowhere.json: no such file"),
        (["sft", "--learning-rat", "1e-4", "--num-epochs", "0"], "did you mean --learning-rate?"),
        (
            ["sft", "--thinker-ckpt", "no.pt", "--output-dir", "x"],
            "make it with `omnitune parts` or `omnitune pretrain",
        ),
        (["sft", "--data-dir", "no", "--output-dir", "y"], "make it with `omnitune corpus`"),
        (["pretrain"], "--config"),
        (["evaluate", "--ckpt_dir", "no"], "no: no such folder; make a model"),
        (["chat", "--ckpt_dir", "no", "--prompt", "hi"], "no: no such folder; make a model"),
        (["chatt"], "no such command"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(
    folder: Path, arguments: list[str], expected: str
) -> None:
    assert expected in omnitune(folder, *arguments, status=2).stderr
