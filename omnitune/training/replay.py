"""Replays the order of a run: which records a step read, and whether the hash is still the same.

The stream is built as the run built it, from the settings of ``run.json`` and the data as they are
now. Nothing is trained, and no weights are loaded: the parts' settings are enough to render.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from omnitune.config.sft import SftConfig
from omnitune.console import progress_bar
from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.loader import FeatureSource, SampleReader
from omnitune.data.reading import split_of
from omnitune.data.samples import Samples
from omnitune.encoders.base import Encoder
from omnitune.evaluation.runs import RunFolder, as_object, find_again, read_run
from omnitune.sample import Sample, UserError
from omnitune.storage import read_checkpoint, require_target, sha256, write_json
from omnitune.training.checkpoint import step_files
from omnitune.training.estimate import empty_model
from omnitune.training.phases import Phases
from omnitune.training.run import Plan
from omnitune.training.run_hash import STEP_LETTERS, Read, file_of, step_hashes
from omnitune.training.sources import audit_samples, build_stream, read_samples
from omnitune.training.strategy import Strategy, plan_strategy

MEDIA_KEPT = 1 << 20  # media whose number of slots is remembered


@dataclass(frozen=True)
class Kept:
    """What a run kept of its order.

    Attributes:
        hash: after ``steps`` steps. by_step: first letters of the hash after each step, where its
            line of ``metrics.jsonl`` is there.
        weights: decisions of an adaptive mix. left_out: steps whose update was left out.
    """

    hash: str
    steps: int
    by_step: Mapping[int, str]
    weights: list[Any]
    left_out: list[int]


def replay(ckpt_dir: Path, step: int | None = None) -> dict[str, Any]:
    """Computes the hash of a run again, and lists what one of its steps read.

    Args:
        ckpt_dir: the run's output folder.
        step: counted from 1; the hash is proved up to it. None: up to the end of the run.

    Returns:
        ``same``, ``steps`` (how many were compared), ``differs_at`` (the first step whose hash is
        another, or None), ``hash`` and ``expected`` after the last step compared, ``notes``, and
        of the step asked for (or the one that differs) ``step`` with its ``samples``.

    Raises:
        UserError: the folder holds no run of ``omnitune sft``, or none that kept its hash; or its
            parts or its data are not there.
    """
    run = read_run(ckpt_dir)
    kept = kept_of(run)
    if step is not None and not 1 <= step <= kept.steps:
        raise UserError(f"--step {step}: the run in {ckpt_dir} made the steps 1 to {kept.steps:,}")
    config = config_again(run)
    with redirect_stdout(sys.stderr):  # what is read, beside what may be JSON
        strategy, samples = stream_again(config, kept)
    last = step or kept.steps
    found = _compare(strategy, kept, last)
    found["notes"] = changed_files(run, config)
    number = found["differs_at"] or step
    if number is not None:
        found["step"] = number
        found["update_left_out"] = number in kept.left_out
        reads = found.pop("reads")
        found["samples"] = [_described(strategy, samples, read) for read in reads]
    found.pop("reads", None)
    return found


def kept_of(run: RunFolder) -> Kept:
    """What a run's results, or its newest checkpoint, say of its order."""
    proof = as_object(run.results, "run_hash")
    if not proof:
        proof = _proof_of_checkpoint(run.path)
    if not proof.get("hash") or not proof.get("steps"):
        raise UserError(
            f"{run.path}: no run hash is kept here, neither in results.json nor in a step "
            "checkpoint; runs of `omnitune sft` keep one from their first step on"
        )
    return Kept(
        str(proof["hash"]),
        int(proof["steps"]),
        step_hashes(run.entries) | proof.get("by_step", {}),
        list(proof.get("weights", [])),
        list(proof.get("left_out", [])),
    )


