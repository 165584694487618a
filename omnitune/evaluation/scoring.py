"""The held-out scores, per task: loss, token accuracy, exact match, word error rate."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from omnitune.config.dealing import dealt
from omnitune.data.loader import SampleReader
from omnitune.data.packing import Item, of_like_length, pack
from omnitune.data.reading import all_task_counts
from omnitune.evaluation.bootstrap import Pooled, Ratio, Records
from omnitune.evaluation.limits import answer_limit
from omnitune.evaluation.metrics import Metric, metric_of, metrics_of, normalise_answer
from omnitune.evaluation.normalise import normaliser_of
from omnitune.evaluation.provenance import Prompts, scored_with
from omnitune.evaluation.truth import Truth
from omnitune.generation import generate
from omnitune.models.omni import OmniModel
from omnitune.sample import Message, Sample
from omnitune.tasks import get_task, headlines

SCORE_BATCH, SCORE_POSITIONS = 64, 1 << 13  # samples, and their tokens, at a time
ANSWER_WINDOW = 512  # questions that are sorted by length
SCORE_WINDOW = 4096

# The most frequent training answer by (task, kind); under the kind "" that of the whole task.
Priors = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Question:
    """One question as it is asked of the model: the turns before the answer, and the answer.

    Attributes:
        language: of the answer; "" where it is not told.
        references, choices: as of ``Message``.
        source, number: which record it is of, as ids may be shared; -1 where there is no file.
        limit: longest answer in tokens; None: as the references asked with it need.
    """

    id: str
    task: str
    kind: str
    messages: tuple[Message, ...]
    reference: str
    language: str = ""
    source: str = ""
    number: int = -1
    limit: int | None = None
    references: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def truth(self) -> Truth:
        """What an answer is held against."""
        return Truth(self.reference, self.language, self.references, self.choices)

    @property
    def right_texts(self) -> tuple[str, ...]:
        """All that may be said: the right answers and the options."""
        return (self.reference, *self.references, *(text for _, text in self.choices))


@dataclass(frozen=True)
class Prediction:
    """One JSON line of ``--predictions``.

    Attributes:
        reference_loss: of the reference, summed over its tokens: minus the logarithm of the
            probability that the model gave it; None where it was not asked for alone.
        at_limit: the answer did not end within the tokens that it might have.
        language, source, number, references, choices: those of the question.
    """

    id: str
    task: str
    kind: str
    reference: str
    answer: str
    reference_loss: float | None = None
    at_limit: bool = False
    language: str = ""
    source: str = ""
    number: int = -1
    references: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def truth(self) -> Truth:
        """What the answer is held against."""
        return Truth(self.reference, self.language, self.references, self.choices)


def questions_of(sample: Sample) -> list[Question]:
    """The questions of a sample, each alone with the media where the turns allow it."""
    found = []
    for single in sample.split_turns():
        answers = single.num_questions
        for n, message in enumerate(single.messages):
            if message.learnt:
                name = f"{single.id}#{n // 2}" if answers > 1 else single.id
                kind = message.kind or single.kind or message.task
                asked = single.messages[:n]
                where = (single.language, single.source, single.number)
                limit = get_task(message.task).answer_limit
                right = (message.references, message.choices)
                found.append(
                    Question(name, message.task, kind, asked, message.text, *where, limit, *right)
                )
    return found


def token_scoreboard(model: OmniModel, items: Sequence[Item]) -> dict[str, float]:
    """Mean loss and accuracy over all supervised tokens of the items."""
    totals = token_totals(model, items)
    count = sum(n for _, _, n in totals)
    return {
        "loss": sum(nll for nll, _, _ in totals) / count,
        "token_acc": sum(right for _, right, _ in totals) / count,
    }


def token_totals(model: OmniModel, items: Sequence[Item]) -> list[tuple[float, float, int]]:
    """Of each item: summed loss, correct tokens and number of its supervised tokens."""
    lengths = [len(item.rendered.tokens) for item in items]
    totals: list[tuple[float, float, int]] = [(0.0, 0.0, 0)] * len(items)
    chunks = list(of_like_length(lengths, SCORE_BATCH, SCORE_POSITIONS))

    def total(chunk: list[int]) -> list[list[float]]:
        numbered = [replace(items[n], group=place) for place, n in enumerate(chunk)]
        batch = pack(numbered, len(chunk)).to(model.device)
        scores = model.token_scores(batch)
        zeros = torch.zeros(len(chunk), device=model.device)
        return [
            zeros.index_add(0, batch.group_N, x.float()).tolist()
            for x in (scores.nll_N, scores.correct_N, torch.ones_like(scores.nll_N))
        ]

    for chunk, sums in zip(chunks, dealt(total, chunks), strict=True):
        for place, n in enumerate(chunk):
            totals[n] = (sums[0][place], sums[1][place], int(sums[2][place]))
    return totals


def scoreboard(
    model: OmniModel,
    reader: SampleReader,
    samples: Sequence[Sample],
    on_progress: Callable[[int], None] = lambda n: None,
    priors: Priors | None = None,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Scores a model on held-out samples.

    Args:
        model: in evaluation mode.
        on_progress: called with the number of questions just scored.
        priors: scored too, as if they were a model's answers.

    Returns:
        the scores, and the answers that were generated. ``loss`` and ``token_acc`` are means
        over all supervised tokens; the headlines of the tasks (``text_acc``, ...) stand beside
        them; ``tasks`` holds each task's own, ``kinds`` within it the finer groups, ``intervals``
        the 95 % bootstrap intervals, ``at_limit`` the answers that did not end within
        ``answer_limit`` tokens, ``normalisers`` those of references that are not all English,
        ``scored_with`` what the answers' scores depend on beside the model.
    """
    scores: dict[str, dict[str, Any]] = {}
    predictions: list[Prediction] = []
    totals, records = [], []
    number = Records()
    for task, chosen in _singles(samples).items():
        task_totals: list[tuple[float, float, int]] = []
        answered: list[Prediction] = []
        prompts = Prompts()
        of_single, of_answer = [], []  # their records
        generated = metric_of(task).generated
        limit = _limit_of(task, reader, samples, chosen) if generated else None
        # A window at a time, so that memory does not grow with the split.
        for first in range(0, len(chosen), SCORE_WINDOW):
            singles = list(_fetch(samples, chosen[first : first + SCORE_WINDOW]))
            window = token_totals(model, [reader.item(s) for s in singles])
            task_totals += window
            of_single += [number(s) for s in singles]
            asked = [replace(q, limit=limit) for s in singles for q in questions_of(s)]
            if generated:
                prompts.add(q.messages[-1].text for q in asked)
                counts = [single.num_questions for single in singles]
                losses = _losses_of_answers(counts, window)
                given = answer(model, reader, asked, on_progress)
                pairs = zip(given, losses, strict=True)
                answered += [replace(p, reference_loss=loss) for p, loss in pairs]
                of_answer += np.repeat(of_single[first:], counts).tolist()
            else:
                on_progress(len(asked))
        totals += task_totals
        records += of_single
        scores[task] = _mean(task_totals, of_single)
        if answered:
            found = score_answers(task, answered, of_answer, priors)
            found["intervals"] |= scores[task]["intervals"]
            scores[task] |= found | {"answer_limit": limit} | _account(task, answered, prompts)
            predictions += answered
        scores[task]["questions"] = int(chosen[:, 2].sum())
    return _summary(scores, _mean(totals, records)), predictions


