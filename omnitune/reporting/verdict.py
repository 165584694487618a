"""Whether a run came out well, in one sentence that a newcomer understands.

Each rule is a function below and reads the final scores of the main split unless it says otherwise.
What rests on fewer than ``ENOUGH`` questions, or on a score without an interval, says nothing. What
is bad decides, then what is weak. A run is good only if something is fine that had to be learnt:
answers, reliance, or a text loss that surely fell.
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
from omnitune.media.registry import MEDIA
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
    "looks and listens if it answers clearly better with a question's own media than with those "
    "of another question. Language is lost if the text loss has clearly risen. Clearly "
    "means beyond the confidence interval. Other splits should not do much worse than "
    f"the main one. Fewer than {ENOUGH} questions say nothing: give more records a split that is "
    "held out, such as test."
)
_NOTHING = "the results hold no score that shows it"


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
        guessing: what guessing is here.
        guess_words: what it gets, in words.
        questions: None where their number is not known.
        words: a clause that says the score.
        long: its references are too long to be met to the letter.
    """

    title: str
    value: float
    interval: tuple[float, float] | None
    guess: float | None
    guessing: str
    guess_words: str
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
    def no_better(self) -> str:
        above = self.guess is not None and self.value > self.guess
        return f"{'not clearly' if above else 'no'} better than {self.guessing}{self.guess_words}"


def judge(results: dict[str, Any]) -> Verdict:
    """Judges a run.

    Args:
        results: the object of ``results.json``; any of its keys may be missing.
    """
    splits, main = splits_of(results), top_split(results)
    tasks = _answers(splits.get(main, {}))
    answers = [_of_answers(task) for task in tasks.values()]
    senses = _of_reliance(as_object(results, "reliance"))
    language = _of_language(as_object(results, "text_guard"))
    others = [
        finding
        for name, scores in splits.items()
        if name != main
        for finding in _of_other_split(tasks, main, _answers(scores), name)
    ]
    follow_ups = _of_follow_ups(as_object(results, "follow_ups"))
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
        grade, said, but = WEAK, ranked[FINE], [*ranked[WEAK][:1], *ranked[FEW][:1]]
    elif good:
        grade, said, but = FINE, ranked[FINE], ranked[FEW][:1]  # not hidden behind what is good
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
    tasks = as_object(scores, "tasks")
    leading = [task.name for task in headlines().values() if task.name in tasks]
    names = dict.fromkeys([*leading, *tasks])
    found = {name: _task(name, as_object(tasks, name)) for name in names}
    return {name: answers for name, answers in found.items() if answers}


def _task(task: str, scores: Mapping[str, Any]) -> _Answers | None:
    """Of an error rate the share that is not wrong; silence, all wrong, stands for guessing."""
    found = main_score(scores)
    if found is None or not found[0].generated:
        return None
    metric, value = found
    questions, tokens = as_number(scores, "questions"), as_number(scores, "tokens")
    guess, interval = as_number(scores, "prior"), as_interval(scores, "intervals", metric.name)
    guess_words = f" ({write_score(guess, metric.unit)})"
    guessing = "guessing the most common answer"
    words = _words(metric.shown_as(as_object(scores, "normalisers")), value, task)
    if metric.lower_is_better:
        value, interval = 1 - value, interval and (1 - interval[1], 1 - interval[0])
        guess = None if guess is None else 1 - guess
    if metric.silence is not None and (guess is None or guess <= metric.silence):
        guess, guessing, guess_words = metric.silence, "saying nothing", ""
    return _Answers(
        get_task(task).title, value, interval, guess, guessing, guess_words, questions, words,
        long=metric.whole_answers and bool(questions and tokens and tokens > LONG * questions),
    )  # fmt: skip


def _words(metric: Metric, value: float, task: str) -> str:
    """A clause that says a score."""
    return f"it gets {write_score(value, metric.unit)} {metric.words} on {get_task(task).title}"


def _few(what: str, questions: float | None) -> Finding:
    count = f"{questions:.0f} question{'s' * (questions != 1)}"
    return Finding(FEW, f"{what} rests on {count} only")


def _at_least(value: float, least: float) -> bool:
    return value > least - 1e-9  # 0.9 less 0.8 is a tenth, though not in binary


