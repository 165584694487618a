"""One record of a data file on its way to a sample; every error names file, record and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import Repeated, as_found, is_unicode, json_kind, nearest, quoted
from omnitune.data.splits import by_content, mistaken
from omnitune.data.tags import Placing, plain
from omnitune.media.registry import MEDIA
from omnitune.sample import LANGUAGE_CODE, ROLES, Described, Media, Message, Sample, UserError
from omnitune.tasks import TASKS, task_names, task_of

# What a source's records must refer to; any record may refer to more.
REQUIRED_MEDIA: dict[str, tuple[str, ...]] = {
    "text_only": (),
    "image_text": ("image",),
    "audio_text": ("audio",),
    "image_audio_text": ("image", "audio"),
    "described": (),
    "captions": ("image",),
    "digit_grids": ("image",),
    "transcripts": ("audio",),
}
CAPTION_KEYS = {"image": "caption", "audio": "transcript"}

PAIR_KEYS = ("question", "answer", "kind", "task")
TURN_KEYS = ("role", "content")
ANSWER_KEYS = (*TURN_KEYS, "weight", "kind", "task")
RECORD_KEYS = (
    *("id", *MEDIA, *CAPTION_KEYS.values(), "messages", "qa", *PAIR_KEYS),
    *("split", "difficulty", "language", "voice"),
    "digits",  # of the embedded corpus: which ones a picture shows
)
# Keys that are the user's own, as are those that begin with "_".
FREE_KEYS = ("meta", "metadata")
_KNOWN = {keys: frozenset(keys) for keys in (PAIR_KEYS, TURN_KEYS, ANSWER_KEYS, RECORD_KEYS)}
# What other formats call our keys.
MEANT = {
    "conversations": "messages",
    "conversation": "messages",
    "dialog": "messages",
    "dialogue": "messages",
    "turns": "messages",
    "from": "role",
    "value": "content",
    "text": "content",
    "instruction": "question",
    "prompt": "question",
    "query": "question",
    "input": "question",
    "output": "answer",
    "response": "answer",
    "completion": "answer",
    "target": "answer",
    "label": "answer",
    "images": "image",
    "image_path": "image",
    "picture": "image",
    "img": "image",
    "audios": "audio",
    "audio_path": "audio",
    "sound": "audio",
    "speech": "audio",
    "lang": "language",
    "transcription": "transcript",
    "type": "kind",
    "category": "kind",
    "loss_weight": "weight",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


class Record:
    """One record: its place and its JSON value."""

    def __init__(self, path: Path, source: str, number: int, values: Any) -> None:
        self.path, self.source, self.number = path, source, number
        if not isinstance(values, dict):
            raise self.wrong(f"is a JSON {json_kind(values)}, expected an object")
        self.values: dict[str, Any] = values

    def wrong(self, what: str) -> UserError:
        """An error that says where."""
        return UserError(f"{self.path}: record {self.number + 1}: {what}")

    def sample(self) -> Sample:
        """Turns the record into a sample, or raises a UserError."""
        self._check_keys(self.values, RECORD_KEYS)
        media = self._media()
        turns = self._turns()
        kind, record_task = self._text("kind"), self._task(self.values, set(media))
        independent = "messages" not in self.values
        shown: dict[str, Media | Described] = {**media} or self._told()
        messages = Placing(self.wrong, shown, independent).messages(turns)
        messages = [self._score_group(m, set(media), record_task, kind) for m in messages]
        return Sample(
            id=self._text("id") or f"{self.source}/{self.number}",
            source=self.source,
            messages=tuple(messages),
            task=next(m.task for m in messages if m.learnt),
            split=self._split(),
            kind=kind,
            independent_turns=independent,
            captions={
                m: self._text(k) for m, k in CAPTION_KEYS.items() if m in media and self.has(k)
            },
            tags={"voice": self._text("voice")} if self.has("voice") else {},
            difficulty=self._difficulty(),
            number=self.number,
            language=self._language(),
        )

    def has(self, key: str) -> bool:
        """Whether the record has a key."""
        return key in self.values

    def _check_keys(self, values: Mapping[str, Any], known: tuple[str, ...], at: str = "") -> None:
        """Refuses keys that nothing reads, and those that are given twice."""
        if isinstance(values, Repeated):
            raise self.wrong(f"{at}the key {quoted(values.key)} is given twice; keep one of them")
        if values.keys() <= _KNOWN[known]:
            return
        others = [key for key in values if key not in known and key not in FREE_KEYS]
        if unknown := [key for key in others if not key.startswith("_")]:
            raise self.wrong(at + _unknown(unknown, known))

    def _media(self) -> dict[str, Media]:
        found = {}
        folder = self.path.parent
        for name in MEDIA:
            if name not in self.values:
                if name in REQUIRED_MEDIA[self.source]:
                    raise self.wrong(f'the key "{name}" is missing; expected a relative path')
                continue
            relative = self.values[name]
            if not isinstance(relative, str) or not relative.strip():
                raise self.wrong(f'"{name}" is {as_found(relative)}, expected one relative path')
            self.check_text(relative, f'"{name}"')
            place = Path(relative)
            if place.is_absolute() or ".." in place.parts:
                raise self.wrong(
                    f'"{name}" is {quoted(relative)}, which leaves the folder {self.path.parent}; '
                    "media paths are relative to the JSON file and stay beside it"
                )
            found[name] = Media(name, folder / place)
        return found

    def _told(self) -> dict[str, Media | Described]:
        """Of a record without media: the caption or transcript that it is asked about instead."""
        return {m: Described.of(m, self._text(k)) for m, k in CAPTION_KEYS.items() if self.has(k)}

    def _turns(self) -> list[dict[str, Any]]:
        """The record's conversation as role, content and, of answers, kind, task and weight."""
        given = [str(key) for key in ("messages", "qa", "answer") if key in self.values]
        if len(given) == 1 and given != ["answer"] and "question" in self.values:
            given.append("question")
        if len(given) != 1:
            raise self.wrong(
                f"has {' and '.join(given) or 'neither messages, qa nor answer'}; expected one of "
                '"messages", "qa" or "question" with "answer"'
            )
        if given == ["messages"]:
            return self._check_roles(self._list("messages"))
        if given == ["answer"]:
            return self._pair(self.values, "")
        turns: list[dict[str, Any]] = []
        for n, pair in enumerate(self._list("qa")):
            self._check_keys(pair, PAIR_KEYS, f"pair {n + 1}: ")
            turns += self._pair(pair, f"pair {n + 1}: ")
        return turns

    def _pair(self, pair: Mapping[str, Any], at: str) -> list[dict[str, Any]]:
        """A question and its answer."""
        question, answer = pair.get("question", ""), pair.get("answer")
        if "answer" not in pair:
            raise self.wrong(f'{at}the key "answer" is missing, expected text')
        if not isinstance(question, str):
            raise self.wrong(f'{at}"question" is {as_found(question)}, expected text')
        if not isinstance(answer, str) or not answer.strip():
            raise self.wrong(f'{at}"answer" is {as_found(answer)}, expected text')
        self.check_text(question, f'{at}"question"')
        self.check_text(answer, f'{at}"answer"')
        group = {} if pair is self.values else self._group(pair, at)
        return [
            {"role": "user", "content": question, "at": f'{at}"question"'},
            {"role": "assistant", "content": answer, "at": f'{at}"answer"', **group},
        ]

    def _group(self, values: Mapping[str, Any], at: str) -> dict[str, str]:
        """Kind and task of an answer."""
        group = {"kind": self._text("kind", values, at)} if "kind" in values else {}
        if "task" in values:
            group["task"] = self._task(values, set(MEDIA) & self.values.keys(), at)
        return group

    def _check_roles(self, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        expected = "user"
        found = []
        for n, turn in enumerate(turns):
            at = f"message {n + 1}: "
            role, content = turn.get("role"), turn.get("content")
            self._check_turn(turn, at)
            weight = self._weight(turn, at)
            group = self._group(turn, at) if role == "assistant" else {}
            where = f'{at}"content"'
            found.append({"role": role, "content": content, "at": where, "weight": weight, **group})
            if role == "system" and n == 0:
                continue
            if role != expected:
                raise self.wrong(f"{at}role is {role}, expected {expected}")
            expected = "user" if role == "assistant" else "assistant"
        if turns[-1]["role"] != "assistant":
            raise self.wrong("the last message is not the assistant's; there is nothing to learn")
        if not any(turn["weight"] for turn in found if turn["role"] == "assistant"):
            raise self.wrong('every answer has "weight": 0; there is nothing to learn')
        return found

    def _check_turn(self, turn: dict[str, Any], at: str) -> None:
        role, content = turn.get("role"), turn.get("content")
        known = ANSWER_KEYS if role == "assistant" else TURN_KEYS
        if role != "assistant" and "weight" in turn and role in ROLES:
            raise self.wrong(
                f'{at}"weight" is for the assistant\'s messages, this one is of the {role}; '
                "nothing is learnt of it anyway, so take the key out"
            )
        self._check_keys(turn, known if role in ROLES else ANSWER_KEYS, at)
        if "role" not in turn:
            raise self.wrong(f'{at}the key "role" is missing, expected {", ".join(ROLES)}')
        if role not in ROLES:
            hint = _hint(role, ROLES) if isinstance(role, str) else ""
            raise self.wrong(f'{at}"role" is {as_found(role)}, expected {", ".join(ROLES)}{hint}')
        if "content" not in turn:
            raise self.wrong(f'{at}the key "content" is missing, expected text')
        if not isinstance(content, str) or (role == "assistant" and not content.strip()):
            raise self.wrong(f'{at}"content" is {as_found(content)}, expected text')
        self.check_text(content, f'{at}"content"')

    def _weight(self, turn: Mapping[str, Any], at: str) -> int:
        weight = turn.get("weight", 1)
        if isinstance(weight, bool) or weight not in (0, 1):
            raise self.wrong(
                f'{at}"weight" is {as_found(weight)}, expected 1 (learnt) or 0 (context only)'
            )
        return int(weight)

    def _list(self, key: str) -> list[dict[str, Any]]:
        items = self.values[key]
        if not isinstance(items, list) or not items:
            raise self.wrong(
                f'"{key}" is {as_found(items)}, expected a list of at least one object'
            )
        for n, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.wrong(f'"{key}": item {n + 1} is {as_found(item)}, expected an object')
        return items

    def _score_group(self, message: Message, media: set[str], task: str, kind: str) -> Message:
        if message.role != "assistant":
            return message
        kind = message.kind or kind
        task = task_of(media, message.task or task, kind)
        return Message(message.role, message.parts, kind, task, message.weight)

    def _task(self, values: Mapping[str, Any], media: set[str], at: str = "") -> str:
        task = self._text("task", values, at)
        known = task_names(media)
        if not task or task in known:
            return task
        held = " and ".join(sorted(media)) or "no medium"
        if task in TASKS:
            what = f"which does not fit a record with {held}"
        else:
            what = f"which is no task{_hint(task, known)}"
        one_of = ", ".join(map(quoted, known))
        raise self.wrong(f'{at}"task" is {quoted(task)}, {what}; with {held} it is one of {one_of}')

    def _split(self) -> str:
        if "split" not in self.values:
            try:
                return by_content(self.values)
            except RecursionError:
                raise self.wrong("its lists or objects are nested too deep to be read") from None
        name = self._text("split")
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
        name = self._text("language").replace("_", "-")  # as locales are written
        if name and not LANGUAGE_CODE.fullmatch(name):
            raise self.wrong(
                f'"language" is {quoted(name)}, expected a code such as "en", "hi" or "zh-Hant"'
            )
        first, *rest = name.split("-")
        return "-".join([first.lower(), *rest])

    def _text(self, key: str, values: Mapping[str, Any] | None = None, at: str = "") -> str:
        """The text under a key; "" without it."""
        values = self.values if values is None else values
        if key not in values:
            return ""
        value = values[key]
        if key == "id" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        blank = isinstance(value, str) and not value.strip()
        if not isinstance(value, str) or blank:
            empty = "; leave the key out where there is none" if blank or value is None else ""
            raise self.wrong(f'{at}"{key}" is {as_found(value)}, expected text{empty}')
        self.check_text(value, f'{at}"{key}"')
        return plain(value, f'{at}"{key}"', self.wrong) if key in CAPTION_KEYS.values() else value

    def check_text(self, text: str, at: str) -> None:
        """Refuses what cannot be written or is no text."""
        if not is_unicode(text):
            raise self.wrong(
                f"{at} holds half of a surrogate pair, such as \\ud83d alone: a sign was cut in "
                f"two where the text was cut; found {quoted(text)}"
            )
        if "\0" in text:
            raise self.wrong(f"{at} holds a NUL (\\u0000), which no text does; take it out")


def _unknown(keys: list[str], known: Sequence[str]) -> str:
    """A sentence that names keys that nothing reads, and what may be meant by them."""
    named = ", ".join(f"{quoted(key)}{_hint(key, known)}" for key in keys)
    return (
        f"unknown key{'s' * (len(keys) > 1)} {named}; known here: {', '.join(known)}; keys of "
        'your own begin with "_" or stand under "meta"'
    )


def _hint(name: str, known: Sequence[str]) -> str:
    """The known name that may be meant by another."""
    meant = MEANT.get(name.casefold(), "")
    meant = meant if meant in known else nearest(name.casefold(), known)
    return f" (did you mean {quoted(meant)}?)" if meant else ""
