"""What an answerer who neither sees nor hears would reach: the most frequent training answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from omnitune.data.reading import asking
from omnitune.evaluation.metrics import metric_of, normalise_answer
from omnitune.evaluation.scoring import Priors, questions_of
from omnitune.sample import Sample

COUNTED = 8_000  # records whose answers stand for those of all


def answer_priors(samples: Sequence[Sample], seed: int = 0) -> Priors:
    """The most frequent answer of each kind of question, for the tasks of short answers.

    Read from at most ``COUNTED`` records, chosen by the seed, so that neither time nor memory
    grows with the data; among answers of the same frequency the first of the alphabet is taken.

    Args:
        samples: for training.

    Returns:
        normalised answers by task and kind; under the kind "" that of the whole task.
    """
    numbers = asking(samples, lambda task: metric_of(task).whole_answers)
    if len(numbers) > COUNTED:
        rng = np.random.default_rng(seed)
        numbers = np.sort(rng.choice(numbers, COUNTED, replace=False))
    counted: dict[tuple[str, str], Counter[str]] = {}
    for number in numbers.tolist():
        for question in questions_of(samples[number]):
            if metric_of(question.task).whole_answers:
                answer = normalise_answer(question.reference, question.language)
                for kind in (question.kind, ""):
                    counted.setdefault((question.task, kind), Counter())[answer] += 1
    return {
        group: min(answers, key=lambda answer: (-answers[answer], answer))
        for group, answers in counted.items()
    }