def _singles(
    samples: Sequence[Sample], tasks: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """What is asked, by task; reads no sample of an indexed file.

    Returns:
        of each single ``[K, 3]``: the sample's number, the place among those that its
        ``split_turns`` gives, and the number of its questions.
    """
    by_task: dict[str, array[int]] = {}
    for number, task_counts in enumerate(all_task_counts(samples)):
        for place, (task, questions) in enumerate(task_counts):
            if tasks is None or task in tasks:
                by_task.setdefault(task, array("q")).extend((number, place, questions))
    return {task: np.array(found).reshape(-1, 3) for task, found in by_task.items()}


def pick(
    samples: Sequence[Sample], max_questions: int, seed: int, tasks: Sequence[str] | None = None
) -> list[Sample]:
    """At most so many questions of each task, a fixed choice of the seed, each single alone."""
    picked: list[Sample] = []
    for singles_K3 in _singles(samples, tasks).values():
        chosen: list[int] = []
        total = 0
        for n in random.Random(seed).sample(range(len(singles_K3)), len(singles_K3)):
            questions = int(singles_K3[n, 2])
            if total + questions <= max_questions or not chosen:
                chosen.append(n)
                total += questions
        picked += _fetch(samples, singles_K3[chosen])
    return picked


def _fetch(samples: Sequence[Sample], chosen_K3: np.ndarray) -> Iterator[Sample]:
    for number, rows in groupby(chosen_K3.tolist(), key=itemgetter(0)):
        alone = samples[number].split_turns()
        yield from (alone[place] for _, place, _ in rows)


def answer(
    model: OmniModel,
    reader: SampleReader,
    questions: Sequence[Question],
    on_progress: Callable[[int], None] = lambda n: None,
) -> list[Prediction]:
    """Answers questions by greedy generation, each within its limit and the thinker's positions."""
    limit = answer_limit(reader, (t for q in questions if q.limit is None for t in q.right_texts))
    positions = model.thinker.config.max_position_embeddings
    predictions = []
    for first in range(0, len(questions), ANSWER_WINDOW):
        chunk = questions[first : first + ANSWER_WINDOW]
        prompts = [reader.prompt(q.id, q.messages) for q in chunk]
        most = [
            min(q.limit or limit, positions - len(prompt.rendered.tokens))
            for q, prompt in zip(chunk, prompts, strict=True)
        ]
        tokens = generate(model, prompts, reader.renderer.ends, most, on_progress=on_progress)
        for q, ids, room in zip(chunk, tokens, most, strict=True):
            text, cut = reader.renderer.decode(ids), len(ids) >= room
            where = (q.language, q.source, q.number, q.references, q.choices)
            predictions.append(
                Prediction(q.id, q.task, q.kind, q.reference, text, None, cut, *where)
            )
    return predictions


def answer_ratio(
    task: str, predictions: Sequence[Prediction], records: Sequence[int]
) -> tuple[Metric, Ratio]:
    """How good answers are.

    Args:
        records: number of the record that each answer belongs to.

    Returns:
        the task's metric and its value.
    """
    metric = metric_of(task)
    return metric, _ratio(metric, predictions, records)


def _ratio(metric: Metric, predictions: Sequence[Prediction], records: Sequence[int]) -> Ratio:
    answers = [(p.answer, p.truth) for p in predictions]
    record_Q = np.array(records, dtype=int)
    if metric.pool and answers:
        counts = [metric.pool.count(*pair) for pair in answers]
        return Pooled.of_counts(np.array(counts, dtype=float), record_Q, metric.pool.formula)
    pairs = [metric.score(*pair) for pair in answers]
    above_Q, below_Q = np.array(pairs, dtype=float).reshape(-1, 2).T
    return Ratio(above_Q, below_Q, record_Q)


def score_answers(
    task: str,
    predictions: Sequence[Prediction],
    records: Sequence[int],
    priors: Priors | None = None,
) -> dict[str, Any]:
    """The score of some answers with its interval, also by kind, and that of the priors."""
    ratios = {m.name: _ratio(m, predictions, records) for m in metrics_of(task)}
    metric = metric_of(task)
    ratio = ratios[metric.name]
    scores: dict[str, Any] = {name: found.value for name, found in ratios.items()}
    scores["intervals"] = _intervals(ratios)
    kinds: dict[str, list[int]] = {}
    for place, prediction in enumerate(predictions):
        kinds.setdefault(prediction.kind, []).append(place)
    by_kind = {kind: ratio.of(places) for kind, places in sorted(kinds.items())}
    if len(kinds) > 1:
        scores["kinds"] = {kind: found.value for kind, found in by_kind.items()}
        scores["kind_intervals"] = _intervals(by_kind)
        scores["kind_questions"] = {kind: len(kinds[kind]) for kind in by_kind}
    if priors and metric.whole_answers:
        right = np.array([_prior_score(metric, priors, p) for p in predictions], dtype=float)
        scores["prior"] = right.mean().item()
        if len(kinds) > 1:
            scores["kind_priors"] = {kind: right[kinds[kind]].mean().item() for kind in by_kind}
    return scores


def _limit_of(
    task: str, reader: SampleReader, samples: Sequence[Sample], chosen_K3: np.ndarray
) -> int:
    if limit := get_task(task).answer_limit:
        return limit
    singles = _fetch(samples, chosen_K3)
    asked = (question for single in singles for question in questions_of(single))
    return answer_limit(reader, (text for question in asked for text in question.right_texts))


def _account(task: str, answered: Sequence[Prediction], prompts: Prompts) -> dict[str, Any]:
    """How many answers were cut, and how they are compared."""
    used = Counter(normaliser_of(p.reference, p.language) for p in answered)
    found: dict[str, Any] = {"at_limit": sum(p.at_limit for p in answered)}
    found["scored_with"] = scored_with(task, [p.truth for p in answered], prompts)
    return found | ({"normalisers": dict(used)} if used.keys() - {"english"} else {})


def _summary(tasks: dict[str, dict[str, Any]], whole: dict[str, Any]) -> dict[str, Any]:
    intervals = {name: x for name, x in whole["intervals"].items() if name == "loss"}
    summary = {**whole, "intervals": intervals}
    for name, task in headlines().items():
        if task.name in tasks:
            scores = tasks[task.name]
            summary[name] = scores[task.metric]
            if task.metric in scores["intervals"]:
                intervals[name] = scores["intervals"][task.metric]
    return summary | {"tasks": tasks}


def _mean(totals: list[tuple[float, float, int]], records: list[int]) -> dict[str, Any]:
    nll, right, count = np.array(totals, dtype=float).reshape(-1, 3).T
    record_N = np.array(records, dtype=int)
    ratios = {"loss": Ratio(nll, count, record_N), "token_acc": Ratio(right, count, record_N)}
    means = {name: ratio.value for name, ratio in ratios.items()}
    return {**means, "tokens": int(count.sum()), "intervals": _intervals(ratios)}


def _intervals(ratios: Mapping[str, Ratio]) -> dict[str, list[float]]:
    found = {name: ratio.interval() for name, ratio in ratios.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def _losses_of_answers(
    counts: Sequence[int], totals: Sequence[tuple[float, float, int]]
) -> list[float | None]:
    """Of each answer the loss of its reference, where that is the only one of its sample."""
    return [
        round(nll, 4) if count == 1 else None
        for count, (nll, _, _) in zip(counts, totals, strict=True)
        for _ in range(count)
    ]


def _prior_score(metric: Metric, priors: Priors, prediction: Prediction) -> float:
    """What the most frequent answer of the question's kind, or else of its task, gets."""
    prior = priors.get((prediction.task, prediction.kind), priors.get((prediction.task, "")))
    if metric.judge is None and not prediction.references:
        return prior == normalise_answer(prediction.reference, prediction.language)
    return 0.0 if prior is None else metric.score(prior, prediction.truth)[0]
