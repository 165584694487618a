"""Whether a run came out well, in one sentence that a newcomer understands.

The rules read the final scores of the main split unless they say otherwise. They judge

- **answers**, of each task. Fine: the 95 % interval of the score lies above what guessing the most
  common training answer gets, and the score is at least ``HALFWAY`` from there to all right. Weak:
  above guessing, but less than halfway. Bad: not above guessing. Of an error rate the share that is
  not wrong stands for the score, and saying nothing, which gets every word wrong, for guessing.
  What would be weak or bad is left open where answers are compared as a whole and the references
  are longer than ``LONG`` tokens on the mean: such answers are seldom right to the letter.
- **reliance**, of each modality. Fine: the interval of what a question's own medium gains over
  another sample's lies above 0. Bad: it does not, so the model does not look.
- **language**. Bad: the interval of the change of the text loss lies above 0, and the change is at
  least ``LANGUAGE``. Weak: it lies above 0, but the change is smaller. Fine: it reaches down to 0
  and ends below ``LANGUAGE``.
- **other splits**, of each task. Bad: the score there is not above guessing, as it is on the main
  split. Weak: it is lower by at least ``GAP``, and the two intervals do not meet.
- **follow-up questions**, of each task. Weak: at least ``GAP`` is lost, and the interval of that
  lies above 0.
- **cut answers**, of each task. Weak: at least ``CUT`` of the answers of all splits ran into the
  length limit. Fewer are a note.

Fewer than ``ENOUGH`` questions are too few to say anything, and so are texts whose interval leaves
open whether language was lost. A score without an interval, or whose guess is not known, says
nothing either.

What is bad decides, then what is weak. A run is good only if something is fine that had to be
learnt: answers, reliance, or a text loss that surely fell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnitune.evaluation.metrics import Metric
from omnitune.evaluation.reliance import ENOUGH
from omnitune.evaluation.runs import (
    as_interval,
    as_number,
    as_object,
    main_score,
    splits_of,
    top_split,
)
from omnitune.reporting.tables import write_score
from omnitune.tasks import get_task, headlines

HALFWAY = 0.5  # of the way from guessing to all right
LANGUAGE = 0.1  # nats a token: what the model reads is a tenth less likely to it than before
GAP = 0.1  # of all answers
CUT = 0.01  # of all answers
LONG = 10  # tokens
SAID = 4  # clauses of a sentence, at most

RANKS = BAD, WEAK, FEW, UNKNOWN, FINE, NOTE = "bad", "weak", "few", "unknown", "fine", "note"
_OPENINGS = {
    BAD: "Not good yet",
    FINE: "Good",
    WEAK: "Good for the most part",
    FEW: f"Too few questions to say whether this is good (at least {ENOUGH} of a task are needed)",
    UNKNOWN: "It cannot be said whether this is good",
}
# The same rules, as the page tells them.
RULES = (
    "An answer score is good if it lies clearly above what guessing gets, and at least halfway "
    "from there to all right. Guessing always gives the most common training answer. The model "
    "looks and listens if it answers clearly better with a question's own picture or sound than "
    "with that of another question. Language is lost if the text loss has clearly risen. Clearly "
    "means beyond the confidence interval. Other splits should not do much worse than "
    f"the main one. Fewer than {ENOUGH} questions say nothing: give more records a split that is "
    "held out, such as test."
)
_NOTHING = "the results hold no score that shows it"
# What a model does with a modality's medium.
_SENSES = {
    "image": ("looks at the picture", "does not look at the picture"),
    "audio": ("listens to the sound", "does not listen to the sound"),
}


@dataclass(frozen=True)
class Verdict:
    """What to say of a run.

    Attributes:
        grade: ``fine``, ``weak`` (good, but not all of it) or ``bad``; ``few`` or ``unknown``
            where nothing can be judged.
        sentence: all that matters, in one sentence.
        more: what else was found, a sentence each.
    """

    grade: str
    sentence: str
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes:
        rank: one of ``RANKS``.
        words: a clause, without capital and stop.
        learnt: it is fine, and had to be learnt.
    """

    rank: str
    words: str
    learnt: bool = False


@dataclass(frozen=True)
class _Answers:
    """How a task was answered, in shares of all that could be right.

    Attributes:
        title: of the task.
        guess: what guessing gets; None where it is not known.
        guessing: what guessing is here, and what it gets, in words.
        long: its references are too long to be met to the letter.
        questions: None where their number is not known.
        words: a clause that says the score.
    """

    title: str
    value: float
    interval: tuple[float, float] | None
    guess: float | None
    guessing: tuple[str, str]
    questions: float | None
    words: str
    long: bool

    @property
    def few(self) -> bool:
        return self.questions is not None and self.questions < ENOUGH

    @property
    def beyond_guessing(self) -> bool | None:
        """None where that cannot be said."""
        if self.few or self.interval is None or self.guess is None or self.guess >= 1:
            return None
        return self.interval[0] > self.guess

    @property
    def way(self) -> float:
        """How far from guessing, 0, to all right, 1."""
        guess = self.guess or 0.0
        return (self.value - guess) / (1 - guess) if guess < 1 else 0.0


