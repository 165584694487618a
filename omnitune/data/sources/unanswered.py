"""Records without an answer, for whoever only asks: each gets one that says so.

A dialect knows its records by their answers. So a mark stands for one until the record is read,
under the key by which the record's own program would name it; then it is taken out again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from omnitune.containers.vqa_pair import ID as QUESTION_ID
from omnitune.containers.vqa_pair import PICTURE_ID
from omnitune.data import right_answers
from omnitune.data.options import options_in, shown
from omnitune.data.sources.alpaca import INSTRUCTION, OUTPUTS
from omnitune.data.sources.base import Values
from omnitune.data.sources.chats import TURNS
from omnitune.data.sources.conversation import ASSISTANT, ROLES, USER
from omnitune.data.sources.manifest import PATHS
from omnitune.data.sources.manifest import TEXTS as SPOKEN
from omnitune.data.sources.parts import first_filled, media_key
from omnitune.data.sources.readdressed import JSON, KEY
from omnitune.data.sources.row_words import ANSWERS, LABELS, QUESTIONS
from omnitune.data.sources.rows import FILE, FILE_NAME, LABEL, WORDS
from omnitune.data.sources.swift import PAIRS, QUERY, RESPONSE
from omnitune.data.sources.typed import COMPLETIONS, MESSAGES, PROMPT
from omnitune.media.registry import MEDIA
from omnitune.sample import Sample

MARK = "\N{WORD JOINER}(no answer)"
_ASSISTANT = {"role": "assistant", "from": "gpt"}
REQUEST, BODY = "custom_id", "body"
_CONTENT = ("content", "value", "text")
# Where any of these is filled, a record has an answer.
_GIVEN = frozenset(
    (*ANSWERS, *OUTPUTS, *COMPLETIONS, *LABELS, *SPOKEN, *WORDS["image"][0], *WORDS["audio"][0])
)


def completed(values: Any) -> Any:
    """A record with the mark for each answer that it lacks; anything else as it is."""
    if not isinstance(values, dict):
        return values
    values = _asking(values)
    for key, complete in _FORMS.items():
        if isinstance(values.get(key), list) and values[key]:
            return {**values, key: complete(values[key])}
    if isinstance(values.get(PROMPT), list):
        return values if first_filled(values, COMPLETIONS) else {**values, COMPLETIONS[0]: MARK}
    if KEY in values and isinstance(values.get(JSON), dict):
        return {**values, JSON: _member(values)}
    if _answered(values) or not (_asked(values) or _shows(values)):
        return values
    return {**values, _answer_key(values): MARK}


def _asking(values: Values) -> Values:
    """A record of a form that only asks, as one of a form that answers."""
    body = values.get(BODY)
    if REQUEST in values and isinstance(body, dict) and MESSAGES in body:  # OpenAI's batches
        return {"id": values[REQUEST], MESSAGES: body[MESSAGES]}
    if QUESTION_ID in values and values.get("text") and not first_filled(values, QUESTIONS):
        rest = {key: value for key, value in values.items() if key not in ("text", *LABELS)}
        return {"id": values[QUESTION_ID], **rest, QUESTIONS[0]: values["text"]}  # LLaVA's
    return values


def without_truth(native: Values) -> Values:
    """A record in our keys without what belongs to an answer that is not there.

    What was answered before the last question of a conversation is no question any more.
    """
    if isinstance(native.get("qa"), list):
        return {**native, "qa": [_unmarked(pair) for pair in native["qa"]]}
    turns = native.get("messages")
    if not isinstance(turns, list) or not turns or not _is_marked(turns[-1]):
        return _unmarked(native)
    before = [
        {**turn, "weight": 0} if isinstance(turn, dict) and turn.get("role") == ASSISTANT else turn
        for turn in turns[:-1]
    ]
    return {**native, "messages": [*before, turns[-1]]}


def without_marks(native: Values) -> Values:
    """A record in our keys as its owner would write it: without any answer that is not there."""
    found = {key: value for key, value in native.items() if key != "answer" or value != MARK}
    if isinstance(found.get("qa"), list):
        found["qa"] = [without_marks(pair) if _is_marked(pair) else pair for pair in found["qa"]]
    turns = found.get("messages")
    if isinstance(turns, list) and turns and _is_marked(turns[-1]):
        found["messages"] = turns[:-1]
    return found


def bare(sample: Sample) -> Sample:
    """A sample without the mark: such an answer is empty."""
    if all(message.text != MARK for message in sample.messages):
        return sample
    messages = (replace(m, parts=()) if m.text == MARK else m for m in sample.messages)
    return replace(sample, messages=tuple(messages))


def _is_marked(item: Any) -> bool:
    return isinstance(item, dict) and MARK in (item.get("answer"), item.get("content"))


def _unmarked(values: Any) -> Any:
    """A question that holds its options, where it has the mark: that is none of them."""
    if not _is_marked(values):
        return values
    question, choices = values.get("question", ""), options_in(values)
    if choices and isinstance(question, str):
        values = {**values, "question": shown(question, choices)}
    return {key: value for key, value in values.items() if key not in right_answers.KEYS}


def _member(values: Values) -> Values:
    """The record of a shard's sample, whose answer may be another member."""
    record: Values = values[JSON]
    if _answered({**values, **record}):
        return record
    found: Values = completed(record)
    return {**record, ANSWERS[0]: MARK} if found is record else found


