"""What a sample is: one conversation and the media it refers to. The vocabulary of the package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROLES = ("system", "user", "assistant")

# Of a language, as BCP 47 and locales write it: hi, pt-BR, zh_Hant.
LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")


class UserError(Exception):
    """A mistake of the user's: shown as one message without a traceback, exit status 2."""


def join_texts(texts: Iterable[str]) -> str:
    """Texts that follow each other as one; no two words become one."""
    whole = ""
    for text in texts:
        apart = not whole or whole[-1].isspace() or not text or text[0].isspace()
        whole += text if apart else f" {text}"
    return whole


class ContentPart:
    """A piece of a message. The template renders texts and media, other parts themselves."""

    def positions(
        self, encode: Callable[[str], Sequence[int]], id_of: Callable[[str], int]
    ) -> Iterable[Sequence[int]]:
        """The token ids at each position that it takes: of several the first is the row's own."""
        return ()


@dataclass(frozen=True)
class Text(ContentPart):
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True)
class Described(Text):
    """What a medium would show or say, in words and without the medium: its caption, transcript.

    Attributes:
        place: as of ``Media``.
    """

    modality: str
    place: int = field(default=0, compare=False)

    @classmethod
    def of(cls, modality: str, words: str) -> Described:
        """The words as a sentence."""
        return cls(words.rstrip(". ") + ". ", modality)

    @property
    def words(self) -> str:
        """The sentence without its full stop."""
        return self.text.rstrip(". ")


@dataclass(frozen=True)
class Media(ContentPart):
    """A medium in a message, by reference.

    Attributes:
        modality: key of the registry.
        caption: what it shows or says, in words (caption, transcript); "" where nobody says.
        place: its number among what the record lists, which a tag may show in another order.
    """

    modality: str
    path: Path
    caption: str = field(default="", compare=False)
    place: int = field(default=0, compare=False)


@dataclass(frozen=True)
class BackReference(ContentPart):
    """Where an independent question shows what another one has shown before it.

    Asked alone it shows it there; in a conversation the part stands once, and nothing here.
    """

    part: Media | Described


