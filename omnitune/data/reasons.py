"""What kind of mistake the sentence on a wrong record tells of, as a code that can be counted."""

from __future__ import annotations

import re

OTHER = "wrong-record"

# The first that fits counts. A sentence that none fits is a wrong record all the same.
_SENTENCES: tuple[tuple[str, str], ...] = (
    ("broken-line", r"expected one record a line"),
    ("broken-file", r"not valid JSON|UTF-16 or UTF-32|is no whole|, or not whole"),
    ("broken-file", r"expected a list of records|is no row of a table"),
    ("unknown-format", r"is in none of the known formats|no known format"),
    ("no-records", r"is empty; (the source|expected)|is an empty list|holds no records"),
    ("missing-media", r": no such \w+ (file|clip|picture|medium)|: no such \w*file"),
    ("unknown-key", r"unknown keys? "),
    ("repeated-key", r"is given twice"),
    ("unknown-format", r"of no known format|is none that is known"),
    ("outside-media", r"leaves the folder"),
    ("remote-media", r"a web address"),
    ("missing-media", r': the key "\w+" is missing; expected a relative path'),
    ("missing-media", r"expected one relative path|: nothing is there; expected the "),
    ("role-order", r"role is \w+, expected|the last message is not the assistant's"),
    ("unknown-role", r'"role" is '),
    ("nothing-to-learn", r"there is nothing to learn"),
    ("tag-mismatch", r"holds <[^>]*>|tags|placeholder|media stand in what the user says"),
    ("empty-answer", r'"(?:answer|content)" is (?:"\s*"|null|\[\])'),
    ("empty-text", r" is (\"\s*\"|empty|blank|null)"),
    ("missing-key", r"is missing|has neither|has no field"),
    ("broken-text", r"surrogate|NUL"),
    ("caption-mismatch", r"expected one text for each path|says what .* holds, but"),
    ("unknown-task", r'"task" is '),
    ("unknown-split", r'"split" is '),
    ("unknown-language", r'"language" is '),
    ("wrong-type", r" is a JSON | is .+, expected "),
    ("unreadable-file", r"cannot be read"),
)
_PATTERNS = [(code, re.compile(pattern)) for code, pattern in _SENTENCES]
_AT = re.compile(r": record \d+: ")
_TURN = re.compile(r"((?:message|pair) \d+): ")
_NAMED = re.compile(r'(?:unknown keys? |the key )?"([^"]+)"')


# Of sentences on media: the first that fits counts.
_MEDIA = (
    ("missing-media", r": no such |nothing is there"),
    ("short-media", r"too short"),
    ("long-media", r"the limit is [\d.]+ s\b"),
    ("silent-media", r"silent from end to end"),
    ("black-media", r"black all over"),
)
_MEDIA_PATTERNS = [(code, re.compile(pattern)) for code, pattern in _MEDIA]


def media_reason(sentence: str, usable: bool = False) -> str:
    """The code of what is said of a medium.

    Args:
        usable: it can be read, and the sentence is a remark on it.
    """
    found = (code for code, pattern in _MEDIA_PATTERNS if pattern.search(sentence))
    return next(found, "odd-media" if usable else "unreadable-media")


def reason_of(sentence: str) -> str:
    """The code of what a UserError about a record says."""
    what = _AT.split(sentence, maxsplit=1)[-1]
    return next((code for code, pattern in _PATTERNS if pattern.search(what)), OTHER)


def field_of(sentence: str) -> str:
    """The field that a UserError about a record speaks of first; "" if it names none."""
    _, at, what = sentence.partition(found[0]) if (found := _AT.search(sentence)) else ("", "", "")
    turn = _TURN.match(what) if at else None
    named = _NAMED.match(what, turn.end() if turn else 0)
    return " ".join(part[1] for part in (turn, named) if part)
