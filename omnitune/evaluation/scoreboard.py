"""The held-out scores, per task: loss, token accuracy, exact match, word error rate."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from omnitune.data.batching import Item, pack
from omnitune.data.loader import SampleReader
from omnitune.data.records import outlines
from omnitune.evaluation.metrics import exact_match, word_error_rate
from omnitune.generation import generate
from omnitune.models.omni import OmniModel
from omnitune.sample import Message, Sample

SCORE_BATCH = 16
SCORE_WINDOW = 4096
MAX_ANSWER_TOKENS = 48
# Tasks whose answers are generated and compared; the others are judged by their tokens.
EXACT_TASKS = ("image_qa", "audio_qa", "image_audio_qa", "caption")
WER_TASKS = ("transcription",)

# The scores that stand for the whole: name, task and the task's own score.
HEADLINES = {
    "text_acc": ("text", "token_acc"),
    "image_qa_acc": ("image_qa", "exact_match"),
    "audio_wer": ("transcription", "wer"),
}


@dataclass(frozen=True)
class Question:
    """One question as it is asked of the model: the turns before the answer, and the answer."""

    id: str
    task: str
    kind: str
    messages: tuple[Message, ...]
    reference: str


@dataclass(frozen=True)
class Prediction:
    """One JSON line of ``--predictions``.

    Attributes:
        reference_loss: of the reference, summed over its tokens: minus the logarithm of the
            probability that the model gave it; None where it was not asked for alone.
    """

    id: str
    task: str
    kind: str
    reference: str
    answer: str
    reference_loss: float | None = None


def questions_of(sample: Sample) -> list[Question]:
    """The questions of a sample, each alone with the media where the turns allow it."""
    found = []
    for single in sample.alone():
        answers = sum(m.role == "assistant" for m in single.messages)
        for n, message in enumerate(single.messages):
            if message.role == "assistant":
                name = f"{single.id}#{n // 2}" if answers > 1 else single.id
                kind = message.kind or single.kind or message.task
                found.append(Question(name, message.task, kind, single.messages[:n], message.text))
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
    order = sorted(range(len(items)), key=lambda n: len(items[n].rendered.tokens))
    totals: list[tuple[float, float, int]] = [(0.0, 0.0, 0)] * len(items)
    for first in range(0, len(order), SCORE_BATCH):
        chunk = order[first : first + SCORE_BATCH]
        numbered = [replace(items[n], group=place) for place, n in enumerate(chunk)]
        batch = pack(numbered, len(chunk)).to(model.device)
        scores = model.token_scores(batch)
        zeros = torch.zeros(len(chunk), device=model.device)
        sums = [
            zeros.index_add(0, batch.group_N, x.float()).tolist()
            for x in (scores.nll_N, scores.correct_N, torch.ones_like(scores.nll_N))
        ]
        for place, n in enumerate(chunk):
            totals[n] = (sums[0][place], sums[1][place], int(sums[2][place]))
    return totals


def scoreboard(
    model: OmniModel,
    reader: SampleReader,
    samples: Sequence[Sample],
    max_questions: int | None = None,
    seed: int = 0,
    tick: Callable[[int], None] = lambda n: None,
    tasks: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Scores a model on held-out samples.

    Args:
        model: in evaluation mode.
        max_questions: at most so many questions of each task, a fixed choice of the seed.
        tick: called with the number of questions just scored.
        tasks: score these only.

    Returns:
        the scores, and the answers that were generated. ``loss`` and ``token_acc`` are means
        over all supervised tokens; ``text_acc`` the token accuracy of text conversations;
        ``image_qa_acc`` exact match; ``audio_wer`` the corpus word error rate; ``tasks`` holds
        each task's own, ``kinds`` within it the finer groups.
    """
    scores: dict[str, dict[str, Any]] = {}
    predictions: list[Prediction] = []
    totals = []
    for task, chosen in choose(samples, max_questions, seed, tasks).items():
        task_totals: list[tuple[float, float, int]] = []
        answered: list[Prediction] = []
        # A window at a time, so that memory does not grow with the split.
        for first in range(0, len(chosen), SCORE_WINDOW):
            singles = list(_fetch(samples, chosen[first : first + SCORE_WINDOW]))
            window_totals = token_totals(model, [reader.item(s) for s in singles])
            task_totals += window_totals
            asked = [questions_of(s) for s in singles]
            questions = [q for found in asked for q in found]
            if task in EXACT_TASKS or task in WER_TASKS:
                found = answer(model, reader, questions, tick)
                answered += _with_losses(found, asked, window_totals)
            else:
                tick(len(questions))
        totals += task_totals
        scores[task] = _mean(task_totals)
        if answered:
            scores[task] |= score_answers(task, answered)
            predictions += answered
        scores[task]["questions"] = int(chosen[:, 2].sum())
    return _summary(scores, totals), predictions