@dataclass(frozen=True)
class Message:
    """One turn; ``kind`` and ``task`` group an assistant turn's scores.

    Attributes:
        weight: of an assistant turn in the loss and the scores: 0 is context only.
        references: every right answer, repeated as often as it was given, the turn's own text
            among them; empty where that is the only one.
        choices: key and text of each option of the question.
    """

    role: str
    parts: tuple[ContentPart, ...]
    kind: str = ""
    task: str = ""
    weight: int = 1
    references: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def learnt(self) -> bool:
        """Whether it is an answer that is to be learnt, and scored."""
        return self.role == "assistant" and self.weight != 0

    @property
    def text(self) -> str:
        """The text parts, joined; no two words become one where a medium stands between them."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Text):
            return self.parts[0].text
        return join_texts(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True)
class Sample:
    """One conversation with the media it refers to.

    Attributes:
        id: the key it came from, for error messages and predictions.
        source: key of ``sources.SOURCES``.
        messages: the turns, media included.
        task: what is scored (``text``, ``image_qa``, ``transcription``, ...).
        split: ``train``, ``validation``, ``test`` or any other held-out name.
        kind: finer group of the task; may be empty.
        independent_turns: the question-answer pairs do not build on each other, so that each is
            scored alone with the media, never with the reference answers of the others in view.
        record: id of the sample that ``split_turns`` took this one out of, else empty.
        difficulty: as the record gives it, from 0 to 1; None: ranked by ``length_score``.
        number: place of its record in the source's file: ids may be shared, this is not. -1 where
            there is no file.
        language: of its answers, as a code such as ``hi``; empty where nobody says.
    """

    id: str
    source: str
    messages: tuple[Message, ...]
    task: str
    split: str
    kind: str = ""
    independent_turns: bool = False
    record: str = ""
    difficulty: float | None = None
    number: int = -1
    language: str = ""

    @property
    def media(self) -> tuple[Media, ...]:
        """Every medium, in the order in which the conversation shows them."""
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, Media))

    @property
    def context_parts(self) -> tuple[Media | Described, ...]:
        """What independent questions are asked about: the media, or what is told in their place."""
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, Media | Described))

    @property
    def shows_several_of_a_kind(self) -> bool:
        """Whether its questions may mean one of several media by its place ("the second one")."""
        kinds = [part.modality for part in self.context_parts]
        return len(set(kinds)) < len(kinds)

    @property
    def asked_alone_only(self) -> bool:
        """Whether its independent questions are never joined: one would not be what it was.

        In a conversation a medium stands once. A question that shows it amid its own words would
        have a gap there, and one of several media would be counted in another order.
        """
        asked = (m.parts for m in self.messages if m.role == "user")
        return self.shows_several_of_a_kind or any(map(_shows_within, asked))

    def split_turns(self) -> list[Sample]:
        """One sample a question, each with all that it is about and without the other questions.

        A sample whose turns build on each other stays whole. Under the reference answers of its
        neighbours a caption, say, is half given away: neither a score nor a lesson in looking.
        """
        if not self.independent_turns:
            return [self]
        answers = [n for n, message in enumerate(self.messages) if message.role == "assistant"]
        singles = []
        for n in answers:
            asked, answer = self.messages[n - 1 : n + 1]
            parts = _resolved(asked.parts)
            asked = replace(asked, parts=(*_missing(self.context_parts, parts), *parts))
            name = f"{self.id}#{n // 2}" if len(answers) > 1 else self.id
            task, record = answer.task, self.record or self.id
            single = replace(self, id=name, messages=(asked, answer), task=task, record=record)
            singles.append(single)
        return singles

    @property
    def num_questions(self) -> int:
        """Answers of the assistant that are to be learnt."""
        return sum(message.learnt for message in self.messages)

    def select_turns(self, numbers: Sequence[int]) -> Sample:
        """Some of the independent questions, in this order, with all that they are about.

        In another order than the record's that stands before the first of them.
        """
        pairs = [self.messages[2 * n : 2 * n + 2] for n in numbers]
        first, *rest = [message for pair in pairs for message in pair]
        stays = rest if list(numbers) == sorted(numbers) else []
        parts = _resolved(first.parts)
        there = [*parts, *(part for message in stays for part in message.parts)]
        first = replace(first, parts=(*_missing(self.context_parts, there), *parts))
        shown = [part for part in self.context_parts if part in first.parts]
        rest = [replace(m, parts=tuple(p for p in m.parts if p not in shown)) for m in rest]
        return replace(self, messages=(first, *rest), task=rest[0].task)

    def length_score(self) -> float:
        """Words of a question with its answer, and of what is to be seen or heard for it.

        A caption names every object and a transcript every word, so that a crowded picture or a
        long sentence counts as more. Of independent questions the mean.
        """
        told = captions = said = 0
        for message in self.messages:
            said += len(message.text.split())
            for part in message.parts:
                if isinstance(part, Media):
                    captions += len(part.caption.split())
                elif isinstance(part, Described):
                    told += len(part.words.split())
        said -= told
        asked = self.num_questions
        return told + captions + said / (max(1, asked) if self.independent_turns else 1)

    def task_counts(self) -> list[tuple[str, int]]:
        """Task and number of questions of each sample that ``split_turns`` gives."""
        tasks = [message.task for message in self.messages if message.learnt]
        if self.independent_turns:
            return [(task, 1) for task in tasks]
        return [(self.task, len(tasks))]


def _shows_within(parts: Sequence[ContentPart]) -> bool:
    """Whether a medium, or what is told in its place, stands between words of a message."""
    words = [n for n, part in enumerate(parts) if type(part) is Text and part.text.strip()]
    within = range(words[0], words[-1]) if words else ()
    return any(isinstance(parts[n], Media | Described | BackReference) for n in within)


def _resolved(parts: Sequence[ContentPart]) -> tuple[ContentPart, ...]:
    """The parts of a question that nothing is shown before."""
    return tuple(part.part if isinstance(part, BackReference) else part for part in parts)


def _missing(
    wanted: Iterable[Media | Described], there: Iterable[ContentPart]
) -> list[ContentPart]:
    """What of ``wanted`` is not there, in the record's order.

    What it holds twice has to be there twice.
    """
    left = Counter(there)
    missing: list[ContentPart] = []
    for part in sorted(wanted, key=lambda part: part.place):
        if left[part] > 0:
            left[part] -= 1
        else:
            missing.append(part)
    return missing
