"""The evaluation tasks: what a record of which media is scored by, and how that is shown.

A new task is one more entry here. What a metric does with the answers is in ``evaluation.metrics``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from omnitune.sample import UserError

CHOICE = "choice"  # the task of a question that has options, where the record names none
ANY_QUESTION = "qa"  # what a record may call its task, whatever its media: a question about them

# Keys of results.json that are no task's headline.
_RESULT_KEYS = (
    "loss", "token_acc", "exact_match", "wer", "cer", "vqa", "anls", "choice", "chrf", "rouge_l",
    "bleu", "tokens", "intervals", "tasks", "splits", "scored_split", "scored_with", "warnings",
    "follow_ups", "reliance", "text_guard", "seconds", "truncation", "mix", "blend", "precision",
    "compiled", "device", "cores", "receipt", "run_hash", "taught", "bad_samples", "best",
)  # fmt: skip
RESULT_KEYS = frozenset(_RESULT_KEYS)


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        name: as records and results name it.
        media: those that a sample of it holds, no more and no fewer; None: any, or none at all.
        metric: key of ``evaluation.metrics.METRICS``.
        also: keys of further metrics that are told beside it.
        title: its questions in plain words, as a plural ("questions about an image").
        headline: key in the results under which its score stands for the whole; "" for none.
        console: what a line of the terminal calls the headline; "" if made of its key.
        answer_limit: tokens that an answer may have; None: as the references need.
        is_default: a record of these media that names no task has this one.
        aliases: other words by which such a record may name it. They go before names.
        question: of a record of another format that asks none; "" where none is needed. ``{noun}``
            in it is what its medium is called.
    """

    name: str
    media: frozenset[str] | None
    metric: str
    title: str
    headline: str = ""
    console: str = ""
    answer_limit: int | None = None
    is_default: bool = True
    aliases: tuple[str, ...] = ()
    question: str = ""
    also: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name as words: "image QA"."""
        return _as_words(self.name)

    @property
    def console_label(self) -> str:
        """What a line of the terminal calls the headline: "Image QA acc"."""
        words = self.console or _as_words(self.headline)
        return words[:1].upper() + words[1:]


class Tasks(dict[str, Task]):
    """Tasks by name; one that would be scored wrongly is refused when it is registered.

    Attributes:
        metrics: the metrics that there are, once they are known.
    """

    metrics: Collection[str] | None = None

    def __setitem__(self, name: str, task: Task) -> None:
        """Registers a task, or replaces the one of that name.

        Raises:
            UserError: the headline stands for something else, or the metric is none.
        """
        headline = task.headline
        other = next((o.name for n, o in self.items() if n != name and o.headline == headline), "")
        if headline and other:
            raise UserError(
                f"task {name}: its headline {headline!r} is that of the task {other}, and would "
                "replace its score in the results; give it a headline of its own"
            )
        if headline in RESULT_KEYS:
            raise UserError(
                f"task {name}: its headline {headline!r} is a key of the results already; give it "
                f"one of its own, such as {name}_acc"
            )
        self._check_metric(name, task)
        super().__setitem__(name, task)

    def update(self, *given: Any, **named: Task) -> None:
        """As that of a dictionary; each task is checked."""
        for name, task in dict(*given, **named).items():
            self[name] = task

    def __ior__(self, given: Any) -> Tasks:  # type: ignore[override,misc]
        """As ``update``."""
        self.update(given)
        return self

    def setdefault(self, name: str, default: Task) -> Task:
        """As that of a dictionary; a new task is checked."""
        if name not in self:
            self[name] = default
        return self[name]

    def know_metrics(self, metrics: Collection[str]) -> None:
        """Holds the tasks, now and later, against the metrics that there are; raises UserError.

        Args:
            metrics: the registry itself, which may grow.
        """
        self.metrics = metrics
        for name, task in self.items():
            self._check_metric(name, task)

    def _check_metric(self, name: str, task: Task) -> None:
        for metric in (task.metric, *task.also):
            if self.metrics is None or metric in self.metrics:
                continue
            raise UserError(
                f"task {name}: its metric {metric!r} is none; known: "
                f"{', '.join(self.metrics)}; a new one is registered in METRICS before its task"
            )


_TEXT, _IMAGE, _AUDIO = frozenset[str](), frozenset({"image"}), frozenset({"audio"})
_OVERLAP = ("rouge_l", "bleu")
_TASKS = (
    Task("text", _TEXT, "token_acc", "text conversations", "text_acc"),
    Task("image_qa", _IMAGE, "exact_match", "questions about an image", "image_qa_acc"),
    Task(
        "caption", _IMAGE, "exact_match", "captions of an image", is_default=False,
        question="Describe the picture.",
    ),
    Task(
        "transcription", _AUDIO, "wer", "transcripts of speech", "audio_wer",
        console="audio transcription WER", is_default=False, question="Transcribe the speech.",
    ),
    # "qa" is a name of this one, so that it is none of a transcription of the same kind.
    Task("audio_qa", _AUDIO, "exact_match", "questions about a sound", aliases=(ANY_QUESTION,)),
    # A transcription beside an image is a question about both.
    Task(
        "image_audio_qa", _IMAGE | _AUDIO, "exact_match", "questions about an image and a sound",
        aliases=("transcription",),
    ),
    # Those of any media follow, so that the tasks of certain ones are the defaults.
    Task(
        "vqa", None, "vqa", "questions that several people answered", "vqa_acc",
        console="VQA accuracy", is_default=False,
    ),
    Task(
        "anls", None, "anls", "questions about what is written", "anls_score",
        console="ANLS", is_default=False,
    ),
    Task(
        CHOICE, None, "choice", "multiple-choice questions", "choice_acc",
        console="choice accuracy", is_default=False,
    ),
    # A record that names its task "caption" has this one: there are many right captions. Only a
    # kind, as the embedded corpus gives, means the task of that name, of the one right caption.
    Task(
        "captioning", None, "chrf", "captions in free words", "caption_chrf",
        console="caption chrF", is_default=False, aliases=("caption",), also=_OVERLAP,
        question="Describe the {noun}.",
    ),
    Task(
        "translation", None, "chrf", "translations", "translation_chrf",
        console="translation chrF", is_default=False, also=_OVERLAP,
        question="Translate what is said.",
    ),
)  # fmt: skip
TASKS = Tasks()
for _task in _TASKS:
    TASKS[_task.name] = _task


def get_task(name: str) -> Task:
    """The task of a name; one that is not registered is scored by exact match."""
    return TASKS.get(name) or Task(name, frozenset(), "exact_match", f"questions of {name}")


def tasks_of(media: Collection[str]) -> list[Task]:
    """The tasks of a sample that holds these media, the default first, those of any media last.

    Where none is registered, one is made of the media's names, such as ``depth_thermal_qa``.
    """
    held = frozenset(media)
    found = [task for task in TASKS.values() if task.media == held]
    derived = [] if found else [get_task("_".join([*sorted(media), ANY_QUESTION]))]
    of_any = [task for task in TASKS.values() if task.media is None]
    return [*derived, *sorted(found, key=lambda task: not task.is_default), *of_any]


def task_names(media: Collection[str]) -> tuple[str, ...]:
    """What a record with these media may name as its task."""
    tasks = tasks_of(media)
    aliases = [alias for task in tasks for alias in task.aliases]
    return tuple(dict.fromkeys([ANY_QUESTION, *(task.name for task in tasks), *aliases]))


def task_of(media: Collection[str], named: str = "", kind: str = "") -> str:
    """The task of a question: the one that the record names, else its kind's, else the default.

    Args:
        media: names of those that its sample holds; its source does not matter.
        named: the record's ``task``; "" for none.
        kind: of the question.
    """
    tasks = tasks_of(media)
    if named:
        meant = [task for task in tasks if named in task.aliases]
        meant += [task for task in tasks if named == task.name]
        if meant:
            return meant[0].name
    # A kind is a word of the user's own, and never means a task of any media.
    of_kind = (task for task in tasks if kind == task.name and task.media is not None)
    return next(of_kind, tasks[0]).name


def headlines() -> dict[str, Task]:
    """The tasks whose scores stand for the whole, by their key in the results."""
    return {task.headline: task for task in TASKS.values() if task.headline}


def _as_words(name: str) -> str:
    capitals = {"qa": "QA", "wer": "WER", "vqa": "VQA", "anls": "ANLS"}
    return " ".join(capitals.get(word, word) for word in name.split("_"))
