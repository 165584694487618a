"""One record of a data file on its way to a sample; every error names file, record and field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from omnitune.config.settings import as_found, quoted
from omnitune.data import right_answers
from omnitune.data.content import Content
from omnitune.data.fields import ANSWER_KEYS, PAIR_KEYS, TURN_KEYS, hint, record_keys
from omnitune.data.options import with_options
from omnitune.data.splits import by_content, mistaken
from omnitune.data.tags import Placing, Turn, Written
from omnitune.media.base import with_article
from omnitune.media.registry import MEDIA
from omnitune.sample import LANGUAGE_CODE, ROLES, Described, Media, Sample, join_texts
from omnitune.sources import Source
from omnitune.tasks import CHOICE, TASKS, task_names, task_of


def rules(source: Source) -> str:
    """What a source's records are read by beside this code: it changes with what is registered."""
    media = [[medium.name, medium.caption_key] for medium in MEDIA.values()]
    tasks = [[t.name, sorted(t.media or ()), t.is_default, t.aliases] for t in TASKS.values()]
    # Of a run's own source each setting changes what its records say.
    settings = astuple(source) if source.path else source.media
    if source.unanswered and not source.path:
        settings = (*settings, "unanswered")
    return json.dumps([media, tasks, record_keys(source), settings])


