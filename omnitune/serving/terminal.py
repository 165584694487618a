"""The chat in the terminal: a prompt with commands, or a single answer for scripts."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch

from omnitune.config.settings import load_config
from omnitune.data.taught import Taught
from omnitune.media.base import with_article
from omnitune.media.registry import MEDIA
from omnitune.models.loading import load_omni
from omnitune.sample import Media, UserError
from omnitune.serving import paths
from omnitune.serving.folder import greeting, require_model
from omnitune.serving.options import MAX_NEW_TOKENS, chat_config
from omnitune.serving.session import ChatSession, named_in_errors
from omnitune.serving.streams import as_json_line, leave_when_killed, next_line, printable, tell

COMMANDS = {
    "/reset": "forget the conversation and what is attached",
    "/help": "show this list",
    "/quit": "leave (Ctrl-D and Ctrl-C pressed twice do too)",
}


class Terminal:
    """The conversation at a prompt: lines are turns, lines that begin with ``/`` are commands.

    Args:
        session: the conversation.
        title: what to call the model in the greeting.

    Attributes:
        about: lines of the greeting that say more of it.
        kinds: of media that the model reads, by the command that attaches one.
        usages: what each command does.
    """

    def __init__(self, session: ChatSession, title: str) -> None:
        self.session, self.title = session, title
        self.about: Sequence[str] = ()
        self.kinds = {f"/{name}": name for name in session.model.modalities}
        self.usages = {
            f"{command} PATH": f"attach {with_article(name)} file (its path alone on a line does "
            "too)"
            for command, name in self.kinds.items()
        } | COMMANDS
        if sys.stdin is None:
            raise UserError("standard input is closed, so nobody can talk; give --prompt or a file")
        # Piped input gets answers only: no greeting, no prompt.
        self.typed = sys.stdin.isatty()

    def run(self) -> int:
        """Talks until the user leaves or the input ends; returns the exit status."""
        if self.typed:
            _enable_completion(self.completions)
            print(f"{self.title}: reads text, {', '.join(self.session.model.modalities)}.")
            print(*map(printable, self.about), sep="\n", end="\n" * bool(self.about))
            print(f"Type to talk. Commands: {', '.join(self.usages)}.")
        while (line := self._read()) is not None:
            try:
                if not self._handle(line.strip()):
                    break
            except UserError as error:
                print(end="", flush=True)
                tell(str(error))
            except KeyboardInterrupt:
                print("\n(stopped)", flush=True)
        if self.typed:
            print("Goodbye.")
        return 0

    def completions(self, line: str) -> list[str]:
        """What a line may become by Tab: commands, and file names after those that take one."""
        return paths.completions(line, self._commands, self.kinds)

    @property
    def _commands(self) -> list[str]:
        return [*self.kinds, *COMMANDS]

    def _read(self) -> str | None:
        """The next line; None when the input ends or Ctrl-C is pressed twice."""
        pressed = False
        while self.typed:
            try:
                return input("you> ")
            except EOFError:
                print()
                return None
            except KeyboardInterrupt:
                print()
                if pressed:
                    return None
                pressed = True
                print("(press Ctrl-C again to leave)")
        return next_line() or None

    def _handle(self, line: str) -> bool:
        """Answers a line or follows a command; False to leave."""
        files = paths.dropped_files(line)
        media = [medium for path in files if (medium := self._as_medium(path))]
        if files and len(media) == len(files):
            for medium in media:
                kind = with_article(medium.modality)
                self._attach(medium, f"took {medium.path.name} as {kind} file")
            return True
        command, argument = (*line.split(maxsplit=1), "", "")[:2]
        if files or not command.startswith("/"):
            if line or self.session.pending:
                self._hint(line, files)
                self._answer(line)
        elif command in self.kinds:
            if not argument:
                raise UserError(f"{command} needs a file: {command} PATH")
            path = paths.path_of(argument)
            if not path.exists() and paths.are_several(argument):
                raise UserError(
                    f"{path}: no such file; if these are several, give each its own {command} PATH"
                )
            self._attach(Media(self.kinds[command], path), path.name)
        elif command == "/reset":
            self.session.reset()
            print("(a new conversation)")
        elif command == "/help":
            print("\n".join(f"  {usage:<12} {text}" for usage, text in self.usages.items()))
        elif command != "/quit":
            close = difflib.get_close_matches(command.lower(), self._commands, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "/help lists the commands"
            raise UserError(f"{command} is not a command; {hint}")
        return command != "/quit"

    def _as_medium(self, path: Path) -> Media | None:
        return paths.as_medium(path, self.kinds.values())

    def _attach(self, medium: Media, what: str) -> None:
        count = self.session.attach(medium.path, medium.modality)
        what = printable(f"{what}, {count} tokens")
        print(f"({what}, goes with your next line; an empty one sends it)")
        if self.session.notice:
            print(printable(f"({self.session.notice})"))

    def _hint(self, line: str, files: Sequence[Path]) -> None:
        """Says what becomes of paths in a line that is sent as text."""
        for path in files:
            if not self._as_medium(path):
                print(printable(f"({path.name} is no file that the model reads; sent as text)"))
        known = [m for message in self.session.messages for m in message.parts]
        for medium in () if files else paths.mentioned(line, self.kinds.values()):
            if medium not in (*known, *self.session.pending):
                command = f"/{medium.modality} {medium.path}"
                print(printable(f"(the model is not shown {medium.path.name}; {command} does)"))

    def _answer(self, text: str) -> None:
        with closing(self.session.ask(text)) as pieces:
            print("model> ", end="", flush=True)
            for piece in pieces:
                print(printable(piece), end="", flush=True)
        print()
        if len(self.session.answer_tokens) == self.session.room:
            print(f"(stopped at the limit of {self.session.room} tokens)")


def chat(
    ckpt_dir: Path,
    prompt: str | None = None,
    as_json: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    **media: Sequence[Path] | None,
) -> int:
    """Opens the prompt, or answers once if there is a text or a medium; returns the exit status.

    Args:
        as_json: print one line with ``prompt``, for each kind of medium that the model reads a
            path, a list of several or null, ``answer``, ``tokens`` (of the answer), ``seconds``
            (reading media and answering), and ``notice`` if there is one (``ChatSession.notice``).
        **media: files by modality (``image=[...]``).

    Raises:
        UserError: there is no model, nothing to answer, or a file cannot be used.
    """
    given = {name: files for name, files in media.items() if files}
    if prompt is None and not given and not as_json:
        leave_when_killed()
        talk = Terminal(_open_session(ckpt_dir, max_new_tokens), str(ckpt_dir))
        talk.about = greeting(ckpt_dir) if talk.typed else ()
        return talk.run()
    if not given and not (prompt or "").strip():
        flags = " or ".join(f"--{name}" for name in MEDIA)
        raise UserError(f"there is nothing to answer; give a --prompt with words, or {flags}")
    for name, path in _each(given):  # a missing file is told before a large model is loaded
        with named_in_errors(path):
            MEDIA[name].check(path)
    _answer_once(_open_session(ckpt_dir, max_new_tokens), prompt or "", given, as_json)
    return 0


def main(arguments: list[str]) -> int:
    """The ``chat`` subcommand; returns the exit status.

    Raises:
        UserError: of the options or of :func:`chat`; with ``--json`` it is on standard output too.
    """
    try:
        return chat(**dict(load_config(chat_config(), None, arguments)))
    except UserError as error:
        if "--json" in arguments:
            print(as_json_line({"error": str(error)}), flush=True)
        raise


def _open_session(ckpt_dir: Path, max_new_tokens: int) -> ChatSession:
    require_model(ckpt_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, renderer, values = load_omni(ckpt_dir, device)
    return ChatSession(model, renderer, max_new_tokens, Taught.of(values))


def _answer_once(
    session: ChatSession, prompt: str, media: Mapping[str, Sequence[Path]], as_json: bool
) -> None:
    start = time.perf_counter()
    notices = []
    for name, path in _each(media):
        session.attach(path, name)
        notices += [session.notice] * bool(session.notice)
    for piece in session.ask(prompt):
        if not as_json:
            print(piece, end="", flush=True)
    if not as_json:
        print(flush=True)
        for notice in notices:
            tell(f"({notice})")
        return
    result = {
        "prompt": prompt,
        **{name: _as_given(media.get(name, ())) for name in session.model.modalities},
        "answer": session.messages[-1].text,
        "tokens": len(session.answer_tokens),
        "seconds": round(time.perf_counter() - start, 3),
        **({"notice": "; ".join(notices)} if notices else {}),
    }
    print(as_json_line(result))


def _each(media: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, paths in media.items() for path in paths)


def _as_given(paths: Sequence[Path]) -> str | list[str] | None:
    """None, one path, or several."""
    written = [str(path) for path in paths]
    return written if len(written) > 1 else next(iter(written), None)


def _enable_completion(completions: Callable[[str], list[str]]) -> None:
    """Makes Tab complete, where Python was built with readline.

    Args:
        completions: of a line.
    """
    try:
        import readline
    except ImportError:
        return

    def complete(line: str, state: int) -> str | None:
        found = completions(line)
        return found[state] if state < len(found) else None

    readline.set_completer_delims("")  # the whole line is one word: file names may hold blanks
    readline.set_completer(complete)
    mac = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if mac else "tab: complete")
