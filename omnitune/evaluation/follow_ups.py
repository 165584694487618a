"""Whether a question is answered as well when another one went before it, as it does in a chat.

Every other score asks each question alone with its media. A model may answer all of them and fail
at the same questions in a conversation, which its user meets at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from omnitune.data.loader import SampleReader
from omnitune.data.reading import all_task_counts
from omnitune.evaluation.metrics import metric_of
from omnitune.evaluation.reliance import fits
from omnitune.evaluation.scoring import Question, answer, answer_ratio, questions_of
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample


@dataclass(frozen=True)
class FollowUp:
    """A question after another of its record, which has its reference answer; and alone."""

    record: int
    after: Question
    alone: Question


def make_follow_ups(
    reader: SampleReader, samples: Sequence[Sample], max_questions: int
) -> dict[str, list[FollowUp]]:
    """By task, the questions of records that hold several independent ones.

    Each is asked after the one before it in its record, the first after the last.

    Args:
        samples: of a held-out split; only those that are chosen are read.
        max_questions: in all, of records in a fixed order.
    """
    several = [
        n
        for n, tasks in enumerate(all_task_counts(samples))
        if len(tasks) > 1 and any(metric_of(task).whole_answers for task, _ in tasks)
    ]
    order = random.Random(0).sample(several, len(several))
    pairs = (pair for n in order for pair in _of_record(reader, samples[n], n))
    found: dict[str, list[FollowUp]] = {}
    for follow_up in islice(pairs, max_questions):
        found.setdefault(follow_up.after.task, []).append(follow_up)
    return found


def follow_ups(
    model: OmniModel,
    reader: SampleReader,
    asked: dict[str, list[FollowUp]],
    on_progress: Callable[[int], None] = lambda n: None,
) -> dict[str, dict[str, Any]]:
    """The score of questions after another (``exact_match``) and of the same ones ``alone``.

    Args:
        model: in evaluation mode.
        on_progress: called with the number of questions just answered.

    Returns:
        by task, under its metric's name the score after another question and that ``alone``,
        ``questions``, how much is lost from alone to after (``drop``), the 95 %
        ``interval`` of that, and how many answers of both were cut at their limit (``at_limit``).
    """
    found = {}
    for task, those in asked.items():
        records = [one.record for one in those]
        given = [
            answer(model, reader, questions, on_progress)
            for questions in ([one.after for one in those], [one.alone for one in those])
        ]
        (metric, after), (_, alone) = (answer_ratio(task, answers, records) for answers in given)
        drop = after.minus(alone) if metric.lower_is_better else alone.minus(after)
        found[task] = {
            metric.name: after.value,
            "alone": alone.value,
            "questions": len(those),
            "drop": drop.value,
            "interval": drop.interval(),
            "at_limit": sum(one.at_limit for answers in given for one in answers),
        }
    return found


def _of_record(reader: SampleReader, sample: Sample, number: int) -> Iterator[FollowUp]:
    """None of those that do not fit, or whose answers are not compared to the letter.

    Nor of a record whose questions are never joined.
    """
    if sample.asked_alone_only:
        return
    count = sample.num_questions
    for place, single in enumerate(sample.split_turns()):
        pair = sample.select_turns([(place - 1) % count, place])
        if metric_of(single.task).whole_answers and fits(reader, pair):
            [alone] = questions_of(single)
            yield FollowUp(number, replace(alone, messages=pair.messages[:-1]), alone)
