"""The generated answers with what they were given to, and which of them to show."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omnitune.data.reading import DataPlace, read_available
from omnitune.data.samples import Samples
from omnitune.evaluation.metrics import exact_match, metric_of
from omnitune.evaluation.normalise import normaliser_of
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
        caption: what media say from one moment to the next, where it is known and not asked for.
        place: file and number of its record, where they are known.
    """

    prediction: Prediction
    right: bool
    question: str = ""
    caption: str = ""
    media: tuple[Media, ...] = ()
    split: str = ""
    place: str = ""


def is_right(prediction: Prediction) -> bool:
    """Whether an answer is all right by its task's metric."""
    metric = metric_of(prediction.task)
    return metric.is_right(prediction.answer, prediction.truth)


def severity(prediction: Prediction) -> float:
    """How bad a mistake is, comparable within a task only.

    Words that are wrong, of a transcription; how far a graded answer is from the reference; of
    one that is right or wrong as a whole how unlikely the model held the reference (its loss,
    summed over its tokens), 0 where that is not known.
    """
    if not metric_of(prediction.task).whole_answers:
        return _errors(prediction)[0]
    return prediction.reference_loss or 0.0


def error_reason(prediction: Prediction) -> str:
    """What makes a mistake a bad one, in words; "" where that is not known."""
    metric = metric_of(prediction.task)
    if metric.graded:
        value, _ = metric.score(prediction.answer, prediction.truth)
        return f"{100 * value:.0f} % in {metric.label}"
    rules = normaliser_of(prediction.reference, prediction.language)
    if part := metric.shown_as([rules]).part:
        wrong, count = _errors(prediction)
        return f"{wrong:g} {part} error{'s' * (wrong != 1)} in {count:g} {part}{'s' * (count != 1)}"
    if prediction.reference_loss is None:
        return ""
    share = 100 * math.exp(-prediction.reference_loss)
    return f"the model held the reference {f'{share:.2g}' if share > 0.01 else '< 0.01'} % likely"


def _errors(prediction: Prediction) -> tuple[float, float]:
    """Wrong parts of an answer, such as words, and the parts of its reference."""
    metric = metric_of(prediction.task)
    found, count = metric.score(prediction.answer, prediction.truth)
    return found if metric.lower_is_better else count - found, count


def choose_gallery(examples: Sequence[Example], count: int = GALLERY_SIZE) -> list[Example]:
    """The worst mistakes of each task, then a blind choice of right answers; half and half."""
    worst = sorted(shuffled(examples), key=lambda e: -severity(e.prediction))
    wrong = in_turn([e for e in worst if not e.right], lambda e: e.prediction.task)
    right = in_turn([e for e in shuffled(examples) if e.right], lambda e: e.prediction.task)
    n_right = min(len(right), max(count // 2, count - len(wrong)))
    return wrong[: count - n_right] + right[:n_right]


def choose_pictures(examples: Sequence[Example], count: int = GRID_SIZE) -> list[Example]:
    """Questions about one picture each, of different kinds, chosen blindly of what is right."""
    by_picture: dict[Media, Example] = {}
    for example in shuffled(examples):
        if len(example.media) == 1:
            [medium] = example.media
            usual = example.prediction.task == task_of([medium.modality])
            if usual and MEDIA[medium.modality].is_spatial:
                by_picture.setdefault(medium, example)
    return in_turn(shuffled(list(by_picture.values())), lambda e: e.prediction.kind)[:count]


def read_gallery(path: Path, data: Path | DataPlace) -> tuple[list[Example], str]:
    """The answers of ``predictions.jsonl`` with what they were given to, and a note on them."""
    if not path.is_file():
        return [], "There is no predictions.jsonl; `omnitune evaluate --predictions` writes it."
    lines = list(read_lines(path))
    problem = ""
    try:
        samples = read_available(data)
        examples = [_example(line, samples) for line in lines]
    except UserError as error:
        problem = f" Questions and media are missing: {error}."
        examples = [_example(line, {}) for line in lines]
    n_right = sum(example.right for example in examples)
    note = (
        f"{n_right:,} of {len(examples):,} generated answers are right. The worst mistakes of each "
        "task come first, then right answers that were chosen blindly. An answer that is compared "
        "word by word is worse if more of its words are wrong. Any other answer is worse if the "
        "model held the reference to be less likely."
    )
    return examples, note + problem


def _example(line: Mapping[str, Any], samples: Mapping[str, Samples]) -> Example:
    """A line of ``predictions.jsonl`` with its question, if the data still holds that."""
    names = ("id", "task", "kind", "reference", "answer", "language", "source")
    texts: dict[str, Any] = {name: str(line.get(name, "")) for name in names}
    number = int(as_number(line.get("number", -1)) or 0)
    loss = as_number(line.get("reference_loss"))
    prediction = Prediction(
        **texts, number=number, reference_loss=loss, references=_texts(line.get("references")),
        choices=tuple((pair[0], pair[1]) for pair in map(_texts, _items(line.get("choices")))
                      if len(pair) == 2),
    )  # fmt: skip
    example = Example(prediction, is_right(prediction), split=str(line.get("split", "")))
    of_source = samples.get(prediction.source)
    question = _find_question(prediction, of_source or ())
    if question is None:
        return example
    media = tuple(p for m in question.messages for p in m.parts if isinstance(p, Media))
    caption = " ".join(m.caption for m in media if not MEDIA[m.modality].is_spatial)
    if exact_match(caption, prediction.reference, prediction.language):
        caption = ""  # it is what was asked for
    text = question.messages[-1].text.strip()
    known = of_source is not None and 0 <= prediction.number < len(of_source)
    place = of_source.pieces[0][0].where(prediction.number) if of_source and known else ""
    return replace(example, question=text, caption=caption, media=media, place=place)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(text for text in _items(value) if isinstance(text, str))


def _find_question(prediction: Prediction, samples: Sequence[Sample]) -> Question | None:
    if not 0 <= prediction.number < len(samples):
        return None
    asked = (prediction.id, prediction.kind, prediction.reference)
    questions = questions_of(samples[prediction.number])
    return next((q for q in questions if (q.id, q.kind, q.reference) == asked), None)


def shuffled(examples: Sequence[Example]) -> list[Example]:
    """In an order of a fixed seed."""
    return random.Random(0).sample(list(examples), len(examples))


def in_turn(examples: Sequence[Example], group: Callable[[Example], str]) -> list[Example]:
    """One of each group in turn, each group in the order given."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(group(example), []).append(example)
    rounds = zip_longest(*(groups[name] for name in sorted(groups)))
    return [example for turn in rounds for example in turn if example is not None]
