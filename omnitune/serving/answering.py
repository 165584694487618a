"""Answers every record of some data and writes the answers down, one line of JSON each.

What was answered stays answered: the same command goes on where the file ends.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple

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
from omnitune.serving.answer_file import AnswerFile, LineForm, One, QuestionLines, asks
from omnitune.serving.decoding import LENGTH, Sampling
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.folder import name_of, require_model
from omnitune.serving.openai_batch import BatchLines, BatchRequest, is_batch, requests_in
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
    if config.out.exists() and config.data.exists() and config.out.samefile(config.data):
        raise UserError(f"{config.out}: holds the questions; give --out another file")
    if is_batch(config.data):
        return _answer_batch(config)
    available = read_available(DataPlace.to_answer(config.data, config.prompt))
    model = load_model(config.ckpt_dir, config.device)
    available, left_out = leave_out_unreadable(available, model.media)
    if left_out:
        print(f"warning: {left_out}", file=sys.stderr)
    chosen = _chosen(available, config)
    total = sum(n for s in chosen.values() for counts in all_task_counts(s) for _, n in counts)
    asked = _asked(chosen, wrong=not config.split)
    return _answer_all(config, QuestionAnswers(model, config), asked, total)


def _answer_batch(config: AnswerConfig) -> int:
    """The same for a batch file of OpenAI's API."""
    if config.split or config.prompt:
        raise UserError(
            f"{config.data}: is a batch file, whose requests say all themselves; leave out --split "
            "and --prompt"
        )
    total = sum(1 for _ in requests_in(config.data))
    model = load_model(config.ckpt_dir, config.device)
    answers = RequestAnswers(model, config, name_of(config.ckpt_dir))
    return _answer_all(config, answers, requests_in(config.data), total)


def _answer_all(
    config: AnswerConfig, batch: BatchAnswers[One], asked: Iterable[One], total: int
) -> int:
    answers = AnswerFile(config, batch.form)
    with (
        progress_bar("answering", total, min(total, len(answers.done))) as advance,
        answers.open() as write,
    ):
        failed = batch.run(answers.todo(asked), write, advance)
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


def _asked(chosen: Mapping[str, Samples], wrong: bool) -> Iterator[Question | WrongRecord]:
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


class Going(NamedTuple):
    """A question that is being answered.

    Attributes:
        jobs: of its answers. line: what is written down when they are done.
    """

    jobs: Sequence[Job]
    line: Callable[[], dict[str, Any]]

    @property
    def done(self) -> bool:
        """Whether all answers are there."""
        return all(job.done for job in self.jobs)


class BatchAnswers(ABC, Generic[One]):
    """Answers questions together, reading ahead of the decoder.

    Attributes:
        form: of the lines.
    """

    form: LineForm[One]

    def __init__(self, model: ChatModel, config: AnswerConfig) -> None:
        self.model, self.config = model, config
        self.scheduler = Scheduler(model.model, model.renderer, config.max_batch)
        self._lines: deque[Going | dict[str, Any]] = deque()  # that are not written yet
        self._going: list[Going] = []

    @abstractmethod
    def begin(self, one: One) -> Going:
        """The jobs of a question, not submitted yet; raises UserError."""

    def failed(self, one: One, why: str) -> dict[str, Any]:
        """The line of a question that cannot be answered."""
        return self.form.about(one) | {"error": why}

    def run(self, asked: Iterable[One], write: Write, advance: Callable[..., None]) -> Failed:
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
                going = self.begin(one)
                self._lines.append(going)
                self._going.append(going)
                self.scheduler.submit(going.jobs)
            except UserError as error:
                self._lines.append(self.failed(one, str(error)))
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

    def _turn(self, advance: Callable[..., None]) -> None:
        self.scheduler.turn()
        for going in [going for going in self._going if going.done]:
            for job in going.jobs:
                if job.error is not None:
                    raise job.error
            self._going.remove(going)
            advance(1)

    def _write_ended(self, write: Write) -> None:
        """Writes what has ended before the first that has not."""
        while self._lines:
            first = self._lines[0]
            if isinstance(first, Going) and not first.done:
                return
            write(first.line() if isinstance(first, Going) else first)
            self._lines.popleft()


class QuestionAnswers(BatchAnswers[Question | WrongRecord]):
    """Answers the questions of records, in omnitune's own form."""

    form = QuestionLines()

    def __init__(self, model: ChatModel, config: AnswerConfig) -> None:
        super().__init__(model, config)
        features = {kind: self._rows_of(kind) for kind in model.media}
        self.reader = SampleReader(
            model.renderer, model.model.modalities, features, model.prompts.context - 1
        )

    def _rows_of(self, kind: str) -> Callable[[Path], Tensor]:
        def rows(path: Path) -> Tensor:
            return self.model.media_rows.rows(GivenMedium(kind, path, str(path)))

        return rows

    def begin(self, one: Question | WrongRecord) -> Going:
        """One answer, greedily."""
        if isinstance(one, WrongRecord):
            raise UserError(one.error)
        if not any(part for message in one.messages for part in message.parts):
            raise UserError(f"{one.id}: asks nothing; give a --prompt for such records")
        item = self.reader.prompt(one.id, one.messages)
        room = min(self.config.max_new_tokens, self.model.prompts.room(item))
        job = self.scheduler.job(item, Sampling(room), streams=False)
        return Going([job], lambda: self._line(one, job))

    def _line(self, question: Question, job: Job) -> dict[str, Any]:
        line = self.form.about(question) | {"task": question.task} | asks(question)
        line |= {"answer": job.text, "tokens": len(job.told), "at_limit": job.finish == LENGTH}
        return line | ({"reference": question.reference} if question.reference else {})


class RequestAnswers(BatchAnswers[BatchRequest]):
    """Answers the requests of a batch file, each by its own settings, as the API would.

    Args:
        name: of the model, in the answers.
    """

    form = BatchLines()

    def __init__(self, model: ChatModel, config: AnswerConfig, name: str) -> None:
        super().__init__(model, config)
        self.name = name

    def begin(self, one: BatchRequest) -> Going:
        """As many answers as the request asks for."""
        body = one.chat()
        try:
            item = self.model.prompts.prompt(one.turns(body))
        except UserError as error:
            raise UserError(f"{one.place}: {error}") from None
        sampling, room = body.sampling(self.config.max_new_tokens), self.model.prompts.room(item)
        jobs = [
            self.scheduler.job(item, sampling.of_choice(n, room), body.stops, streams=False)
            for n in range(body.n or 1)
        ]
        return Going(jobs, lambda: one.answered(self.model.renderer, self.name, jobs))

    def failed(self, one: BatchRequest, why: str) -> dict[str, Any]:
        """As the batch API tells it."""
        return one.failed(why)
