"""The chat in the terminal: a prompt with commands, or a single answer for scripts."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
import time
import unicodedata
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import torch

from omnitune.modalities.registry import MODALITIES
from omnitune.models.components import load_omni
from omnitune.sample import UserError
from omnitune.serving.session import MAX_NEW_TOKENS, ChatSession, named_in_errors

CKPT_DIR = Path("checkpoints/omni_sft_tiny")

MEDIA_COMMANDS = {f"/{name}": name for name in MODALITIES}
COMMANDS = {
    **{f"{command} PATH": f"attach an {name} file" for command, name in MEDIA_COMMANDS.items()},
    "/reset": "forget the conversation and what is attached",
    "/help": "show this list",
    "/quit": "leave (Ctrl-D does too)",
}
COMMAND_NAMES = [command.split()[0] for command in COMMANDS]


class Terminal:
    """The conversation at a prompt: lines are turns, lines that begin with ``/`` are commands.

    Args:
        session: the conversation.
        title: what to call the model in the greeting.
    """

    def __init__(self, session: ChatSession, title: str) -> None:
        self.session, self.title = session, title
        # Piped input gets answers only: no greeting, no prompt.
        self.typed = sys.stdin.isatty()

    def run(self) -> int:
        """Talks until the user leaves or the input ends; returns the exit status."""
        if self.typed:
            _enable_completion()
            print(f"{self.title}: reads text, {', '.join(self.session.model.modalities)}.")
            print(f"Type to talk. Commands: {', '.join(COMMANDS)}.")
        while (line := self._read()) is not None:
            try:
                if not self._handle(line.strip()):
                    break
            except UserError as error:
                sys.stdout.flush()
                print(error, file=sys.stderr, flush=True)
            except KeyboardInterrupt:
                print("\n(stopped)", flush=True)
        if self.typed:
            print("Goodbye.")
        return 0

    def _read(self) -> str | None:
        """The next line; None when the input ends or Ctrl-C is pressed."""
        try:
            if self.typed:
                return input("you> ")
            return sys.stdin.readline() or None
        except (EOFError, KeyboardInterrupt):
            print()
            return None

    def _handle(self, line: str) -> bool:
        """Answers a line or follows a command; False to leave."""
        command, argument = (*line.split(maxsplit=1), "", "")[:2]
        if not command.startswith("/"):
            if line or self.session.pending:
                self._answer(line)
        elif command in MEDIA_COMMANDS:
            self._attach(MEDIA_COMMANDS[command], argument)
        elif command == "/reset":
            self.session.reset()
            print("(a new conversation)")
        elif command == "/help":
            print("\n".join(f"  {usage:<12} {text}" for usage, text in COMMANDS.items()))
        elif command != "/quit":
            close = difflib.get_close_matches(command.lower(), COMMAND_NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "/help lists the commands"
            raise UserError(f"{command} is not a command; {hint}")
        return command != "/quit"

    def _attach(self, modality: str, argument: str) -> None:
        if not argument:
            raise UserError(f"/{modality} needs a file: /{modality} PATH")
        path = _path_of(argument)
        count = self.session.attach(path, modality)
        print(f"({path.name}, {count} tokens, goes with your next line; an empty one sends it)")

    def _answer(self, text: str) -> None:
        with closing(self.session.ask(text)) as pieces:
            print("model> ", end="", flush=True)
            for piece in pieces:
                print(_printable(piece), end="", flush=True)
        print()
        if len(self.session.answer_tokens) == self.session.room:
            print(f"(stopped at the limit of {self.session.room} tokens)")


def chat(
    ckpt_dir: Path,
    prompt: str | None = None,
    as_json: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    **media: Path | None,
) -> int:
    """Opens the prompt, or answers once if there is a text or a medium.

    Args:
        ckpt_dir: folder with ``omni.pt``.
        prompt: text of the single turn; may be empty if there is a medium.
        as_json: print one line with ``prompt``, a path or null for each modality, ``answer``,
            ``tokens`` (of the answer) and ``seconds`` (reading media and answering; loading the
            model is left out). After an error the line is ``{"error": sentence}``, so that
            standard output is JSON in any case.
        max_new_tokens: longest answer.
        **media: file by modality (``image=...``).

    Returns:
        exit status: 0, 2 after a UserError (told on standard error), 130 after Ctrl-C.
    """
    _tolerate_any_bytes()
    given = {name: path for name, path in media.items() if path is not None}
    try:
        if prompt is None and not given and not as_json:
            return Terminal(_open_session(ckpt_dir, max_new_tokens), str(ckpt_dir)).run()
        if not given and not (prompt or "").strip():
            flags = " or ".join(f"--{name}" for name in MODALITIES)
            raise UserError(f"there is nothing to answer; give a --prompt with words, or {flags}")
        for name, path in given.items():  # a missing file is told before a large model is loaded
            with named_in_errors(path):
                MODALITIES[name].check(path)
        _answer_once(_open_session(ckpt_dir, max_new_tokens), prompt or "", given, as_json)
    except UserError as error:
        if as_json:
            print(json.dumps({"error": str(error)}, ensure_ascii=False), flush=True)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def main(arguments: list[str]) -> int:
    """The ``chat`` subcommand; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="omnitune chat",
        allow_abbrev=False,
        description="Talks to a model: at a prompt, or once if --prompt or a file is given.",
        epilog="After a mistake in the input the exit status is 2 and standard error says what is "
        'wrong; with --json, standard output then holds {"error": ...}.',
    )
    add = parser.add_argument
    add(
        "--ckpt_dir",
        "--ckpt-dir",
        type=Path,
        default=CKPT_DIR,
        metavar="DIR",
        help="the model's folder [%(default)s]",
    )
    add("--prompt", metavar="TEXT", help="answer this and leave; may be empty beside a file")
    for name in MODALITIES:
        add(f"--{name}", type=_path_of, metavar="FILE", help=f"{name} to put before the text")
    add("--json", action="store_true", help="print the answer as one line of JSON")
    add(
        "--max-new-tokens",
        "--max_new_tokens",
        type=_positive,
        default=MAX_NEW_TOKENS,
        metavar="N",
        help="longest answer in tokens [%(default)s]",
    )
    options = vars(parser.parse_args(arguments))
    return chat(as_json=options.pop("json"), **options)


