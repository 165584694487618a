"""The scores of the tiny configuration: mean of several seeds against the goals.

    python -m benchmarks.scores [--seeds 0,1,2] [--data data/multimodal] [--out checkpoints/scores]

Each seed trains all four stages, of one corpus. What is finished is left as it is, so that it may
be stopped and repeated. The table is printed and written to docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import Arguments, command, numbers
from omnitune.config.settings import read_json_object
from omnitune.sample import UserError
from omnitune.tiny.ready import TOKENIZER_FILE
from omnitune.tiny.side_by_side import Job, run_side_by_side

CONFIGS = Path("configs")
PAGE = Path("docs/results.md")
# Of each part the file, and stage E's option for it.
PARTS = {
    "thinker_tiny": ("thinker_best.pt", "--thinker-ckpt"),
    "audio_enc_tiny": ("audio_enc.pt", "--audio-ckpt"),
    "vision_tiny": ("vision.pt", "--vision-ckpt"),
}


@dataclass(frozen=True)
class Goal:
    """A row of the table.

    Attributes:
        found: its number in a ``results.json``, or None.
        goal: what it should reach.
        lower: less is better.
        percent: it is a share.
    """

    name: str
    found: Callable[[dict[str, Any]], float | None]
    goal: float | None
    lower: bool = False
    percent: bool = True


def score(split: str, task: str, measure: str) -> Callable[[dict[str, Any]], Any]:
    """Finds a task's score of a split."""
    return lambda results: (
        results["splits"].get(split, {}).get("tasks", {}).get(task, {}).get(measure)
    )


def kind(task: str, name: str) -> Callable[[dict[str, Any]], float | None]:
    """Finds the score of a kind of question in the test split."""
    return lambda results: (score("test", task, "kinds")(results) or {}).get(name)


def weakest_kind(results: dict[str, Any]) -> float:
    """The kind of image question that is answered worst."""
    return min(results["splits"]["test"]["tasks"]["image_qa"]["kinds"].values())


def text_change(results: dict[str, Any]) -> float | None:
    """By how much the text loss is above that of the thinker before stage E."""
    guard = results.get("text_guard")
    return guard["loss"] - guard["start"] if guard else None


def follow_up(task: str) -> Callable[[dict[str, Any]], float | None]:
    """Finds the score of questions that follow another."""
    return lambda results: results.get("follow_ups", {}).get(task, {}).get("exact_match")


GOALS = (
    Goal("image QA, exact match", score("test", "image_qa", "exact_match"), 0.95),
    Goal("image QA, the weakest kind", weakest_kind, 0.90),
    Goal(
        "image QA, unseen colour + shape pairs",
        score("test_composition", "image_qa", "exact_match"),
        0.85,
    ),
    Goal("handwritten digits of unseen pictures", kind("image_qa", "digits"), 0.95),
    Goal("WER, new sentences, known voices", score("test", "transcription", "wer"), 0.03, True),
    Goal("WER, unseen voices", score("test_voices", "transcription", "wer"), 0.06, True),
    Goal(
        "spoken question about an image, exact match",
        kind("image_audio_qa", "spoken_question"),
        0.90,
    ),
    Goal(
        "spoken statement about an image, exact match",
        kind("image_audio_qa", "spoken_statement"),
        None,
    ),
    Goal("questions about speech, exact match", score("test", "audio_qa", "exact_match"), None),
    Goal("image QA, asked after another question", follow_up("image_qa"), None),
    Goal("captions, all right", score("test", "caption", "exact_match"), None),
    Goal("text conversations, token accuracy", score("test", "text", "token_acc"), 0.95),
    Goal("text loss after stage E less before", text_change, 0.0, True, percent=False),
    Goal("mean supervised loss", lambda results: results.get("loss"), 0.3, True, percent=False),
)


