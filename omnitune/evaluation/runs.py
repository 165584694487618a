"""What a run left in its folder, read leniently: any key may be missing, of an old run or a new."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omnitune.config.settings import read_json_object
from omnitune.config.sources import SourceSettings
from omnitune.data.reading import DataPlace
from omnitune.evaluation.metrics import Metric, ranked_metrics
from omnitune.media.segments import file_of
from omnitune.sample import UserError

CORPUS = "data/multimodal"


@dataclass(frozen=True)
class RunFolder:
    """A run as its files tell of it.

    Attributes:
        entries: the lines of ``metrics.jsonl``.
        results: the object of ``results.json``; empty while the run is not finished.
        record: the object of ``run.json``.
    """

    path: Path
    entries: list[dict[str, Any]]
    results: dict[str, Any]
    record: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty if it is not known."""
        return as_object(self.record, "config")

    def splits(self) -> dict[str, dict[str, Any]]:
        """The final scores by split, the main one first."""
        return splits_of(self.results)


def read_run(path: Path) -> RunFolder:
    """Reads what there is of a run, finished or not.

    Raises:
        UserError: the folder is missing, holds no run, or a file of it is damaged.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder; expected the output folder of a run, such as "
            "checkpoints/omni_sft_tiny"
        )
    run, metrics, results = (path / n for n in ("run.json", "metrics.jsonl", "results.json"))
    if not (run.is_file() or metrics.is_file()):
        _refuse_export(path)
        raise UserError(
            f"{path}: holds no run (neither run.json nor metrics.jsonl is there); expected the "
            "output folder of a run, such as checkpoints/omni_sft_tiny"
        )
    return RunFolder(
        path,
        list(read_lines(metrics)) if metrics.is_file() else [],
        read_json_object(results) if results.is_file() else {},
        read_json_object(run) if run.is_file() else {},
    )


def _refuse_export(path: Path) -> None:
    from omnitune.models.exported import is_exported  # takes seconds, which runs need not

    if is_exported(path):
        raise UserError(
            f"{path}: is an exported model, which holds no scores of the run that made it; give "
            "the output folder of that run"
        )


def read_finished(path: Path) -> RunFolder:
    """Reads a run that has ended.

    Raises:
        UserError: ``metrics.jsonl`` or ``results.json`` is missing or damaged.
    """
    command = f"`python sft_omni.py --config FILE --output-dir {path}"
    metrics, results = path / "metrics.jsonl", path / "results.json"
    if not metrics.is_file():
        _refuse_export(path)
        raise UserError(
            f"{metrics}: no such file; {command}` trains a model and writes it on the way"
        )
    if not results.is_file():
        raise UserError(
            f"{results}: no such file; {command} --resume` writes it at the end of training"
        )
    run = read_run(path)
    if not run.entries:
        raise UserError(
            f"{metrics}: holds no scores yet; `python sft_omni.py` writes them every "
            "log_every steps"
        )
    return run


def data_of(ckpt_dir: Path) -> DataPlace:
    """The data that a run read; where that is not known, the embedded corpus.

    Args:
        ckpt_dir: the run's output folder, or a file in it.
    """
    config = config_of(ckpt_dir)
    folder = find_again(Path(str(config.get("data_dir", CORPUS))), ckpt_dir)
    own, seed = as_object(config, "sources"), config.get("seed", 0)
    found = {}
    for name, values in own.items():
        source = SourceSettings.model_validate(values).source(name, seed)
        path, media = (
            str(find_again(Path(place), ckpt_dir)) if place else ""
            for place in (source.path, source.media_dir)
        )
        found[name] = replace(source, path=path, media_dir=media)
    needs_folder = not own or any(name not in own for name in as_object(config, "data_mix"))
    skip = config.get("bad_samples") == "skip"
    return DataPlace(folder if needs_folder else None, found, leave_out_wrong=skip)


def find_again(path: Path, folder: Path) -> Path:
    """A path that a run names, seen from here or from one of the folders around the run's."""
    candidates = [path, *(parent / path for parent in folder.resolve().parents)]
    return next((p for p in candidates if file_of(p).exists()), path)


def config_of(ckpt_dir: Path) -> dict[str, Any]:
    """The configuration of the run that made a model; empty where it is not told."""
    path = (ckpt_dir if ckpt_dir.is_dir() else ckpt_dir.parent) / "run.json"
    return as_object(read_json_object(path), "config") if path.is_file() else {}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; half a line, of a run that was stopped, is left out."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry


def top_split(results: dict[str, Any]) -> str:
    """The split that the headline is about: where nothing else is said, test."""
    return str(results.get("scored_split", "test"))


def splits_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores by split; those at the top of the results are those of the main one."""
    top = {k: v for k, v in results.items() if k in ("tasks", "intervals") or _is_score(v)}
    splits = {top_split(results): top} if top else {}
    for name, scores in as_object(results, "splits").items():
        splits[name] = {**splits.get(name, {}), **as_object(scores)}
    return splits


def look_up(values: Any, *keys: str) -> Any:
    """The value at a path of keys, or None."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def as_number(values: Any, *keys: str) -> float | None:
    """The finite number at a path of keys, or None for anything else."""
    value = look_up(values, *keys)
    return float(value) if _is_score(value) else None


def as_object(values: Any, *keys: str) -> dict[str, Any]:
    """The dictionary at a path of keys; an empty one in place of anything else."""
    value = look_up(values, *keys)
    return value if isinstance(value, dict) else {}


def as_interval(values: Any, *keys: str) -> tuple[float, float] | None:
    """The two ends of the interval at a path of keys, or None."""
    value = look_up(values, *keys)
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_score, value)):
        return None
    return float(value[0]), float(value[1])


def main_score(scores: Mapping[str, Any]) -> tuple[Metric, float] | None:
    """The metric that stands for a task, and its value, or None where a task has no score."""
    values = ((metric, as_number(scores, metric.name)) for metric in ranked_metrics())
    return next(((metric, value) for metric, value in values if value is not None), None)


def flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting with its dotted name and its value in words."""
    pairs = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pairs.append((prefix + name, text))
    return pairs


def _is_score(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < float("inf")  # NaN is less than nothing