def judge(results: dict[str, Any]) -> Verdict:
    """Judges a run by the rules that this module begins with.

    Args:
        results: the object of ``results.json``; any of its keys may be missing.
    """
    splits, main = splits_of(results), top_split(results)
    tasks = _answers(splits.get(main, {}))
    answers = [_of_answers(task) for task in tasks.values()]
    senses = _of_reliance(as_object(results.get("reliance")))
    language = _of_language(as_object(results.get("text_guard")))
    others = [
        finding
        for name, scores in splits.items()
        if name != main
        for finding in _of_other_split(tasks, main, _answers(scores), name)
    ]
    follow_ups = _of_follow_ups(as_object(results.get("follow_ups")))
    cut = _of_cut_answers(list(splits.values()))
    # A sentence of fine things has room for the first two tasks, the senses and the language.
    return _verdict([*answers[:2], *senses, *language, *answers[2:], *others, *follow_ups, *cut])


def _verdict(found: Sequence[Finding]) -> Verdict:
    """Puts the findings into words, the worst first."""
    ranked = {rank: [f for f in found if f.rank == rank] for rank in RANKS}
    good = any(finding.learnt for finding in found)
    but: list[Finding] = []
    if ranked[BAD] or (ranked[WEAK] and not good):
        grade, said = BAD, ranked[BAD] or ranked[WEAK]
    elif ranked[WEAK]:
        grade, said, but = WEAK, ranked[FINE], ranked[WEAK][:1]
    elif good:
        grade, said = FINE, ranked[FINE]
    else:
        grade = UNKNOWN if ranked[UNKNOWN] or not ranked[FEW] else FEW
        said = ranked[UNKNOWN] + ranked[FEW]
    said = said[: SAID - len(but)]
    words = "; ".join(finding.words for finding in said) or _NOTHING
    words += "".join(f"; but {finding.words}" for finding in but)
    rest = [f.words for some in ranked.values() for f in some if f not in said and f not in but]
    more = tuple(f"{clause[0].upper()}{clause[1:]}." for clause in rest)
    return Verdict(grade, f"{_OPENINGS[grade]}: {words}.", more)


def _answers(scores: Mapping[str, Any]) -> dict[str, _Answers]:
    """The tasks of a split whose answers were compared, those of the headline first."""
    tasks = as_object(scores.get("tasks"))
    leading = [task.name for task in headlines().values() if task.name in tasks]
    found = {
        task: _task(task, as_object(tasks[task])) for task in dict.fromkeys([*leading, *tasks])
    }
    return {task: answers for task, answers in found.items() if answers}


def _task(task: str, scores: Mapping[str, Any]) -> _Answers | None:
    found = main_score(scores)
    if found is None or not found[0].generated:
        return None
    metric, value = found
    questions, tokens = as_number(scores.get("questions")), as_number(scores.get("tokens"))
    long = metric.whole_answers and bool(questions and tokens and tokens > LONG * questions)
    guess = as_number(scores.get("prior"))
    guessing = ("guessing the most common answer", write_score(guess, metric.unit))
    interval = as_interval(as_object(scores.get("intervals")).get(metric.name))
    words, title = _words(metric, value, task), get_task(task).title
    if metric.lower_is_better:
        value, interval = 1 - value, interval and (1 - interval[1], 1 - interval[0])
        guess = None if guess is None else 1 - guess
    silence = metric.silence
    if silence is not None and (guess is None or guess <= silence):
        guess, guessing = silence, ("saying nothing", "")
    return _Answers(title, value, interval, guess, guessing, questions, words, long)


def _words(metric: Metric, value: float, task: str) -> str:
    """A clause that says a score."""
    title = get_task(task).title
    return f"it gets {write_score(value, metric.unit)} {metric.words} on {title}"


def _of_answers(task: _Answers) -> Finding:
    if task.few:
        return Finding(FEW, f"the score for {task.title} rests on {_few(task.questions)}")
    beyond = task.beyond_guessing
    if beyond is None:
        if task.guess is None:
            missing = "what guessing would get is not known"
        elif task.guess >= 1:
            missing = "guessing gets them all right"
        else:
            missing = "how sure that is, is not known"
        return Finding(UNKNOWN, f"{task.words}, but {missing}")
    guessing, score = task.guessing
    if beyond and _at_least(task.way, HALFWAY):
        return Finding(FINE, task.words + f" ({guessing}: {score})" * bool(score), learnt=True)
    if task.long:
        return Finding(UNKNOWN, f"{task.words}, but long answers are seldom right to the letter")
    if beyond:
        return Finding(WEAK, f"{task.words}, less than halfway from {_guess(task)} to all right")
    return Finding(BAD, f"{task.words}, {_no_better(task)}")