def train(seed: int, data: Path, out: Path) -> Path:
    """All stages with one seed; returns the folder of stage E."""
    common = ["--seed", str(seed), "--data-dir", str(data), "--resume"]
    tokenizer = out / "thinker_tiny" / TOKENIZER_FILE
    jobs = []
    for name in PARTS:
        options = ["--config", str(CONFIGS / f"{name}.json"), "--output-dir", str(out / name)]
        makes, needs = (tokenizer, None) if name == "thinker_tiny" else (None, tokenizer)
        options += ["--tokenizer", str(needs)] if needs else []
        jobs.append(Job(name, _omnitune("pretrain", *options, *common), makes, needs))
    run_side_by_side(jobs)
    options = ["--config", str(CONFIGS / "omni_sft_tiny.json")]
    options += ["--output-dir", str(out / "omni_sft_tiny")]
    for name, (file, option) in PARTS.items():
        options += [option, str(out / name / file)]
    finished = subprocess.run(_omnitune("sft", *options, *common), check=False)
    if finished.returncode:
        raise UserError(f"omnitune sft ended with status {finished.returncode}")
    return out / "omni_sft_tiny"


def _omnitune(*arguments: str) -> list[str]:
    """A command of the project, said before it is run."""
    print("omnitune " + " ".join(arguments), flush=True)
    return [sys.executable, "-m", "omnitune.cli", *arguments]


def table(seeds: list[int], results: list[dict[str, Any]]) -> list[str]:
    """The rows of the page: mean, spread, each seed, the goal and whether it is met."""
    columns = "".join(f" seed {seed} |" for seed in seeds)
    lines = [
        f"| task | mean | spread |{columns} goal | |",
        "| --- |" + " --- |" * (len(results) + 4),
    ]
    for goal in GOALS:
        values = [goal.found(found) for found in results]
        numbers = [value for value in values if value is not None]
        if not numbers:
            continue
        mean = statistics.fmean(numbers)
        spread = max(numbers) - min(numbers)
        met = ""
        if goal.goal is not None:
            met = (
                "reached" if (mean <= goal.goal if goal.lower else mean >= goal.goal) else "missed"
            )
        cells = [_written(value, goal) for value in (mean, spread, *values)]
        sign = "≤" if goal.lower else "≥"
        cells += ["" if goal.goal is None else f"{sign} {_written(goal.goal, goal)}", met]
        lines.append(f"| {goal.name} | {' | '.join(cells)} |")
    return lines


def _written(value: float | None, goal: Goal) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if goal.percent else f"{value:.3f}"


def kinds_table(results: list[dict[str, Any]]) -> list[str]:
    """Image questions by kind, mean of the seeds, and how many are asked."""
    tasks = [found["splits"]["test"]["tasks"]["image_qa"] for found in results]
    lines = ["| kind of image question | mean | spread | questions |", "| --- | --- | --- | --- |"]
    for name in sorted(tasks[0]["kinds"]):
        values = [task["kinds"][name] for task in tasks]
        asked = tasks[0].get("kind_questions", {}).get(name, "")
        spread = max(values) - min(values)
        lines.append(f"| {name} | {statistics.fmean(values):.1%} | {spread:.1%} | {asked} |")
    return lines


def page(seeds: list[int], results: list[dict[str, Any]]) -> str:
    """The whole of docs/results.md."""
    minutes = ", ".join(f"{found.get('seconds', 0) / 60:.1f}" for found in results)
    cores = " or ".join(dict.fromkeys(str(found.get("cores", "?")) for found in results))
    many = "s" * (cores != "1")
    names = ", ".join(map(str, seeds))
    opening = (
        "# Results\n\n"
        f"Test splits of the embedded corpus, `configs/omni_sft_tiny.json`, seeds {names}; the\n"
        "spread is the largest less the smallest. Written by `make scores`, which trains all four\n"
        f"stages with each seed. Stage E took {minutes} minutes on {cores} core{many}.\n"
    )
    return "\n".join([opening, *table(seeds, results), "", *kinds_table(results), ""])


@command
def main(arguments: Arguments) -> None:
    """Trains what is missing, prints and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", type=Path, default=Path("data/multimodal"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/scores"))
    parser.add_argument("--page", type=Path, default=PAGE, help="the file to write")
    options = parser.parse_args(arguments)
    seeds = numbers("--seeds", options.seeds)
    folders = [train(seed, options.data, options.out / f"seed-{seed}") for seed in seeds]
    results = [read_json_object(folder / "results.json") for folder in folders]
    text = page(seeds, results)
    options.page.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