def _proof_of_checkpoint(folder: Path) -> dict[str, Any]:
    for path in reversed(step_files(folder)):
        values = read_checkpoint(path)
        state, steps = values.get("state", {}), values.get("step", 0)
        since = {"step": steps, "step_hashes": state.get("step_hashes")}
        keys = ("weights", "left_out")
        found = {key: state[key] for key in keys if key in state}
        return found | {
            "hash": state.get("run_hash"),
            "steps": steps,
            "by_step": step_hashes([since]),
        }
    return {}


def config_again(run: RunFolder) -> SftConfig:
    """The configuration of a run, its files found from here; raises UserError."""
    if not run.config:
        raise UserError(
            f"{run.path / 'run.json'}: no such file, or it holds no configuration; the settings "
            "of the run are needed to replay it"
        )
    if "thinker_ckpt" not in run.config:
        raise UserError(f"{run.path}: is no run of `omnitune sft`; only those can be replayed")
    try:
        config = SftConfig.model_validate(run.config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{run.path / 'run.json'}: {key}: {first['msg']}; the run was made by another version "
            "of omnitune, which can replay it"
        ) from None
    found = {name: find_again(value, run.path) for name, value in config if isinstance(value, Path)}
    ckpts = {name: find_again(path, run.path) for name, path in config.encoder_ckpts.items()}
    sources = {
        name: source.model_copy(update={"path": str(find_again(Path(source.path), run.path))})
        for name, source in config.sources.items()
    }
    return config.model_copy(update=found | {"encoder_ckpts": ckpts, "sources": sources})


def stream_again(config: SftConfig, kept: Kept) -> tuple[Strategy, dict[str, Samples]]:
    """The batches of a run as it read them, and its training samples by source."""
    model, renderer = empty_model(config)
    Phases(config, model.parts(), model.modalities).set_trainable()
    positions = model.thinker.config.get_text_config().max_position_embeddings
    longest = min(config.max_tokens, positions)
    samples = read_samples(config)
    limits = ReadLimits(renderer, model.modalities, longest, config.multi_turn_prob > 0)
    samples, _, _ = audit_samples(config, samples, limits)
    counted = {name: slots_only(encoder) for name, encoder in model.modalities.items()}
    reader = SampleReader(renderer, model.modalities, counted, longest)
    stream = build_stream(config, reader, samples)
    plan = Plan.of(config, len(stream))
    state = {"weights": kept.weights}
    strategy = plan_strategy(config, model, reader, samples, stream, plan.total_steps, state)
    # A phase that trains an encoder reads media as files; here only their slots are wanted.
    stream.follow(strategy.schedule)
    return strategy, {name: split_of(found, "train") for name, found in samples.items()}


def slots_only(encoder: Encoder) -> FeatureSource:
    """Of a medium as many rows as its encoder gives, without values; each is read once."""

    @lru_cache(maxsize=MEDIA_KEPT)
    def rows_of(path: Path) -> int:
        return int(encoder.num_slots(encoder.read(path)))

    def rows(path: Path) -> Tensor:
        return torch.empty(rows_of(path), 0)

    return rows


def _compare(strategy: Strategy, kept: Kept, last: int) -> dict[str, Any]:
    """Computes the hashes of the steps up to ``last``, or to the first that differs."""
    chain, stream = strategy.hash, strategy.stream
    reads: list[Read] = []
    expected, compared, since = "", 0, 0
    with progress_bar("replaying", last) as advance:
        for step in range(1, last + 1):
            first = (step - 1) * chain.per_step
            for number in range(first, first + chain.per_step):
                chain.note(number, stream.read_batch(number))
            reads = [read for batch in chain.end_step(step) for read in batch]
            advance(1)
            expected = _expected(kept, step)
            if expected and not chain.value.startswith(expected):
                break
            compared, since = step, step if expected else since
    same = compared == last
    return {
        "same": same and since == last,
        "steps": compared,
        "differs_at": None if same else compared + 1,
        # Where lines of metrics.jsonl are lost, an earlier step may be the one.
        "same_up_to": since,
        "hash": chain.value,
        "expected": expected,
        "reads": reads,
    }


