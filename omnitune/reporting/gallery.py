"""The generated answers with what they were given to, and which of them to show."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omnitune.data.reading import join, read_available, split_of
from omnitune.evaluation.metrics import exact_match, metric_of
from omnitune.evaluation.runs import as_number, read_lines
from omnitune.evaluation.scoring import Prediction, Question, questions_of
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, UserError
from omnitune.tasks import task_of

GALLERY_SIZE = 24
GRID_SIZE = 8


@dataclass(frozen=True)
class Example:
    """An answer that was generated, with what the model was shown for it.

    Attributes:
        question: in writing; may be empty.
        heard: what the sound says, where it is known and not what is asked for.
    """

    prediction: Prediction
    right: bool
    question: str = ""
    heard: str = ""
    media: tuple[Media, ...] = ()
    split: str = ""


def is_right(prediction: Prediction) -> bool:
    """Whether an answer is all right by its task's metric."""
    metric = metric_of(prediction.task)
    return metric.is_right(prediction.answer, prediction.reference, prediction.language)


def severity(prediction: Prediction) -> float:
    """How bad a mistake is, comparable within a task only.

    Words that are wrong, of a transcription; of an answer that is right or wrong as a whole how
    unlikely the model held the reference (its loss, summed over its tokens), 0 where that is not
    known.
    """
    if metric_of(prediction.task).part:
        return _errors(prediction)[0]
    return prediction.reference_loss or 0.0


def error_reason(prediction: Prediction) -> str:
    """What makes a mistake a bad one, in words; "" where that is not known."""
    if part := metric_of(prediction.task).part:
        wrong, count = _errors(prediction)
        return f"{wrong:g} {part} error{'s' * (wrong != 1)} in {count:g} {part}{'s' * (count != 1)}"
    if prediction.reference_loss is None:
        return ""
    share = 100 * math.exp(-prediction.reference_loss)
    return f"the model held the reference {f'{share:.2g}' if share > 0.01 else '< 0.01'} % likely"


def _errors(prediction: Prediction) -> tuple[float, float]:
    """Wrong parts of an answer, such as words, and the parts of its reference."""
    metric = metric_of(prediction.task)
    found, count = metric.compare(prediction.answer, prediction.reference, prediction.language)
    return found if metric.lower_is_better else count - found, count