def _few(questions: float | None) -> str:
    count = f"{questions:.0f} question{'s' * (questions != 1)}"
    return f"{count} only"


def _at_least(value: float, least: float) -> bool:
    return value > least - 1e-9  # 0.9 less 0.8 is a tenth, though not in binary


def _no_better(task: _Answers) -> str:
    above = task.guess is not None and task.value > task.guess
    return f"{'not clearly' if above else 'no'} better than {_guess(task)}"


def _guess(task: _Answers) -> str:
    guessing, score = task.guessing
    return f"{guessing} ({score})" if score else guessing


def _of_reliance(found: Mapping[str, Any]) -> list[Finding]:
    """A clause for what is ignored, and one for all the modalities that are not."""
    bad, used, few = [], [], []
    for name, entry in found.items():
        values = as_object(entry)
        interval, questions = (
            as_interval(values.get("interval")),
            as_number(values.get("questions")),
        )
        does, does_not = _SENSES.get(name, (f"uses the {name}", f"does not use the {name}"))
        if questions is not None and questions < ENOUGH:
            few.append(Finding(FEW, f"whether it {does} rests on {_few(questions)}"))
        elif interval and interval[0] > 0:
            used.append(does)
        elif interval:
            words = f"it {does_not}: with that of another question it answers as well"
            bad.append(Finding(BAD, words))
    fine = [Finding(FINE, f"it {' and '.join(used)}", learnt=True)] if used else []
    return [*bad, *fine, *few]


def _of_language(guard: Mapping[str, Any]) -> Iterator[Finding]:
    now, start = as_number(guard.get("loss")), as_number(guard.get("start"))
    interval = as_interval(guard.get("interval"))
    if now is None or start is None or interval is None:
        return
    change = f"text loss {write_score(now, 'loss')}, before {write_score(start, 'loss')}"
    low, high = interval
    if low > 0 and _at_least(now - start, LANGUAGE):
        yield Finding(BAD, f"language was lost ({change})")
    elif low > 0:
        yield Finding(WEAK, f"language became a little worse ({change})")
    elif high < 0:
        yield Finding(FINE, f"language became better ({change})", learnt=True)
    elif high < LANGUAGE:
        yield Finding(FINE, "language is as good as before")
    else:
        yield Finding(FEW, f"the texts are too few to say whether language was lost ({change})")


def _of_other_split(
    tasks: Mapping[str, _Answers], main: str, there: Mapping[str, _Answers], split: str
) -> Iterator[Finding]:
    for name, other in there.items():
        here = tasks.get(name)
        if here is None or here.few or other.few or not (here.interval and other.interval):
            continue
        if here.beyond_guessing and other.beyond_guessing is False:
            words = f"on the split {split} {other.words}, {_no_better(other)}"
            yield Finding(BAD, words)
        elif _at_least(here.value - other.value, GAP) and other.interval[1] < here.interval[0]:
            yield Finding(WEAK, f"on the split {split} {other.words}, much worse than on {main}")


def _of_follow_ups(found: Mapping[str, Any]) -> Iterator[Finding]:
    for task, entry in found.items():
        values = as_object(entry)
        after, alone = main_score(values), as_number(values.get("alone"))
        interval, questions = (
            as_interval(values.get("interval")),
            as_number(values.get("questions")),
        )
        if after is None or alone is None or interval is None or (questions or 0) < ENOUGH:
            continue
        metric, value = after
        lost = value - alone if metric.lower_is_better else alone - value
        if interval[0] > 0 and _at_least(lost, GAP):
            words = f"after another question {_words(metric, value, task)}"
            yield Finding(WEAK, f"{words}, and {write_score(alone, metric.unit)} without one")


def _of_cut_answers(splits: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Answers that ran into the length limit, by task over all splits."""
    tasks = [as_object(scores.get("tasks")) for scores in splits]
    for task in dict.fromkeys(name for column in tasks for name in column):
        rows = [as_object(column.get(task)) for column in tasks]
        cut, asked = (
            sum(as_number(row.get(key)) or 0.0 for row in rows) for key in ("at_limit", "questions")
        )
        if cut > 0:
            words = f"{cut:,.0f} of {asked:,.0f} answers of {task} ran into the length limit"
            yield Finding(WEAK if cut >= CUT * asked else NOTE, words)