def _expected(kept: Kept, step: int) -> str:
    """What is known of the hash after a step: all of it, its first letters, or nothing."""
    return kept.hash if step == kept.steps else kept.by_step.get(step, "")


def changed_files(run: RunFolder, config: SftConfig) -> list[str]:
    """A sentence for each data file that is another than the run read."""
    found = []
    for name, digest in as_object(run.record, "inputs").items():
        path = config.data_dir / name
        if path.is_file() and digest and sha256(path) != digest:
            found.append(f"{path}: is another file than the run read")
    return found


def _described(strategy: Strategy, samples: Mapping[str, Samples], read: Read) -> dict[str, Any]:
    """A sample as it was read, in words."""
    origin = read.origin
    record = samples[origin.source][origin.place]
    turns = [message for shown in strategy.stream.shown_at(origin.k) for message in shown.messages]
    return {
        "sample": origin.k,
        "source": origin.source,
        "record": origin.number + 1,
        "id": record.id,
        "file": file_of(samples[origin.source], origin.place),
        "media": [str(medium.path) for medium in record.media],
        "asked": asked_in(record, turns),
        "questions": [n + 1 for n in origin.asked],
        "tokens": read.tokens,
        "supervised": read.supervised,
    }


def asked_in(record: Sample, turns: list[Any]) -> list[dict[str, str]]:
    """Each question with its answer, in the order in which they were shown."""
    found, question = [], ""
    for message in turns:
        if message.role == "assistant":
            found.append({"question": question, "answer": message.text})
            question = ""
        else:
            question = message.text.strip() if message.role == "user" else question
    return found


def print_replay(ckpt_dir: Path, step: int | None, json_file: Path | None) -> bool:
    """Replays a run, prints what was found and writes it; returns whether the hash is the same."""
    if json_file:
        require_target(json_file, "--json")
    found = replay(ckpt_dir, step)
    if json_file:
        write_json(json_file, found)
    print("\n".join(replay_lines(found)))
    return bool(found["same"])


def replay_lines(found: Mapping[str, Any]) -> list[str]:
    """What ``omnitune replay`` prints."""
    lines = [f"note: {note}" for note in found["notes"]]
    if "step" in found:
        samples = found["samples"]
        tokens, supervised = (sum(s[key] for s in samples) for key in ("tokens", "supervised"))
        lines.append(
            f"step {found['step']}: {len(samples)} samples, {tokens:,} tokens, "
            f"{supervised:,} supervised" + "; its update was left out" * found["update_left_out"]
        )
        for sample in samples:
            amounts = f"{sample['tokens']:,} tokens, {sample['supervised']:,} supervised"
            record = f"{sample['source']} record {sample['record']} ({sample['id']})"
            lines.append(f"  {record} of {sample['file']}: {amounts}")
            lines += [f"    {media}" for media in sample["media"]]
            for turn in sample["asked"]:
                asked = f"{turn['question'] or '(no words)'} -> {turn['answer']}"
                lines.append(indent(asked, "    "))  # options stand below their question
    return [*lines, verdict(found)]


def verdict(found: Mapping[str, Any]) -> str:
    """Whether the hash is the same, in a sentence."""
    if found["differs_at"] is not None:
        first, last = found["same_up_to"] + 1, found["differs_at"]
        where = f"step {last}" if first == last else f"one of the steps {first} to {last}"
        return (
            f"the hash differs at {where}: {found['hash'][:STEP_LETTERS]} here, "
            f"{found['expected'][:STEP_LETTERS]} in the run. From there on the data, or how they "
            "are read, are not what the run read"
        )
    if not found["same"]:
        return (
            f"nothing is known of the hash after step {found['steps']}: its line of metrics.jsonl "
            f"is not there. It is the same up to step {found['same_up_to']}"
        )
    return f"the hash is the same after {found['steps']:,} steps: {found['hash']}"
