"""Standard input and output: any bytes, any encoding, closed or broken at any time."""

from __future__ import annotations

import codecs
import io
import json
import os
import signal
import sys
import unicodedata
from contextlib import suppress
from typing import Any

from omnitune.sample import UserError

LONGEST_LINE = 1 << 20  # characters; a device such as /dev/zero has no end of line
CUT_OFF = 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1  # as the shell tells it


def as_json_line(values: dict[str, Any]) -> str:
    """One line; escaped where the output could not take other letters than ASCII."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return json.dumps(values, ensure_ascii=not encoding.startswith("utf"))


def tell(text: str) -> None:
    """Writes to standard error, as far as there is one."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(printable(text), file=sys.stderr, flush=True)


def next_line() -> str:
    """A line of piped input; "" at its end.

    Raises:
        UserError: the line is too long to be one, or nothing can be read.
    """
    try:
        line = sys.stdin.readline(LONGEST_LINE)
    except OSError as error:
        raise UserError(f"standard input cannot be read ({error.strerror or error})") from None
    if len(line) == LONGEST_LINE and not line.endswith("\n"):
        raise UserError(f"standard input: a line of more than {LONGEST_LINE:,} characters")
    return line


def printable(text: str) -> str:
    """A text without control characters: an answer must not steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def tolerate_any_bytes() -> None:
    """Neither a stray byte in the input nor a narrow output encoding shall end a command."""
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper):
            file.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
        # What is no ASCII in an ASCII terminal's input can only be UTF-8.
        if codecs.lookup(sys.stdin.encoding).name == "ascii":
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")


def leave_when_killed() -> None:
    """A polite kill ends a conversation; Ctrl-C, as which it is taken elsewhere, would not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def drop_output() -> None:
    """Lets Python flush what is left at its end without a complaint: nobody reads it."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