def _turns(turns: list[Any]) -> list[Any]:
    """Turns with an answer to the last of them, if that is the user's."""
    last = turns[-1]
    role = next((key for key in _ASSISTANT if key in last), "") if isinstance(last, dict) else ""
    if not role or str(last[role]).strip().casefold() not in ROLES[USER]:
        return turns
    content = next((key for key in _CONTENT if key in last), _CONTENT[0])
    return [*turns, {role: _ASSISTANT[role], content: MARK}]


def _pairs(pairs: list[Any], asked: tuple[str, ...], answers: tuple[str, ...]) -> list[Any]:
    """Pairs of a question and an answer, each with one."""
    return [
        {**pair, answers[0]: MARK}
        if isinstance(pair, dict)
        and any(key in pair for key in asked)
        and not first_filled(pair, answers)
        else pair
        for pair in pairs
    ]


_FORMS: dict[str, Callable[[list[Any]], list[Any]]] = {
    MESSAGES: _turns,
    TURNS: _turns,
    "qa": lambda pairs: _pairs(pairs, ("question",), ("answer", "answers")),
    PAIRS: lambda pairs: _pairs(pairs, ("human", USER), ("assistant",)),
}


def _answered(values: Values) -> bool:
    return bool(first_filled(values, tuple(key for key in values if key in _GIVEN)))


def _asked(values: Values) -> bool:
    return bool(first_filled(values, (*QUESTIONS, INSTRUCTION)))


def _shows(values: Values) -> bool:
    """Whether a record shows a medium, which may be all that it asks."""
    keys = {FILE, FILE_NAME, KEY, *PATHS}
    of_clip = "sentence" in values and bool(values.get("path"))  # Common Voice
    return (
        of_clip
        or bool(first_filled(values, tuple(keys)))
        or any(media_key(values, medium) for medium in MEDIA.values())
    )


def _answer_key(values: Values) -> str:
    """What a record's own program calls its answer."""
    if set(values) == {FILE, LABEL}:
        return LABEL
    if INSTRUCTION in values:
        return OUTPUTS[0]
    if QUERY in values:
        return RESPONSE
    if PICTURE_ID in values:
        return ANSWERS[1]
    for key in (*SPOKEN, *ANSWERS):  # an empty column names it
        if key in values:
            return key
    is_sound = PATHS[0] in values or ("duration" in values and isinstance(values.get("audio"), str))
    if is_sound and not _asked(values):
        return SPOKEN[0]
    return ANSWERS[0]