def choose_gallery(exhibits: Sequence[Example], count: int = GALLERY_SIZE) -> list[Example]:
    """The worst mistakes of each task, then a blind choice of right answers; half and half."""
    wrong = [e for e in shuffled(exhibits) if not e.right]
    wrong = in_turn(
        sorted(wrong, key=lambda e: -severity(e.prediction)), lambda e: e.prediction.task
    )
    right = [e for e in shuffled(exhibits) if e.right]
    right = in_turn(right, lambda e: e.prediction.task)
    n_right = min(len(right), max(count // 2, count - len(wrong)))
    return wrong[: count - n_right] + right[:n_right]


def choose_pictures(exhibits: Sequence[Example], count: int = GRID_SIZE) -> list[Example]:
    """Questions of different pictures and kinds, chosen blindly of whether they are right."""
    by_picture: dict[tuple[Media, ...], Example] = {}
    for exhibit in shuffled(exhibits):
        modalities = {medium.modality for medium in exhibit.media}
        if modalities == {"image"} and exhibit.prediction.task == task_of(modalities):
            by_picture.setdefault(exhibit.media, exhibit)
    pictures = shuffled(list(by_picture.values()))
    return in_turn(pictures, lambda e: e.prediction.kind)[:count]


def read_exhibits(path: Path, data_dir: Path) -> tuple[list[Example], str]:
    """The answers with what they were given to, and what to say about them."""
    if not path.is_file():
        return [], "There is no predictions.jsonl; `omnitune evaluate --predictions` writes it."
    exhibits, problem = match_exhibits(list(read_lines(path)), data_dir)
    n_right = sum(exhibit.right for exhibit in exhibits)
    note = (
        f"{n_right:,} of {len(exhibits):,} generated answers are right. The worst mistakes of each "
        "task come first, then right answers that were chosen blindly. An answer that is compared "
        "word by word is worse if more of its words are wrong. Any other answer is worse if the "
        "model held the reference to be less likely."
    )
    return exhibits, note + problem


def match_exhibits(
    lines: Sequence[dict[str, Any]], data_dir: Path, sources: Iterable[str] | None = None
) -> tuple[list[Example], str]:
    """The answers of these lines with what they were given to; what to say if that is missing."""
    predictions = [_prediction(line) for line in lines]
    splits = [str(line.get("split", "")) for line in lines]
    try:
        asked, problem = _find_questions(predictions, set(splits), data_dir, sources), ""
    except UserError as error:
        asked, problem = {}, f" Questions and media are missing: {error}."
    exhibits = []
    for n, prediction in enumerate(predictions):
        right = is_right(prediction)
        if n in asked:
            exhibits.append(_exhibit(prediction, right, *asked[n]))
        else:
            exhibits.append(Example(prediction, right, split=splits[n]))
    return exhibits, problem


def _prediction(line: dict[str, Any]) -> Prediction:
    names = ("id", "task", "kind", "reference", "answer", "language", "source")
    texts: dict[str, Any] = {name: str(line.get(name, "")) for name in names}
    number = as_number(line.get("number"))
    return Prediction(
        **texts,
        reference_loss=as_number(line.get("reference_loss")),
        at_limit=line.get("at_limit") is True,
        number=-1 if number is None else int(number),
    )


def _exhibit(prediction: Prediction, right: bool, sample: Sample, question: Question) -> Example:
    media = tuple(p for m in question.messages for p in m.parts if isinstance(p, Media))
    heard = " ".join(m.caption for m in media if not MEDIA[m.modality].is_spatial)
    if exact_match(heard, prediction.reference, prediction.language):
        heard = ""  # a transcription's sound says its reference
    text = question.messages[-1].text.strip()
    return Example(prediction, right, text, heard, media, sample.split)


def _find_questions(
    predictions: list[Prediction],
    splits: Collection[str],
    data_dir: Path,
    sources: Iterable[str] | None,
) -> dict[int, tuple[Sample, Question]]:
    """By place in the list: the question that an answer belongs to, if the data still holds it.

    Args:
        splits: those of the answers; "" for one that is not known, and may be of any.
    """
    wanted = {prediction.id for prediction in predictions}
    candidates: dict[str, list[tuple[Sample, Question]]] = {}
    everything = join(read_available(data_dir, sources).values())
    for split in everything.splits if "" in splits else everything.splits.intersection(splits):
        for sample in split_of(everything, split):
            for question in questions_of(sample):
                for name in {question.id, sample.id} & wanted:
                    candidates.setdefault(name, []).append((sample, question))
    found = {}
    for n, prediction in enumerate(predictions):
        # An id may name a whole conversation: its questions differ by task, kind and reference.
        # Records may share one: they differ by source and number.
        same = [
            pair
            for pair in candidates.get(prediction.id, [])
            if (pair[1].task, pair[1].reference) == (prediction.task, prediction.reference)
        ]
        if same:
            found[n] = max(same, key=lambda pair: _likeness(prediction, pair[1]))
    return found


def _likeness(prediction: Prediction, question: Question) -> tuple[bool, bool, bool]:
    """Of questions with the same id, task and reference the greatest is the one asked."""
    record = (prediction.source, prediction.number)
    return (
        record == (question.source, question.number),
        prediction.id == question.id,
        prediction.kind == question.kind,
    )


def shuffled(exhibits: Sequence[Example]) -> list[Example]:
    """In an order of a fixed seed."""
    return random.Random(0).sample(list(exhibits), len(exhibits))


def in_turn(exhibits: Sequence[Example], group: Callable[[Example], str]) -> list[Example]:
    """One of each group in turn, each group in the order given."""
    groups: dict[str, list[Example]] = {}
    for exhibit in exhibits:
        groups.setdefault(group(exhibit), []).append(exhibit)
    rounds = zip_longest(*(groups[name] for name in sorted(groups)))
    return [exhibit for turn in rounds for exhibit in turn if exhibit is not None]
