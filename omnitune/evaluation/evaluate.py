"""Scores any checkpoint on any data of the format."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from omnitune.console import progress_bar
from omnitune.data.bad_samples import BadSamples, without_broken
from omnitune.data.feature_cache import FeatureStore
from omnitune.data.loader import SampleReader
from omnitune.data.readable import leave_out_unreadable
from omnitune.data.reading import (
    DataPlace,
    all_task_counts,
    check_media,
    join,
    media_key,
    media_of,
    read_available,
    split_of,
)
from omnitune.data.samples import MANY_MEDIA, Samples
from omnitune.evaluation.follow_ups import follow_ups, make_follow_ups
from omnitune.evaluation.limits import cut_short
from omnitune.evaluation.priors import answer_priors
from omnitune.evaluation.provenance import whole_run
from omnitune.evaluation.runs import as_object, config_of, data_of
from omnitune.evaluation.scoring import Prediction, Priors, scoreboard
from omnitune.models.loading import load_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample, UserError
from omnitune.sources import SOURCES
from omnitune.storage import write_json_lines

LINE_BYTES, MOST_TRIED = 256, 1 << 26  # of a prediction, about; of the trial whether they fit
FOLLOW_UPS = 600  # questions that are asked again after another


def evaluate_checkpoint(
    ckpt_dir: Path,
    data: Path | DataPlace,
    split: str,
    predictions: Path | None = None,
    language: str = "",
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Scores a model on one split of a data folder, or on ``all`` that are held out.

    Args:
        split: its name; "" is ``test``, or ``validation`` where there is no ``test``.
        predictions: where to write one JSON line per question.
        language: of answers whose records do not say; "" is as the run had it.
        device: where to compute; the CPU if None.

    Returns:
        the scores, in the form of ``results.json``.
    """
    model, renderer, values = load_omni(ckpt_dir, device)
    run = config_of(ckpt_dir)
    data = DataPlace.of(data)
    sources = (*SOURCES, *data.own)
    languages = dict.fromkeys(sources, language) if language else as_object(run.get("languages"))
    available, left_out = _read_usable(data, languages, model, split)
    samples = join(available.values())
    chosen = _choose_splits(samples, split, data)
    limit = values.get("max_tokens", model.config.thinker["max_position_embeddings"])
    if predictions:
        _try_to_write(predictions, join(chosen.values()))
    features = encode_once(model, join(chosen.values()), None)
    reader = SampleReader(renderer, model.modalities, features, limit)
    priors = answer_priors(split_of(samples, "train"))
    results = score_splits(model, reader, chosen, predictions, priors)
    results["warnings"] += left_out
    if "train" in chosen:
        here = data.resolved() == data_of(ckpt_dir).resolved()
        if_so = "" if here else "if the model was trained on it, "
        results["warnings"].append(
            f"train is no held-out split: {if_so}its scores say what the model learnt by heart, "
            "not how it does on what is new to it"
        )
    return results


def _read_usable(
    data: DataPlace, languages: Mapping[str, str], model: OmniModel, split: str
) -> tuple[dict[str, Samples], list[str]]:
    """The samples that a model can be scored on, and what is left out.

    Raises:
        UserError: there is nothing, or a record is wrong that no run has left out.
    """
    found, told = leave_out_unreadable(read_available(data, languages=languages), model.modalities)
    if not found:
        raise UserError(f"{data}: every record shows media that the model has no encoder for")
    if not data.leave_out_wrong:
        return found, [told] * bool(told)
    bad = BadSamples(found, 1.0)
    splits = {name for held in found.values() for name in held.splits if name != "train"}
    found = without_broken(found, bad, sorted(splits | {split or "test"} - {"all"}))
    return found, [told] * bool(told) + bad.lines()


