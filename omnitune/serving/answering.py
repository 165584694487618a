"""Answers every record of some data and writes the answers down, one line of JSON each.

What was answered stays answered: the same command goes on where the file ends.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from omnitune.config.serving import AnswerConfig
from omnitune.console import progress_bar
from omnitune.data.every import WrongRecord, every_record
from omnitune.data.loader import SampleReader
from omnitune.data.readable import leave_out_unreadable
from omnitune.data.reading import (
    DataPlace,
    all_task_counts,
    read_available,
    split_of,
)
from omnitune.data.samples import Samples
from omnitune.evaluation.scoring import Question, questions_of
from omnitune.media.base import counted
from omnitune.sample import UserError
from omnitune.serving.answer_file import AnswerFile, Asked, about, asks
from omnitune.serving.decoding import LENGTH, Sampling
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.folder import require_model
from omnitune.serving.python import ChatModel, load_model
from omnitune.serving.scheduler import Job, Scheduler

AHEAD = 2  # times the batch: questions that are read before there is a place for them
Write = Callable[[dict[str, Any]], None]


@dataclass
class Failed:
    """How much could not be answered."""

    questions: int = 0
    records: int = 0

    def in_words(self) -> str:
        """Both counts; "" if all was answered."""
        counts = ((self.questions, "question"), (self.records, "record"))
        return " and ".join(counted(n, what) for n, what in counts if n)


def answer_data(config: AnswerConfig) -> int:
    """Answers what has no answer in the file yet; returns the exit status.

    Raises:
        UserError: there is no model or no data, or the file holds the answers of something else.
    """
    require_model(config.ckpt_dir)
    if config.out.is_dir():
        raise UserError(f"{config.out}: is a folder; give --out a file")
    available = read_available(DataPlace.to_answer(config.data, config.prompt))
    model = load_model(config.ckpt_dir, config.device)
    available, left_out = leave_out_unreadable(available, model.media)
    if left_out:
        print(f"warning: {left_out}", file=sys.stderr)
    chosen = _chosen(available, config)
    total = sum(n for s in chosen.values() for counts in all_task_counts(s) for _, n in counts)
    answers = AnswerFile(config)
    with (
        progress_bar("answering", total, min(total, len(answers.done))) as advance,
        answers.open() as write,
    ):
        todo = answers.todo(_asked(chosen, wrong=not config.split))
        failed = BatchAnswers(model, config).run(todo, write, advance)
    print(f"{config.out}: {counted(total - failed.questions, 'answer')}")
    if told := failed.in_words():
        print(
            f'{told} could not be answered: the lines with "error" say why; the same command '
            "tries them again",
            file=sys.stderr,
        )
    return int(bool(told))


def _chosen(available: Mapping[str, Samples], config: AnswerConfig) -> dict[str, Samples]:
    """By source, the samples that are to be answered."""
    if not available:
        raise UserError(f"{config.data}: holds nothing that this model reads")
    split = config.split
    chosen = {name: split_of(s, split) if split else s.staying for name, s in available.items()}
    if not any(map(len, chosen.values())):
        there = ", ".join(sorted({name for s in available.values() for name in s.splits}))
        raise UserError(f"{config.data}: no samples in the split {split!r}; there: {there}")
    return chosen


def _asked(chosen: Mapping[str, Samples], wrong: bool) -> Iterator[Asked]:
    """Every question in the order of the records, and what is wrong with records.

    Args:
        wrong: tell of those, too. Nobody knows the split of a wrong record.
    """
    for name, samples in chosen.items():
        for record in every_record(name, samples, wrong):
            if isinstance(record, WrongRecord):
                yield record
            else:
                yield from questions_of(record)


class _Going(NamedTuple):
    """A question that is being answered."""

    question: Question
    job: Job

    @property
    def line(self) -> dict[str, Any]:
        """What is written down of it."""
        question, job = self
        line = about(question) | {"task": question.task} | asks(question)
        line |= {"answer": job.text, "tokens": len(job.told), "at_limit": job.finish == LENGTH}
        return line | ({"reference": question.reference} if question.reference else {})


class BatchAnswers:
    """Answers questions together, reading ahead of the decoder."""

    def __init__(self, model: ChatModel, config: AnswerConfig) -> None:
        self.model, self.config = model, config
        self.scheduler = Scheduler(model.model, model.renderer, config.max_batch)
        features = {kind: self._rows_of(kind) for kind in model.media}
        self.reader = SampleReader(
            model.renderer, model.model.modalities, features, model.prompts.context - 1
        )
        self._lines: deque[_Going | dict[str, Any]] = deque()  # that are not written yet
        self._going: set[Job] = set()

    def _rows_of(self, kind: str) -> Callable[[Path], Tensor]:
        def rows(path: Path) -> Tensor:
            return self.model.media_rows.rows(GivenMedium(kind, path, str(path)))

        return rows

    def run(self, asked: Iterable[Asked], write: Write, advance: Callable[..., None]) -> Failed:
        """Answers all questions.

        Args:
            write: called with the line of each, in their order.
            advance: called with the number of questions that have ended.

        Returns:
            how much could not be answered; its lines say why.
        """
        failed = Failed()
        for one in asked:
            try:
                self._begin(one)
            except UserError as error:
                self._lines.append(about(one) | {"error": str(error)})
                if isinstance(one, WrongRecord):
                    failed.records += 1
                else:
                    failed.questions += 1
                    advance(1)
            while len(self._going) >= AHEAD * self.config.max_batch:
                self._turn(advance)
            self._write_ended(write)
        while self._going:
            self._turn(advance)
            self._write_ended(write)
        return failed

    def _begin(self, one: Asked) -> None:
        if isinstance(one, WrongRecord):
            raise UserError(one.error)
        if not any(part for message in one.messages for part in message.parts):
            raise UserError(f"{one.id}: asks nothing; give a --prompt for such records")
        item = self.reader.prompt(one.id, one.messages)
        room = min(self.config.max_new_tokens, self.model.prompts.room(item))
        job = self.scheduler.job(item, Sampling(room), streams=False)
        self._lines.append(_Going(one, job))
        self._going.add(job)
        self.scheduler.submit([job])

    def _turn(self, advance: Callable[..., None]) -> None:
        self.scheduler.turn()
        for job in [job for job in self._going if job.done]:
            if job.error is not None:
                raise job.error
            self._going.remove(job)
            advance(1)

    def _write_ended(self, write: Write) -> None:
        """Writes what has ended before the first that has not."""
        while self._lines:
            first = self._lines[0]
            if isinstance(first, _Going) and not first.job.done:
                return
            write(first.line if isinstance(first, _Going) else first)
            self._lines.popleft()
