"""The options of a multiple-choice question, and which of them an answer means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

# Of each option its key, such as a letter, and its text.
Choices = Sequence[tuple[str, str]]

MOST_CHOICES = len(ascii_uppercase)

# What may stand before the answer itself; "correct" alone is no such thing.
_PREAMBLE = re.compile(
    r"^(?:so |thus |therefore )?,?\s*(?:i think |i would say |i choose |i pick )?"
    r"(?:(?:the )?(?:correct |right |best |final )*(?:answer|option|choice)(?: is| would be)?"
    r"|it is|it's|that is|that's)\b\s*:?\s*(?:option |choice |letter )?",
    re.IGNORECASE,
)
_TRIMMED = " \t\r\n.,;:!?\"'`*“”‘’"


def lettered(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Options under the letters A, B, C, ... in their order."""
    return tuple(zip(ascii_uppercase, texts, strict=False))


def chosen(answer: str, choices: Choices) -> str:
    """The key of the option that an answer means; "" if it means none, or several.

    An answer is an option's key ("B", "(b)", "B."), its text, both ("b) red"), or one of these
    after a few words ("The answer is B"). The text as it is written comes before a key: of the
    options "B" and "A", in this order, the answer "A" is the second.
    """
    told = answer.strip(_TRIMMED)
    found = _bare(told, choices)
    while not found and (start := _PREAMBLE.match(told)) and start.end():
        told = told[start.end() :].strip(_TRIMMED)
        found = _bare(told, choices)
    return found


def _bare(told: str, choices: Choices) -> str:
    """The option of an answer that has no words around it."""
    verbatim = _only(key for key, text in choices if text.strip() == told)
    return verbatim or _of_key(told, choices) or _of_text(told, choices)


def _of_key(told: str, choices: Choices) -> str:
    for key, text in choices:
        letters = re.escape(key)
        # A key is set off from what follows: "A red circle" begins with an article.
        found = re.match(
            rf"(?:\({letters}\)|\[{letters}\]|{letters}(?:\s*[).:\]]|\s+[-–]\s|$))\s*(.*)$",
            told, re.IGNORECASE | re.DOTALL,
        )  # fmt: skip
        if found:
            # "B) blue" where blue is another option's text means neither.
            named = _of_text(found[1], choices) if _form(found[1]) != _form(text) else key
            return key if named in ("", key) else ""
    return ""


def _of_text(told: str, choices: Choices) -> str:
    wanted = _form(told)
    return _only(key for key, text in choices if wanted and _form(text) == wanted)


def _form(text: str) -> str:
    """Without case, outer punctuation and an article in front."""
    plain = " ".join(text.casefold().strip(_TRIMMED + "()[]").split())
    return re.sub(r"^(?:the|an|a) (?=.)", "", plain)


def _only(keys: Iterable[str]) -> str:
    found = list(keys)
    return found[0] if len(found) == 1 else ""