def _of_answers(task: _Answers) -> Finding:
    """Fine: the interval lies above guessing, the score at least ``HALFWAY`` to all right.

    Weak: above guessing, but less than halfway. Bad: not above guessing. Both are left open where
    whole answers are longer than ``LONG`` tokens on the mean: they are seldom right to the letter.
    """
    if task.few:
        return _few(f"the score for {task.title}", task.questions)
    if task.beyond_guessing is None or task.guess is None:
        missing = "what guessing would get" if task.guess is None else "whether guessing does worse"
        return Finding(UNKNOWN, f"{task.words}, but {missing} is not known")
    halfway = _at_least((task.value - task.guess) / (1 - task.guess), HALFWAY)
    if task.beyond_guessing and halfway:
        guess = task.guess_words.replace(" (", f" ({task.guessing}: ")
        return Finding(FINE, task.words + guess, learnt=True)
    if task.long:
        return Finding(UNKNOWN, f"{task.words}, but long answers are seldom right to the letter")
    if task.beyond_guessing:
        start = f"{task.guessing}{task.guess_words}"
        return Finding(WEAK, f"{task.words}, less than halfway from {start} to all right")
    return Finding(BAD, f"{task.words}, {task.no_better}")


def _of_reliance(found: Mapping[str, Any]) -> list[Finding]:
    """A clause for each medium that is ignored (bad), and one for all that are not (fine).

    A medium is used if the interval of what a question's own gains over another's lies above 0.
    """
    bad, used, few = [], [], []
    for name in found:
        interval = as_interval(found, name, "interval")
        questions = as_number(found, name, "questions")
        medium = MEDIA.get(name)
        use = f"{medium.verb} the {medium.noun}" if medium else f"use the {name}"
        uses = use.replace(" ", "s ", 1)
        if questions is not None and questions < ENOUGH:
            few.append(_few(f"whether it {uses}", questions))
        elif interval and interval[0] > 0:
            used.append(uses)
        elif interval:
            words = f"it does not {use}: with that of another question it answers as well"
            bad.append(Finding(BAD, words))
    fine = [Finding(FINE, f"it {' and '.join(used)}", learnt=True)] if used else []
    return [*bad, *fine, *few]


def _of_language(guard: Mapping[str, Any]) -> Iterator[Finding]:
    """Bad: the interval of the change of the text loss lies above 0, the change is ``LANGUAGE``.

    Weak: the change is smaller. Fine: the interval reaches down to 0 and ends below ``LANGUAGE``.
    Of few records the interval is too narrow, and nothing is said.
    """
    now, start = as_number(guard, "loss"), as_number(guard, "start")
    interval = as_interval(guard, "interval")
    if now is None or start is None or interval is None:
        return
    change = f"text loss {write_score(now, 'loss')}, before {write_score(start, 'loss')}"
    low, high = interval
    records = as_number(guard, "records")
    if records is not None and records < ENOUGH:
        yield Finding(FEW, f"the texts are too few to say whether language was lost ({change})")
    elif low > 0 and _at_least(now - start, LANGUAGE):
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
    """Bad: no longer above guessing. Weak: lower by ``GAP``, and the intervals do not meet."""
    for name, other in there.items():
        here = tasks.get(name)
        if here is None or here.few or other.few or not (here.interval and other.interval):
            continue
        words = f"on the split {split} {other.words}"
        if here.beyond_guessing and other.beyond_guessing is False:
            yield Finding(BAD, f"{words}, {other.no_better}")
        elif _at_least(here.value - other.value, GAP) and other.interval[1] < here.interval[0]:
            yield Finding(WEAK, f"{words}, much worse than on {main}")


def _of_follow_ups(found: Mapping[str, Any]) -> Iterator[Finding]:
    """Weak: at least ``GAP`` is lost, and the interval of that lies above 0."""
    for task in found:
        after, alone = main_score(as_object(found, task)), as_number(found, task, "alone")
        interval = as_interval(found, task, "interval")
        questions = as_number(found, task, "questions") or 0
        if after is None or alone is None or interval is None or questions < ENOUGH:
            continue
        metric, value = after
        lost = value - alone if metric.lower_is_better else alone - value
        if interval[0] > 0 and _at_least(lost, GAP):
            words = f"after another question {_words(metric, value, task)}"
            yield Finding(WEAK, f"{words}, and {write_score(alone, metric.unit)} without one")


def _of_cut_answers(splits: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Weak: ``CUT`` of a task's answers on all splits ran into the length limit; a note: fewer."""
    for task in dict.fromkeys(name for scores in splits for name in as_object(scores, "tasks")):
        cut, asked = (
            sum(as_number(scores, "tasks", task, key) or 0.0 for scores in splits)
            for key in ("at_limit", "questions")
        )
        if cut > 0:
            words = f"{cut:,.0f} of {asked:,.0f} answers of {task} ran into the length limit"
            yield Finding(WEAK if cut >= CUT * asked else NOTE, words)
