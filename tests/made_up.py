"""A made-up run, as its files tell of it: for tests of what is shown of one."""

import json
from pathlib import Path
from typing import Any

HOSTILE = "<script>alert(1)</script> & $x"
IMAGE_QA = {
    "loss": 0.4,
    "token_acc": 0.9,
    "exact_match": 0.5,
    "kinds": {"count": 0.25, "color": 0.75},
    "questions": 1234,
}
RESULTS: dict[str, Any] = {
    "loss": 0.5,
    "token_acc": 0.91,
    "text_acc": 0.875,
    "image_qa_acc": 0.5,
    "audio_wer": 0.0525,
    "tasks": {
        "text": {"loss": 0.6, "token_acc": 0.875, "questions": 20},
        "image_qa": IMAGE_QA,
        "transcription": {"loss": 0.1, "token_acc": 0.95, "wer": 0.0525, "questions": 7},
    },
    "splits": {
        "test_voices": {
            "loss": 0.2,
            "tasks": {"transcription": {"loss": 0.2, "wer": 1.25, "questions": 3}},
        }
    },
}


def entry(step: int, epoch_ended: bool, without: str = "") -> dict[str, Any]:
    scores = {"loss": 2 / step, "text_acc": 0.8, "image_qa_acc": 0.5, "audio_wer": 30 / step}
    return {
        "step": step,
        "epoch": 1,
        "epoch_ended": epoch_ended,
        "train": {"loss": 1 / step, "sources": {}, "grad_norm": 1.0},
        "validation": {name: score for name, score in scores.items() if name != without},
    }


def start_entry() -> dict[str, Any]:
    """The line of the scores before the first step."""
    scores = {"loss": 8.0, "text_acc": 0.9, "image_qa_acc": 0.01, "audio_wer": 4.0}
    return {"step": 0, "epoch": 0, "epoch_ended": False, "validation": scores}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps([{**r, "split": "test"} for r in records]), encoding="utf-8")


# What a run writes besides, and an older one does not.
MORE: dict[str, Any] = {
    "reliance": {
        "image": {
            "task": "image_qa", "measure": "exact_match", "own": 0.5, "swapped": 0.2, "none": 0.1,
        },
        "audio": {
            "task": "transcription", "measure": "wer", "own": 0.05, "swapped": 1.25, "none": 1.0,
        },
    },
    "follow_ups": {
        "image_qa": {"exact_match": 0.18, "alone": 1.0, "questions": 150},
    },
    "text_guard": {"loss": 0.65, "start": 0.6},
    "mix": {
        "text_only": {
            "asked": 0.4, "samples": 0.41, "tokens": 0.2, "supervised": 0.3, "loss": 0.1,
        },
        "image_text": {
            "asked": 0.6, "samples": 0.59, "tokens": 0.8, "supervised": 0.7, "loss": 0.9,
        },
    },
    "bad_samples": {
        "left_out": 2,
        "sources": {"image_text": {"records": 90, "reasons": {"missing-media": 2}}},
        "examples": {"missing-media": "data/images/7.png: no such image file"},
    },
    "truncation": {
        "image": {
            "unit": "pixels", "whole": 4000, "lost": 1000, "samples": 2,
            "worst": [{"id": "i7", "file": "images/7.png", "lost": 900}],
        },
        "text": {"unit": "tokens", "whole": 5000, "lost": 0, "samples": 0, "worst": []},
    },
    "receipt": {
        "total": {
            "text_only": {"asked": 0.4, "samples": {"asked": 40, "got": 41, "share": 0.41}},
        },
    },
    "run_hash": {"hash": "0123456789abcdef" * 2, "steps": 30, "left_out": [], "weights": []},
    "taught": {
        "text_only": {
            "start": 2.0, "end": 0.5, "records": 9, "followed": 9, "seen": 9, "seen_twice": 4,
            "not_falling": 1,
        },
    },
}  # fmt: skip


def rich_results() -> dict[str, Any]:
    """The results with intervals, priors and all that is in ``MORE``."""
    results = {**json.loads(json.dumps(RESULTS)), **MORE}
    results["intervals"] = {"image_qa_acc": [0.45, 0.55], "loss": [0.4, 0.6]}
    results["tasks"]["image_qa"] |= {
        "intervals": {"exact_match": [0.45, 0.55], "loss": [0.35, 0.45]},
        "prior": 0.3,
        "kind_intervals": {"count": [0.2, 0.3]},
        "kind_priors": {"count": 0.21},
    }
    return results


def rich_entry(step: int, phase: int = 1) -> dict[str, Any]:
    """A line at the end of an epoch, with all that a run writes."""
    line = entry(step, True)
    line["train"] |= {"learning_rate": 1e-3 / step, "sources": {"text_only": {"loss": 0.2}}}
    line["validation"] |= {
        "image_reliance": 0.3,
        "audio_reliance": 1.2,
        "text_guard": MORE["text_guard"],
        "intervals": {"image_qa_acc": [0.4, 0.6]},
        "tasks": {"text": {"loss": 0.6}, "image_qa": {"loss": 0.4}},
    }
    return line | {"phase": phase, "weights": {"text_only": 0.4, "image_text": 0.6}}


def write_run(folder: Path, results: dict[str, Any] | None, lines: list[dict[str, Any]]) -> Path:
    """A run's folder, unfinished where there are no results; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "metrics.jsonl", lines)
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder
