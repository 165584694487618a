"""Whether a model looks and listens: its scores again with another sample's medium, and with none.

A thinker that answers from the question alone can reach a high score and a low loss. What the media
are worth to it is the difference between its score with each question's own medium and with that of
another sample, both being equally usual pictures or sounds (Goyal et al. 2017 balanced VQA against
exactly this; permuting an input to see what it is worth: Breiman 2001, "Random forests").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from omnitune.data.loader import SampleReader
from omnitune.evaluation.bootstrap import Ratio, Records
from omnitune.evaluation.metrics import METRICS, metric_of
from omnitune.evaluation.normalise import num_words
from omnitune.evaluation.scoring import answer, answer_ratio, pick, questions_of, token_totals
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Sample, UserError
from omnitune.tasks import TASKS, get_task

# Longer references are seldom met to the letter, so that exact match would say nothing.
SHORT_ANSWER = 5
# From so many questions on a warning is worth reading.
ENOUGH = 20


@dataclass(frozen=True)
class AblationSet:
    """One modality's questions with own media, with other ones and with none.

    Attributes:
        measure: name of a metric: the task's own, or ``loss``.
        own, swapped, none: the same samples in the same order.
    """

    modality: str
    task: str
    measure: str
    own: list[Sample]
    swapped: list[Sample]
    none: list[Sample]

    @property
    def questions(self) -> int:
        """How many questions are asked three times."""
        return sum(len(questions_of(single)) for single in self.own)


def make_trials(
    reader: SampleReader, singles: Sequence[Sample], max_questions: int, seed: int = 0
) -> list[AblationSet]:
    """For each modality of a model the task that stands for it, with other media.

    Args:
        reader: of the model.
        singles: held-out samples as ``pick`` gives them.
        max_questions: of each modality, a fixed choice of the seed.

    Returns:
        the trials; none of a modality with fewer than two different media.
    """
    trials = []
    for name in reader.modalities:
        task = standing_for(name, singles)
        chosen = pick(singles, max_questions, seed, [task]) if task else []
        other = swapped(name, chosen, seed)
        if task is None or not other:
            continue
        variants = [
            (sample, shown(sample, other), shown(sample, dict.fromkeys(other))) for sample in chosen
        ]
        # Another's medium may be so much longer that the sample does not fit any more.
        fitting = [
            same
            for same in variants
            if not keeps(name, *same[:2]) and all(fits(reader, variant) for variant in same)
        ]
        if fitting:
            own, swap, none = map(list, zip(*fitting, strict=True))
            trials.append(AblationSet(name, task, _measure(task, own), own, swap, none))
    return trials


def reliance(
    model: OmniModel,
    reader: SampleReader,
    trials: Sequence[AblationSet],
    on_progress: Callable[[int], None] = lambda n: None,
) -> dict[str, dict[str, Any]]:
    """Scores each trial three times.

    Args:
        model: in evaluation mode.
        on_progress: called with the number of questions just scored.

    Returns:
        by modality ``task``, ``measure``, the scores ``own``, ``swapped`` and ``none``,
        ``questions``, ``gain`` (how much better own is than swapped) and its ``interval`` (95 %,
        paired bootstrap).
    """
    found = {}
    for trial in trials:
        own, other, none = (
            _score(model, reader, trial, singles, on_progress)
            for singles in (trial.own, trial.swapped, trial.none)
        )
        less = METRICS[trial.measure].lower_is_better
        gain = other.minus(own) if less else own.minus(other)
        found[trial.modality] = {
            "task": trial.task,
            "measure": trial.measure,
            "own": own.value,
            "swapped": other.value,
            "none": none.value,
            "questions": trial.questions,
            "gain": gain.value,
            "interval": gain.interval(),
        }
    return found


def standing_for(modality: str, singles: Iterable[Sample]) -> str | None:
    """The task that shows best what a modality is worth: that modality alone, a headline task."""
    held: dict[str, set[str]] = {}
    for single in singles:
        held.setdefault(single.task, {medium.modality for medium in single.media})
    order = [*TASKS, *sorted(held.keys() - TASKS.keys())]
    shown = [task for task in order if modality in held.get(task, ())]
    return min(shown, key=lambda t: (len(held[t]), not get_task(t).headline), default=None)


def swapped(modality: str, samples: Sequence[Sample], seed: int) -> dict[Media, Media]:
    """Another medium for each one: never itself, each given once; empty if there is one.

    The distinct media in an order of the seed, each giving way to the next; where that would be
    one that the same sample shows, to the one after it, and so on, if there is a better way.
    """
    together: dict[Media, set[Media]] = {}
    for sample in samples:
        media = dict.fromkeys(m for m in sample.media if m.modality == modality)
        for medium in media:
            together.setdefault(medium, set()).update(media)
    order = random.Random(seed).sample(list(together), len(together))
    best, least = {}, len(order)
    for step in range(1, len(order)):
        other = dict(zip(order, order[step:] + order[:step], strict=True))
        kept = sum(new in together[medium] for medium, new in other.items())
        if kept < least:
            best, least = other, kept
        if not kept:
            break
    return best


def keeps(modality: str, sample: Sample, other: Sample) -> bool:
    """Whether any of a sample's media of one kind are in the sample with others in their place."""
    one, two = ({m for m in s.media if m.modality == modality} for s in (sample, other))
    return not one.isdisjoint(two)


