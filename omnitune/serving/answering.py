"""Answers every record of some data and writes the answers down, one line of JSON each.

What was answered stays answered: the same command goes on where the file ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from omnitune.config.serving import AnswerConfig
from omnitune.config.settings import read_json_object
from omnitune.console import progress_bar
from omnitune.data.loader import SampleReader
from omnitune.data.reading import (
    DataPlace,
    all_task_counts,
    join,
    leave_out_unreadable,
    read_available,
    split_of,
)
from omnitune.data.samples import Samples
from omnitune.evaluation.scoring import Question, questions_of
from omnitune.media.base import counted
from omnitune.models.exported import is_exported
from omnitune.sample import Media, UserError
from omnitune.serving.decoding import LENGTH, Sampling
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.folder import require_model
from omnitune.serving.python import ChatModel, load_model
from omnitune.serving.scheduler import Job, Scheduler
from omnitune.storage import sha256, write_json

AHEAD = 2  # times the batch: questions that are read before there is a place for them
Key = tuple[str, int, str]  # source, number of the record, id of the question


def answer_data(config: AnswerConfig) -> int:
    """Answers what has no answer in the file yet; returns the exit status.

    Raises:
        UserError: there is no model or no data, or the file holds the answers of something else.
    """
    require_model(config.ckpt_dir)
    data = DataPlace.of(config.data)
    available = read_available(data)
    model = load_model(config.ckpt_dir, config.device)
    available, left_out = leave_out_unreadable(available, model.media)
    if left_out:
        print(f"warning: {left_out}", file=sys.stderr)
    samples = _chosen(join(available.values()), config)
    done = _begin(config)
    total = sum(count for counts in all_task_counts(samples) for _, count in counts)
    batch = BatchAnswers(model, config)
    todo = (q for sample in samples for q in questions_of(sample) if key_of(q) not in done)
    with (
        progress_bar("answering", total, min(total, len(done))) as advance,
        config.out.open("ab") as file,
    ):
        failed = batch.run(todo, lambda line: _write(file, line, advance))
    print(f"{config.out}: {counted(total - failed, 'answer')}")
    if failed:
        print(
            f"{counted(failed, 'question')} could not be answered: the lines with "
            '"error" say why; the same command tries them again',
            file=sys.stderr,
        )
    return int(bool(failed))


def _chosen(samples: Samples, config: AnswerConfig) -> Samples:
    if not samples:
        raise UserError(f"{config.data}: holds nothing that this model reads")
    chosen = split_of(samples, config.split) if config.split else samples
    if not chosen:
        there = ", ".join(sorted(samples.splits))
        raise UserError(f"{config.data}: no samples in the split {config.split!r}; there: {there}")
    return chosen


def key_of(question: Question) -> Key:
    """What a question is known by in the file of answers."""
    return question.source, question.number, question.id


class BatchAnswers:
    """Answers questions together, reading ahead of the decoder."""

    def __init__(self, model: ChatModel, config: AnswerConfig) -> None:
        self.model, self.config = model, config
        self.scheduler = Scheduler(model.model, model.renderer, config.max_batch)
        features = {kind: self._rows_of(kind) for kind in model.media}
        self.reader = SampleReader(
            model.renderer, model.model.modalities, features, model.prompts.context - 1
        )

    def _rows_of(self, kind: str) -> Callable[[Path], Tensor]:
        def rows(path: Path) -> Tensor:
            return self.model.media_rows.rows(GivenMedium(kind, path, str(path)))

        return rows

    def run(self, questions: Iterator[Question], write: Callable[[dict[str, Any]], None]) -> int:
        """Answers all questions.

        Args:
            write: called with the line of each as soon as it is answered.

        Returns:
            the number of those that could not be answered; their lines say why.
        """
        going: dict[Job, Question] = {}
        failed = 0
        for question in questions:
            try:
                job = self._job(question)
            except UserError as error:
                write(_about(question) | {"error": str(error)})
                failed += 1
                continue
            going[job] = question
            self.scheduler.submit([job])
            while len(going) >= AHEAD * self.config.max_batch:
                self._turn(going, write)
        while going:
            self._turn(going, write)
        return failed

    def _job(self, question: Question) -> Job:
        item = self.reader.prompt(question.id, question.messages)
        room = min(self.config.max_new_tokens, self.model.prompts.room(item))
        return self.scheduler.job(item, Sampling(room), streams=False)

    def _turn(self, going: dict[Job, Question], write: Callable[[dict[str, Any]], None]) -> None:
        self.scheduler.turn()
        for job in [job for job in going if job.done]:
            if job.error is not None:
                raise job.error
            write(_line(going.pop(job), job))


def _about(question: Question) -> dict[str, Any]:
    return {"source": question.source, "number": question.number, "id": question.id}


def _line(question: Question, job: Job) -> dict[str, Any]:
    """A line of the file."""
    parts = [part for message in question.messages for part in message.parts]
    return _about(question) | {
        "task": question.task,
        "question": question.messages[-1].text,
        "media": [[p.modality, str(p.path)] for p in parts if isinstance(p, Media)],
        "answer": job.text,
        "tokens": len(job.told),
        "at_limit": job.finish == LENGTH,
        "reference": question.reference,
    }


def _write(file: BinaryIO, line: dict[str, Any], advance: Callable[..., None]) -> None:
    file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    file.flush()
    advance(1)


def _begin(config: AnswerConfig) -> set[Key]:
    """Prepares the file; returns what is answered in it.

    Raises:
        UserError: it holds the answers of another model, or to other data.
    """
    out, settings = config.out, config.out.with_name(config.out.name + ".settings.json")
    asked = {
        "model": _digest(config.ckpt_dir),
        "data": str(config.data),
        "split": config.split,
        "max_new_tokens": config.max_new_tokens,
    }
    try:
        if out.is_dir():
            raise UserError(f"{out}: is a folder; give --out a file")
        out.parent.mkdir(parents=True, exist_ok=True)
        if config.overwrite or not out.exists():
            write_json(settings, asked)
            out.write_bytes(b"")
            return set()
        before = read_json_object(settings) if settings.is_file() else {}
        if other := [name for name in asked if before.get(name) != asked[name]]:
            raise UserError(
                f"{out}: holds answers that were made with another {' and '.join(other)}; give "
                "another --out, or --overwrite"
            )
        return _answered(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None


def _answered(out: Path) -> set[Key]:
    """The questions that a file answers; takes its failures, and a line cut off, out of it."""
    kept: list[bytes] = []
    done: set[Key] = set()
    whole = out.read_bytes()
    for line in whole.splitlines(keepends=True):
        try:
            values = json.loads(line)
            if line.endswith(b"\n") and "answer" in values:
                done.add((values["source"], values["number"], values["id"]))
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    if b"".join(kept) != whole:
        fresh = out.with_name(out.name + ".tmp")
        fresh.write_bytes(b"".join(kept))
        fresh.replace(out)
    return done


def _digest(ckpt_dir: Path) -> str:
    """What a model is known by."""
    files: Sequence[Path] = [ckpt_dir if ckpt_dir.is_file() else ckpt_dir / "omni.pt"]
    if is_exported(ckpt_dir):
        files = sorted(ckpt_dir.glob("*.safetensors"))
    return "/".join(sha256(file)[:16] for file in files)