def _choose_splits(samples: Samples, split: str, data: DataPlace) -> dict[str, Samples]:
    """The samples of the splits that are to be scored; raises UserError where there are none."""
    there = sorted(name for name in samples.splits if split_of(samples, name))
    usual = "test" if "test" in there else "validation"
    splits = [n for n in there if n != "train"] if split == "all" else [split or usual]
    if not splits:
        raise UserError(
            f"{data}: every sample is for training, none is held out; --split train scores "
            'those, or give some records another "split"'
        )
    chosen = {name: split_of(samples, name) for name in splits}
    for name, found in chosen.items():
        if not found:
            names = ", ".join(there)
            raise UserError(f"{data}: no samples in the split {name!r}; there are: {names}")
        check_media(found)
    return chosen


def _try_to_write(path: Path, samples: Samples) -> None:
    """Finds out before the scoring whether the answers can be written; raises UserError."""
    questions = sum(count for tasks in all_task_counts(samples) for _, count in tasks)
    trial = path.with_name(path.name + ".tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:  # a full disk is noticed by filling it only
            trial.write_bytes(bytes(min(questions * LINE_BYTES, MOST_TRIED)))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: the answers cannot be written there ({error.strerror or error}); give "
        "--predictions a file in a folder with room that may be written to"
    )


def encode_once(
    model: OmniModel,
    samples: Sequence[Sample],
    root: Path | None,
    modalities: Collection[str] | None = None,
    lenient: bool = False,
) -> dict[str, FeatureStore]:
    """Encodes every medium of the samples once, with a bar; returns the rows by modality.

    Args:
        root: folder where the rows are kept for the next run, or None.
        modalities: whose media are encoded; all if None.
        lenient: pass over media that cannot be read, until their rows are asked for.
    """
    model.eval()
    stores = {}
    key = media_key(samples)
    for name in model.modalities if modalities is None else modalities:
        modality = model.modalities[name]
        store = stores[name] = FeatureStore(modality, model.encoders[name], root, lenient)
        if key and store.holds(key):
            continue
        paths = (m.path for m, _ in media_of(samples) if m.modality == name)
        while some := list(islice(paths, MANY_MEDIA)):
            todo = store.missing(some)
            if todo:
                with progress_bar(f"encoding {name}", len(todo)) as advance:
                    store.prepare(todo, advance)
        if key:
            store.hold(key)
    return stores


def score_splits(
    model: OmniModel,
    reader: SampleReader,
    splits: Mapping[str, Sequence[Sample]],
    predictions: Path | None = None,
    priors: Priors | None = None,
) -> dict[str, Any]:
    """Scores of each split under ``splits``; those of ``test`` (else of the first) on top.

    Some questions of that split are asked again after another one (``follow_ups``). What to be
    warned of is under ``warnings``.
    """
    by_split, answers = {}, []
    for split, samples in splits.items():
        questions = sum(count for tasks in all_task_counts(samples) for _, count in tasks)
        with progress_bar(f"scoring {split}", questions) as advance:
            by_split[split], found = scoreboard(
                model, reader, samples, on_progress=advance, priors=priors
            )
        answers += [{"split": split, **_as_line(p)} for p in found]
    if predictions:
        try:
            write_json_lines(predictions, answers)
        except OSError as error:
            raise _unwritable(predictions, error) from None
    top = top_split(by_split)
    warnings = [w for name, scores in by_split.items() for w in cut_short(scores["tasks"], name)]
    results = {**by_split[top], "scored_split": top, "splits": by_split, "warnings": warnings}
    results["scored_with"] = whole_run(model)
    asked = make_follow_ups(reader, splits[top], FOLLOW_UPS)
    if asked:
        total = 2 * sum(map(len, asked.values()))
        with progress_bar("scoring follow-up questions", total) as advance:
            results["follow_ups"] = follow_ups(model, reader, asked, advance)
    return results


def _as_line(prediction: Prediction) -> dict[str, Any]:
    """A line of ``--predictions``, without other answers and options where there are none."""
    values = asdict(prediction)
    return {k: v for k, v in values.items() if v or k not in ("references", "choices")}


def top_split(names: Iterable[str]) -> str:
    """The split that stands for all: ``test``, else the first."""
    names = list(names)
    return "test" if "test" in names else names[0]