def shown(sample: Sample, instead: Mapping[Media, Media | None]) -> Sample:
    """A sample with other media in place of its own; one to be replaced by None is left out."""
    messages = []
    for message in sample.messages:
        parts = [instead.get(p, p) if isinstance(p, Media) else p for p in message.parts]
        messages.append(replace(message, parts=tuple(p for p in parts if p is not None)))
    return replace(sample, messages=tuple(messages))


def gains(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The number that stands for each modality: ``<modality>_reliance``."""
    return {f"{name}_reliance": entry["gain"] for name, entry in found.items()}


def ignored(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning for each modality whose gain is not above zero beyond the noise."""
    return [
        f"the model may be ignoring the {name}: {in_words(entry)} on {entry['questions']} "
        f"questions of {entry['task']} (95 % interval of the gain {entry['interval'][0]:.3f} to "
        f"{entry['interval'][1]:.3f}); if it stays so, the {name} may not be needed for these "
        f"questions, or its projector learns too slowly, or its encoder does not tell them apart"
        for name, entry in found.items()
        if entry["interval"] and entry["questions"] >= ENOUGH and entry["interval"][0] <= 0
    ]


def in_words(entry: Mapping[str, Any]) -> str:
    """A modality's three scores."""
    metric = METRICS[entry["measure"]]
    own, other, none = (metric.write(entry[key]) for key in ("own", "swapped", "none"))
    return f"{metric.label} {own}, with another's {other}, without {none}"


def _measure(task: str, singles: Sequence[Sample]) -> str:
    """The task's metric; the loss where none are compared, or long answers as a whole."""
    metric = metric_of(task)
    references = [q.reference for single in singles for q in questions_of(single)]
    short = median(num_words(reference) for reference in references) <= SHORT_ANSWER
    return metric.name if metric.generated and (short or not metric.whole_answers) else "loss"


def fits(reader: SampleReader, single: Sample) -> bool:
    """Whether a sample is within the reader's limit."""
    try:
        reader.item(single)
    except UserError:
        return False
    return True


def _score(
    model: OmniModel,
    reader: SampleReader,
    trial: AblationSet,
    singles: Sequence[Sample],
    on_progress: Callable[[int], None],
) -> Ratio:
    number = Records()
    records = [number(single) for single in trial.own]
    if trial.measure == "loss":
        totals = token_totals(model, [reader.item(single) for single in singles])
        nll, _, count = np.array(totals, dtype=float).T
        on_progress(trial.questions)
        return Ratio(nll, count, np.array(records, dtype=int))
    asked = [(q, n) for s, n in zip(singles, records, strict=True) for q in questions_of(s)]
    answers = answer(model, reader, [question for question, _ in asked], on_progress)
    return answer_ratio(trial.task, answers, [record for _, record in asked])[1]