def choose(
    samples: Sequence[Sample],
    max_questions: int | None = None,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """What :func:`scoreboard` scores, by task; reads no sample of an indexed file.

    Returns:
        of each single ``[K, 3]``: the sample's number, the place among those that its ``alone``
        gives, and the number of its questions.
    """
    by_task: dict[str, array[int]] = {}
    for number, outline in enumerate(outlines(samples)):
        for place, (task, questions) in enumerate(outline):
            if tasks is None or task in tasks:
                by_task.setdefault(task, array("q")).extend((number, place, questions))
    singles = {task: np.array(found).reshape(-1, 3) for task, found in by_task.items()}
    if max_questions is None:
        return singles
    return {task: _choose(found, max_questions, seed) for task, found in singles.items()}


def pick(
    samples: Sequence[Sample], max_questions: int, seed: int, tasks: Sequence[str] | None = None
) -> list[Sample]:
    """What :func:`scoreboard` would score, read once to be scored many times."""
    chosen = choose(samples, max_questions, seed, tasks)
    return [single for found in chosen.values() for single in _fetch(samples, found)]


def _fetch(samples: Sequence[Sample], chosen_K3: np.ndarray) -> Iterator[Sample]:
    for number, rows in groupby(chosen_K3.tolist(), key=itemgetter(0)):
        alone = samples[number].alone()
        yield from (alone[place] for _, place, _ in rows)


def answer(
    model: OmniModel,
    reader: SampleReader,
    questions: Sequence[Question],
    tick: Callable[[int], None] = lambda n: None,
) -> list[Prediction]:
    """Answers questions by greedy generation."""
    predictions = []
    for first in range(0, len(questions), 64):
        chunk = questions[first : first + 64]
        prompts = [reader.prompt(q.id, q.messages) for q in chunk]
        tokens = generate(model, prompts, reader.renderer.end, MAX_ANSWER_TOKENS)
        for q, ids in zip(chunk, tokens, strict=True):
            text = reader.renderer.decode(ids)
            predictions.append(Prediction(q.id, q.task, q.kind, q.reference, text))
        tick(len(chunk))
    return predictions


def score_answers(task: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Word error rate of transcriptions, exact match of the rest; also by kind."""
    kinds = sorted({p.kind for p in predictions})
    groups = {kind: [p for p in predictions if p.kind == kind] for kind in kinds}
    if task in WER_TASKS:
        scored = {"wer": _wer(predictions)}
        by_kind = {kind: _wer(group) for kind, group in groups.items()}
    else:
        scored = {"exact_match": _share(predictions)}
        by_kind = {kind: _share(group) for kind, group in groups.items()}
    return {**scored, "kinds": by_kind} if len(kinds) > 1 else dict(scored)


def score_lines(step: int, entry: dict[str, Any]) -> list[str]:
    """The printed form of one moment of a run: ``entry`` is a line of ``metrics.jsonl``."""
    scores = entry["validation"]
    text = f" text_acc={scores['text_acc']:.1%}" if "text_acc" in scores else ""
    lines = [f"Step {step}: loss={scores['loss']:.3f}{text}"]
    if "image_qa_acc" in scores:
        lines.append(f"→ Image QA acc: {scores['image_qa_acc']:.1%}")
    if "audio_wer" in scores:
        lines.append(f"→ Audio transcription WER: {scores['audio_wer']:.1%}")
    return lines


def as_json(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a JSON object."""
    return asdict(prediction)


def _summary(
    tasks: dict[str, dict[str, Any]], totals: list[tuple[float, float, int]]
) -> dict[str, Any]:
    summary: dict[str, Any] = _mean(totals)
    for name, (task, score) in HEADLINES.items():
        if task in tasks:
            summary[name] = tasks[task][score]
    return summary | {"tasks": tasks}


def _mean(totals: list[tuple[float, float, int]]) -> dict[str, Any]:
    count = max(1, sum(n for _, _, n in totals))
    loss, right = sum(t[0] for t in totals), sum(t[1] for t in totals)
    return {"loss": loss / count, "token_acc": right / count, "tokens": count}


def _with_losses(
    predictions: list[Prediction],
    asked: list[list[Question]],
    totals: list[tuple[float, float, int]],
) -> list[Prediction]:
    """Enters the loss of each reference that is the only one of its sample."""
    losses = [
        round(nll, 4) if len(questions) == 1 else None
        for questions, (nll, _, _) in zip(asked, totals, strict=True)
        for _ in questions
    ]
    pairs = zip(predictions, losses, strict=True)
    return [replace(p, reference_loss=loss) for p, loss in pairs]


def _wer(predictions: Sequence[Prediction]) -> float:
    return word_error_rate([p.answer for p in predictions], [p.reference for p in predictions])


def _share(predictions: Sequence[Prediction]) -> float:
    return sum(exact_match(p.answer, p.reference) for p in predictions) / len(predictions)


def _choose(singles_K3: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Singles in an order of the seed, as long as their questions are no more than ``count``."""
    chosen: list[int] = []
    total = 0
    for n in random.Random(seed).sample(range(len(singles_K3)), len(singles_K3)):
        questions = int(singles_K3[n, 2])
        if total + questions <= count or not chosen:
            chosen.append(n)
            total += questions
    return singles_K3[chosen]
