"""The evaluation tasks: what a record of which media is scored by, and how that is shown.

A new task is one more entry here. What a metric does with the answers is in ``evaluation.metrics``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from omnitune.sample import UserError

ANY_QUESTION = "qa"  # what a record may call its task, whatever its media: a question about them

# Keys of results.json that are no task's headline.
_RESULT_KEYS = (
    "loss", "token_acc", "exact_match", "wer", "tokens", "intervals", "tasks", "splits",
    "scored_split", "warnings", "follow_ups", "reliance", "text_guard", "seconds", "truncation",
    "mix", "blend", "precision", "compiled", "device", "cores", "receipt", "run_hash", "taught",
)  # fmt: skip
RESULT_KEYS = frozenset(_RESULT_KEYS)


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        name: as records and results name it.
        media: those that a sample of it holds, no more and no fewer.
        metric: key of ``evaluation.metrics.METRICS``.
        title: its questions in plain words, as a plural ("questions about an image").
        headline: key in the results under which its score stands for the whole; "" for none.
        console: what a line of the terminal calls the headline; "" if made of its key.
        answer_limit: tokens that an answer may have; None: as the references need.
        is_default: a record of these media that names no task has this one.
        aliases: other words by which such a record may name it.
    """

    name: str
    media: frozenset[str]
    metric: str
    title: str
    headline: str = ""
    console: str = ""
    answer_limit: int | None = None
    is_default: bool = True
    aliases: tuple[str, ...] = ()

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

    def know_metrics(self, metrics: Collection[str]) -> None:
        """Holds the tasks, now and later, against the metrics that there are; raises UserError.

        Args:
            metrics: the registry itself, which may grow.
        """
        self.metrics = metrics
        for name, task in self.items():
            self._check_metric(name, task)

    def _check_metric(self, name: str, task: Task) -> None:
        if self.metrics is not None and task.metric not in self.metrics:
            raise UserError(
                f"task {name}: its metric {task.metric!r} is none; known: "
                f"{', '.join(self.metrics)}; a new one is registered in METRICS before its task"
            )


_TEXT, _IMAGE, _AUDIO = frozenset[str](), frozenset({"image"}), frozenset({"audio"})
_TASKS = (
    Task("text", _TEXT, "token_acc", "text conversations", "text_acc"),
    Task("image_qa", _IMAGE, "exact_match", "questions about an image", "image_qa_acc"),
    Task("caption", _IMAGE, "exact_match", "captions of an image", is_default=False),
    Task(
        "transcription", _AUDIO, "wer", "transcripts of speech", "audio_wer",
        console="audio transcription WER", is_default=False,
    ),
    # "qa" is a name of this one, so that it is none of a transcription of the same kind.
    Task("audio_qa", _AUDIO, "exact_match", "questions about a sound", aliases=(ANY_QUESTION,)),
    # A transcription beside an image is a question about both.
    Task(
        "image_audio_qa", _IMAGE | _AUDIO, "exact_match", "questions about an image and a sound",
        aliases=("transcription",),
    ),
)  # fmt: skip
TASKS = Tasks()
for _task in _TASKS:
    TASKS[_task.name] = _task


def get_task(name: str) -> Task:
    """The task of a name; one that is not registered is scored by exact match."""
    return TASKS.get(name) or Task(name, frozenset(), "exact_match", f"questions of {name}")


def tasks_of(media: Collection[str]) -> list[Task]:
    """The tasks of a sample that holds these media, the default first.

    Where none is registered, one is made of the media's names, such as ``depth_thermal_qa``.
    """
    found = [task for task in TASKS.values() if task.media == frozenset(media)]
    derived = [] if found else [get_task("_".join([*sorted(media), ANY_QUESTION]))]
    return derived or sorted(found, key=lambda task: not task.is_default)


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
    for word in filter(None, (named, kind)):
        for task in tasks:
            if word == task.name or (word == named and word in task.aliases):
                return task.name
    return tasks[0].name


def headlines() -> dict[str, Task]:
    """The tasks whose scores stand for the whole, by their key in the results."""
    return {task.headline: task for task in TASKS.values() if task.headline}


def _as_words(name: str) -> str:
    capitals = {"qa": "QA", "wer": "WER"}
    return " ".join(capitals.get(word, word) for word in name.split("_"))
