"""The line that is typed: Tab, history, and waiting for Enter."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from omnitune.serving.terminal.screen import environment, wants_colour

PROMPT = "you> "
KEPT_LINES = 1_000  # of the history
LISTED = 100  # names that Tab shows, at most


def history_file(environ: Mapping[str, str]) -> Path | None:
    """Where typed lines are kept between starts; None for nowhere.

    ``OMNITUNE_HISTORY`` names it, and switches it off where it is empty. Otherwise it lies in the
    user's folder of states (XDG base directories).
    """
    named = environ.get("OMNITUNE_HISTORY")
    folder = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):  # the specification ignores others
        folder = "~/.local/state"
    try:
        if named is not None:
            return Path(named).expanduser() if named else None
        return Path(folder).expanduser() / "omnitune" / "history"
    except RuntimeError:  # nobody knows the home
        return None


class Keyboard:
    """Reads typed lines, with Tab and history where Python was built with readline.

    Args:
        completions: of a line.
    """

    def __init__(self, completions: Callable[[str], list[str]]) -> None:
        self.completions = completions
        self.history = history_file(environment())
        self.readline = _readline()
        if self.readline:
            _enable_completion(self.readline, completions)
            self._read_history(self.readline)

    def line(self) -> str:
        """The next line; raises EOFError and KeyboardInterrupt as ``input``."""
        if self.readline is None:
            return input(PROMPT)
        before = self.readline.get_current_history_length()
        line = input(_prompt("\1", "\2"))  # these enclose what takes no room on the line
        self._keep(self.readline, before)
        return line

    def held_words(self) -> bool:
        """Whether the line that was broken off by Ctrl-C held anything."""
        return bool(self.readline and self.readline.get_line_buffer())

    def wait_for_enter(self, seconds: float | None, going: Callable[[], bool]) -> None:
        """Waits until Enter is pressed, the time is over, or something no longer goes on.

        Only at a terminal Enter is waited for.

        Raises:
            EOFError: nothing more can be typed.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        typed = sys.stdin.isatty()
        end = None if seconds is None else time.monotonic() + seconds
        while going() and (end is None or time.monotonic() < end):
            left = 0.1 if end is None else max(0.0, min(0.1, end - time.monotonic()))
            if not typed:  # its lines are questions; nobody presses Enter
                time.sleep(left)
            elif select.select([sys.stdin], [], [], left)[0]:
                if not sys.stdin.readline():
                    raise EOFError
                return

    def _read_history(self, readline: ModuleType) -> None:
        readline.set_history_length(KEPT_LINES)
        if self.history is None:
            return
        with suppress(OSError):  # none yet, or nobody may read it: a chat needs none
            self.history.parent.mkdir(parents=True, exist_ok=True)
            readline.read_history_file(self.history)
            if readline.get_current_history_length() >= KEPT_LINES:
                readline.write_history_file(self.history)

    def _keep(self, readline: ModuleType, before: int) -> None:
        """Writes a new line at once: a chat may be killed, and two may go on at a time."""
        length = readline.get_current_history_length()
        if self.history is None or length == before:
            return
        last = readline.get_history_item(length) or ""
        if "\n" in last:  # pasted; the file has one line for each
            readline.replace_history_item(length - 1, " ".join(last.split("\n")))
        with suppress(OSError):
            if not self.history.exists():
                os.close(os.open(self.history, os.O_CREAT | os.O_WRONLY, 0o600))
            if hasattr(readline, "append_history_file"):
                readline.append_history_file(1, self.history)
            else:
                readline.write_history_file(self.history)


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline


def _enable_completion(readline: ModuleType, completions: Callable[[str], list[str]]) -> None:
    found: list[str] = []
    typed = ""

    def complete(line: str, state: int) -> str | None:
        nonlocal typed
        if state == 0:
            found[:], typed = completions(line), line
        return found[state] if state < len(found) else None

    def show(start: str, matches: Sequence[str], longest: int) -> None:
        # Below the list stands what readline believes to be on the screen; it adds the rest.
        names = in_columns(list(map(_shown, matches)), shutil.get_terminal_size().columns)
        sys.stdout.write(f"\n{names}\n{_prompt()}{typed}")
        sys.stdout.flush()
        readline.redisplay()

    readline.set_completer_delims("")  # the whole line is one word: file names may hold blanks
    readline.set_completer(complete)
    mac = "libedit" in (readline.__doc__ or "")
    if not mac:
        readline.set_completion_display_matches_hook(show)
        readline.parse_and_bind("set show-all-if-ambiguous on")
    readline.parse_and_bind("bind ^I rl_complete" if mac else "tab: complete")


def in_columns(names: Sequence[str], width: int) -> str:
    """Names below each other in as many columns as there is room for; the first ones of many."""
    listed = names[:LISTED]
    wide = max(map(len, listed), default=0) + 2
    count = max(1, (width + 1) // wide)
    rows = [listed[n : n + count] for n in range(0, len(listed), count)]
    lines = ["".join(name.ljust(wide) for name in row).rstrip() for row in rows]
    more = len(names) - len(listed)
    return "\n".join([*lines, *([f"(and {more:,} more)"] if more else [])])


def _prompt(before: str = "", after: str = "") -> str:
    """The prompt in colour, if that is wanted, its colours enclosed."""
    if not wants_colour(environment()) or not sys.stdout.isatty():
        return PROMPT
    return f"{before}\x1b[1;36m{after}{PROMPT.rstrip()}{before}\x1b[0m{after} "


def _shown(match: str) -> str:
    """A completed line without what all have in common: a command, or the name of a file."""
    command, _, path = match.partition(" ")
    words = (path or command) if command.startswith("/") else match
    name = words.rstrip("/").rpartition("/")[2] + "/" * words.endswith("/")
    return name if path or not command.startswith("/") else command
