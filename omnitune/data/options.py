"""Puts the options of a multiple-choice question into what is asked.

Options stand in a field of their own, and a model that is not shown them could only guess. A
question that holds them already stays as it is. What is wrong with a record stays too: whoever
reads it next tells of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omnitune.config.settings import Repeated
from omnitune.data.choices import MOST_CHOICES, Choices, chosen, lettered
from omnitune.data.tags import escape

CHOICES = "choices"


def with_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """A record in our keys whose questions hold their options.

    An answer that is a number of a list's option, counted from 0, becomes that option's text.
    """
    found = dict(values) if type(values) is not dict else values
    if isinstance(values, Repeated):
        return found
    if isinstance(values.get("messages"), list):
        return {**found, "messages": _messages(values["messages"])}
    if isinstance(values.get("qa"), list):
        return {**found, "qa": [_pair(pair) for pair in values["qa"]]}
    return _pair(found)


def options_in(values: Mapping[str, Any]) -> Choices:
    """Key and text of each option that an object has; none where they are no options."""
    given = values.get(CHOICES)
    if isinstance(given, list) and 1 < len(given) <= MOST_CHOICES:
        pairs = list(lettered(given))
    else:
        pairs = list(given.items()) if isinstance(given, dict) and len(given) > 1 else []
    texts = all(isinstance(text, str) and text.strip() for pair in pairs for text in pair)
    return pairs if texts and not isinstance(given, Repeated) else ()


def option_at(number: int, texts: list[Any], question: Any) -> int:
    """Which option a number means: counted from 0, or as the question itself numbers them."""
    numbered = [(str(n), str(text)) for n, text in enumerate(texts, 1)]
    asked = question if isinstance(question, str) else ""
    return number - 1 if asked and all(_stands(asked, *pair) for pair in numbered) else number


def shown(question: str, choices: Choices, answer: str = "") -> str:
    """A question with a line for each option below it, unless it holds them.

    Args:
        answer: where it is an option's letter, the question must hold the letters too.
    """
    if all(_stands(question, key, text) for key, text in choices):
        return question
    by_key = any(answer.strip(" .()[]").casefold() == key.casefold() for key, _ in choices)
    if not by_key and all(_stands(question, "", text) for _, text in choices):
        return question
    lines = "\n".join(f"{key}. {escape(text)}" for key, text in choices)
    return f"{question.rstrip()}\n{lines}" if question.strip() else lines


def _stands(question: str, key: str, text: str) -> bool:
    """Whether an option stands in a question as words of their own, behind its key."""
    words = r"\s+".join(map(re.escape, text.split()))
    before = rf"{re.escape(key)}\s*[\])).:,–-]*\s*" if key else ""
    return bool(re.search(rf"(?<!\w){before}{words}(?!\w)", question, re.IGNORECASE))


def _pair(pair: Any) -> Any:
    """A question, answered by an option."""
    if not isinstance(pair, dict) or not (choices := options_in(pair)):
        return pair
    question, answers = pair.get("question", ""), pair.get("answers")
    if not isinstance(question, str):
        return pair
    found = {**pair, **_answer(pair, question, choices)}
    first = answers[0] if isinstance(answers, list) and answers else ""
    answer = found.get("answer", first)
    asked = shown(question, choices, answer if isinstance(answer, str) else "")
    return {**found, "question": asked} if asked != question else found


def _answer(pair: Mapping[str, Any], question: str, choices: Choices) -> dict[str, str]:
    """The option that a number in place of an answer means."""
    answer, given = pair.get("answer"), pair[CHOICES]
    if isinstance(answer, str) and answer.strip().isdecimal() and not chosen(answer, choices):
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not isinstance(given, list):
        return {}
    number = option_at(answer, given, question)
    return {"answer": given[number]} if 0 <= number < len(given) else {}


def _messages(messages: list[Any]) -> list[Any]:
    """Turns, those of the user with the options of the answers that follow."""
    found = list(messages)
    for n, answer in enumerate(messages[1:]):
        asked = found[n]
        if not isinstance(answer, dict) or not (choices := options_in(answer)):
            continue
        if isinstance(asked, dict) and asked.get("role") == "user" and "content" in asked:
            told = answer.get("content")
            text = told if isinstance(told, str) else ""
            found[n] = {**asked, "content": _content(asked["content"], choices, text)}
    return found


def _content(content: Any, choices: Choices, answer: str) -> Any:
    """What a user says, as text or as typed parts."""
    if isinstance(content, str):
        return shown(content, choices, answer)
    if not isinstance(content, list):
        return content
    texts = [
        n
        for n, part in enumerate(content)
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]
    whole = " ".join(content[n]["text"] for n in texts)
    if shown(whole, choices, answer) == whole:
        return content
    if texts and texts[-1] == len(content) - 1:
        last = content[-1]
        lines = shown("", choices)
        return [*content[:-1], {**last, "text": f"{last['text'].rstrip()}\n{lines}"}]
    return [*content, {"type": "text", "text": shown("", choices)}]