class Record(Content):
    """One record: its place and its JSON value."""

    def sample(self) -> Sample:
        """Turns the record into a sample, or raises a UserError."""
        self.check_keys(self.values, record_keys(self.of))
        listed = self.listed_media()
        turns = self._turns()
        media = self._kinds(listed, turns)
        kind = self.text("kind")
        self._group_answers(turns, media, kind, self._task(self.values, media))
        independent = "messages" not in self.values
        shown: Mapping[str, Sequence[Media | Described]]
        shown = listed if media else self.described_media()
        messages = Placing(self.wrong, shown, independent).messages(turns)
        return Sample(
            id=self.text("id") or f"{self.source}/{self.number}",
            source=self.source,
            messages=tuple(messages),
            task=next(m.task for m in messages if m.learnt),
            split=self._split(),
            kind=kind,
            independent_turns=independent,
            difficulty=self._difficulty(),
            number=self.number,
            language=self._language(),
        )

    def _kinds(self, listed: Mapping[str, list[Media]], turns: Sequence[Turn]) -> set[str]:
        """The kinds of media that the record holds, under its own keys and in its messages."""
        typed = {p.modality for turn in turns for p in turn.content if isinstance(p, Media)}
        for name in self.of.media:
            if name not in listed and name not in typed:
                raise self.wrong(
                    f'the key "{name}" is missing; expected a relative path, or a list of them'
                )
        for name in typed - listed.keys():
            if (key := MEDIA[name].caption_key) in self.values:
                raise self.wrong(
                    f'"{key}" is a key of the record, but its {name} is a part of a message; give '
                    f'that part the "{key}"'
                )
        self._check_captions(typed | listed.keys())
        return typed | listed.keys()

    def _check_captions(self, media: set[str]) -> None:
        """Refuses the caption of a medium that is not there, beside others that are."""
        known = {MEDIA[name].caption_key for name in media}
        for medium in MEDIA.values() if media else ():
            key = medium.caption_key
            if key in self.values and key not in known:
                raise self.wrong(
                    f'"{key}" says what {with_article(medium.noun)} holds, but the record has '
                    f'{" and ".join(sorted(media))} and no {medium.name}; add the "{medium.name}", '
                    f'or call the key "_{key}" if nothing is to read it'
                )

    def _turns(self) -> list[Turn]:
        """The record's conversation; what is asked holds the options."""
        values = with_options(self.values)
        given = [str(key) for key in ("messages", "qa", "answer") if key in self.values]
        if "answers" in self.values and not given:
            given = ["answer"]
        if len(given) == 1 and given != ["answer"]:
            right_answers.refuse_beside(self, given[0])
            given += ["question"] * ("question" in self.values)
        if len(given) != 1:
            raise self.wrong(
                f"has {' and '.join(given) or 'neither messages, qa nor answer'}; expected one of "
                '"messages", "qa" or "question" with "answer"'
            )
        if given == ["messages"]:
            return self._check_roles(self._list("messages", values))
        if given == ["answer"]:
            return self._pair(values, "")
        turns: list[Turn] = []
        for n, pair in enumerate(self._list("qa", values)):
            self.check_keys(pair, PAIR_KEYS, f"pair {n + 1}: ")
            turns += self._pair(pair, f"pair {n + 1}: ")
        return turns

    def _pair(self, pair: Mapping[str, Any], at: str) -> list[Turn]:
        """A question and its answer."""
        if "answer" not in pair and "answers" in pair:
            pair = {**pair, "answer": right_answers.most_common(self, pair, at)}
        answer = self.required(pair, "answer", at)
        right_answers.check_number(self, pair, at)
        asked = self.written(pair.get("question", ""), f'{at}"question"')
        given = self.written(answer, f'{at}"answer"')
        if not answer.strip():
            raise self.wrong(f'{at}"answer" is {as_found(answer)}, expected text')
        return [Turn("user", [asked], pair, at), self._answer([given], pair, at)]

    def _answer(
        self, content: Sequence[Written | Media], values: Mapping[str, Any], at: str
    ) -> Turn:
        """An answer, with what else is said of the right one."""
        turn = Turn("assistant", content, values, at, self._weight(values, at))
        if "answers" in values or "choices" in values:
            text = join_texts(part.text for part in content if isinstance(part, Written))
            turn.references = right_answers.references(self, values, text, at)
            turn.choices = right_answers.choices(self, values, text, at)
        return turn

    def _group_answers(self, turns: Sequence[Turn], media: set[str], kind: str, task: str) -> None:
        """Enters kind and task of the answers: their own, else the record's."""
        for turn in turns:
            if turn.role == "assistant":
                turn.kind = self.text("kind", turn.values, turn.at) or kind
                turn.task = self._task(turn.values, media, turn.at) or task
                turn.task = turn.task or CHOICE * bool(turn.choices)
                turn.task = task_of(media, turn.task, turn.kind)

    def _check_roles(self, messages: list[dict[str, Any]]) -> list[Turn]:
        expected = "user"
        turns = []
        for n, message in enumerate(messages):
            turn = self._turn(message, f"message {n + 1}: ")
            turns.append(turn)
            if turn.role == "system" and n == 0:
                continue
            if turn.role != expected:
                raise self.wrong(f"{turn.at}role is {turn.role}, expected {expected}")
            expected = "user" if turn.role == "assistant" else "assistant"
        if turns[-1].role != "assistant":
            raise self.wrong("the last message is not the assistant's; there is nothing to learn")
        if not any(turn.weight for turn in turns if turn.role == "assistant"):
            raise self.wrong('every answer has "weight": 0; there is nothing to learn')
        return turns

    def _turn(self, message: dict[str, Any], at: str) -> Turn:
        role = message.get("role")
        known = ANSWER_KEYS if role == "assistant" else TURN_KEYS
        if role != "assistant" and "weight" in message and role in ROLES:
            raise self.wrong(
                f'{at}"weight" is for the assistant\'s messages, this one is of the {role}; '
                "nothing is learnt of it anyway, so take the key out"
            )
        self.check_keys(message, known if role in ROLES else ANSWER_KEYS, at)
        self.required(message, "role", at, ", ".join(ROLES))
        if not isinstance(role, str) or role not in ROLES:
            meant = hint(role, ROLES) if isinstance(role, str) else ""
            raise self.wrong(f'{at}"role" is {as_found(role)}, expected {", ".join(ROLES)}{meant}')
        given = self.required(message, "content", at)
        content = self.message_parts(given, role, f'{at}"content"')
        if role == "assistant":
            return self._answer(content, message, at)
        return Turn(role, content, message, at)

    def _weight(self, turn: Mapping[str, Any], at: str) -> int:
        weight = turn.get("weight", 1)
        if isinstance(weight, bool) or weight not in (0, 1):
            raise self.wrong(
                f'{at}"weight" is {as_found(weight)}, expected 1 (learnt) or 0 (context only)'
            )
        return int(weight)

    def _list(self, key: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        items = values[key]
        if not isinstance(items, list) or not items:
            raise self.wrong(
                f'"{key}" is {as_found(items)}, expected a list of at least one object'
            )
        for n, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.wrong(f'"{key}": item {n + 1} is {as_found(item)}, expected an object')
        return items

    def _task(self, values: Mapping[str, Any], media: set[str], at: str = "") -> str:
        task = self.text("task", values, at)
        known = task_names(media) if task else ()
        if not task or task in known:
            return task
        held = " and ".join(sorted(media)) or "no medium"
        if task in TASKS:
            what = f"which does not fit a record with {held}"
        else:
            what = f"which is no task{hint(task, known)}"
        one_of = ", ".join(map(quoted, known))
        raise self.wrong(f'{at}"task" is {quoted(task)}, {what}; with {held} it is one of {one_of}')

    def _split(self) -> str:
        if "split" not in self.values:
            try:
                return by_content(self.values)
            except RecursionError:
                raise self.wrong("its lists or objects are nested too deep to be read") from None
        name = self.text("split")
        if meant := mistaken(name):
            raise self.wrong(
                f'"split" is {quoted(name)}; did you mean {quoted(meant)}? Every other name than '
                '"train" is held out'
            )
        return name

    def _difficulty(self) -> float | None:
        if "difficulty" not in self.values:
            return None
        value = self.values["difficulty"]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise self.wrong(f'"difficulty" is {quoted(value)}, expected a number from 0 to 1')
        return float(value)

    def _language(self) -> str:
        name = self.text("language").replace("_", "-")  # as locales are written
        if name and not LANGUAGE_CODE.fullmatch(name):
            raise self.wrong(
                f'"language" is {quoted(name)}, expected a code such as "en", "hi" or "zh-Hant"'
            )
        first, *rest = name.split("-")
        return "-".join([first.lower(), *rest])
