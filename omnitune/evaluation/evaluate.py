"""Scores any checkpoint on any data of the format."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from omnitune.console import progress_bar
from omnitune.data.chat import ChatRenderer
from omnitune.data.features import FeatureStore
from omnitune.data.index import MANY_MEDIA
from omnitune.data.loader import SampleReader
from omnitune.data.records import (
    check_media,
    join,
    media_key,
    media_of,
    outlines,
    read_available,
    split_of,
)
from omnitune.evaluation.follow_ups import follow_ups, make_follow_ups
from omnitune.evaluation.priors import answer_priors
from omnitune.evaluation.scoreboard import Priors, as_json, scoreboard
from omnitune.models.components import load_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample, UserError
from omnitune.storage import write_json_lines

FOLLOW_UPS = 600  # questions that are asked again after another


def evaluate_checkpoint(
    ckpt_dir: Path, data_dir: Path, split: str, predictions: Path | None = None
) -> dict[str, Any]:
    """Scores a model on one split of a data folder, or on ``all`` that are held out.

    Args:
        predictions: where to write one JSON line per question.

    Returns:
        the scores, in the form of ``results.json``.
    """
    model, tokenizer, values = load_omni(ckpt_dir)
    samples = join(read_available(data_dir).values())
    splits = sorted(samples.splits - {"train"}) if split == "all" else [split]
    limit = values.get("max_tokens", model.config.thinker["max_position_embeddings"])
    chosen = {name: split_of(samples, name) for name in splits}
    for name, found in chosen.items():
        if not found:
            there = ", ".join(sorted(samples.splits))
            raise UserError(f"{data_dir}: no samples in the split {name!r}; there are: {there}")
        check_media(found)
    features = encode_once(model, join(chosen.values()), None)
    reader = SampleReader(ChatRenderer(tokenizer), model.modalities, features, limit)
    priors = answer_priors(split_of(samples, "train"))
    return score_splits(model, reader, chosen, predictions, priors)


def encode_once(
    model: OmniModel,
    samples: Sequence[Sample],
    root: Path | None,
    modalities: Collection[str] | None = None,
) -> dict[str, FeatureStore]:
    """Encodes every medium of the samples once, with a bar; returns the rows by modality.

    Args:
        root: folder where the rows are kept for the next run, or None.
        modalities: whose media are encoded; all if None.
    """
    model.eval()
    stores = {}
    key = media_key(samples)
    for name in model.modalities if modalities is None else modalities:
        modality = model.modalities[name]
        store = stores[name] = FeatureStore(modality, model.encoders[name], root)
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

    Some questions of that split are asked again after another one (``follow_ups``).
    """
    by_split, answers = {}, []
    for split, samples in splits.items():
        questions = sum(count for outline in outlines(samples) for _, count in outline)
        with progress_bar(f"scoring {split}", questions) as advance:
            by_split[split], found = scoreboard(model, reader, samples, tick=advance, priors=priors)
        answers += [{"split": split, **as_json(p)} for p in found]
    if predictions:
        write_json_lines(predictions, answers)
    top = top_split(by_split)
    results = {**by_split[top], "scored_split": top, "splits": by_split}
    asked = make_follow_ups(reader, splits[top], FOLLOW_UPS)
    if asked:
        total = 2 * sum(map(len, asked.values()))
        with progress_bar("scoring follow-up questions", total) as advance:
            results["follow_ups"] = follow_ups(model, reader, asked, advance)
    return results


def top_split(names: Iterable[str]) -> str:
    """The split that stands for all: ``test``, else the first."""
    names = list(names)
    return "test" if "test" in names else names[0]