def completions(line: str) -> list[str]:
    """What a line may become by Tab: commands, and file names after those that take one."""
    command, space, typed = line.partition(" ")
    if not space:
        return [
            name + " " if name in MEDIA_COMMANDS else name
            for name in COMMAND_NAMES
            if line and name.startswith(line)
        ]
    if command not in MEDIA_COMMANDS:
        return []
    if typed == "~":
        return [f"{command} ~/"]
    start = typed.rpartition("/")[2]
    folder = typed.removesuffix(start)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    except OSError:
        return []
    hidden = start.startswith(".")
    return [
        f"{command} {folder}{name}"
        for name in names
        if name.startswith(start) and (hidden or not name.startswith("."))
    ]


def _open_session(ckpt_dir: Path, max_new_tokens: int) -> ChatSession:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer, _ = load_omni(ckpt_dir, device)
    return ChatSession(model, tokenizer, max_new_tokens)


def _answer_once(
    session: ChatSession, prompt: str, media: Mapping[str, Path], as_json: bool
) -> None:
    start = time.perf_counter()
    for name, path in media.items():
        session.attach(path, name)
    for piece in session.ask(prompt):
        if not as_json:
            print(piece, end="", flush=True)
    if not as_json:
        print()
        return
    result = {
        "prompt": prompt,
        **{name: str(media[name]) if name in media else None for name in MODALITIES},
        "answer": session.messages[-1].text,
        "tokens": len(session.answer_tokens),
        "seconds": round(time.perf_counter() - start, 3),
    }
    print(json.dumps(result, ensure_ascii=False))


def _printable(text: str) -> str:
    """A text without control characters: an answer must not steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def _path_of(typed: str) -> Path:
    """A path as people type or drop it: ``~``, quotes around it, blanks escaped."""
    typed = typed.strip()
    if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "'\"":
        typed = typed[1:-1]
    path = os.path.expanduser(typed)
    return Path(path if os.path.exists(path) else path.replace("\\ ", " "))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _tolerate_any_bytes() -> None:
    """Neither a stray byte in the input nor a narrow output encoding shall end a conversation."""
    for file, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(file, io.TextIOWrapper):
            file.reconfigure(errors=errors)


def _enable_completion() -> None:
    """Makes Tab complete, where Python was built with readline."""
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
