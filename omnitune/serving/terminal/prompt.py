"""The prompt: lines are turns, lines that begin with ``/`` are commands."""

from __future__ import annotations

import difflib
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from omnitune.media.base import counted, with_article
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, UserError
from omnitune.serving import conversations, paths
from omnitune.serving.options import Pictures
from omnitune.serving.session import ChatSession
from omnitune.serving.streams import next_line, tell
from omnitune.serving.terminal import transcript
from omnitune.serving.terminal.answers import aside, say, write_answer
from omnitune.serving.terminal.keyboard import PROMPT, Keyboard
from omnitune.serving.terminal.microphone import start_recording
from omnitune.serving.terminal.view import View

COMMANDS = {  # with what stands behind them, and what they do
    "/system": ("[TEXT]", "put a text in front of every conversation; - takes it away"),
    "/retry": ("[TEMPERATURE]", "ask the last question again; above 0, words are drawn"),
    "/save": ("[FILE]", "write the conversation with its media, for /load and the page"),
    "/load": ("FILE", "go on with a conversation that /save or the page wrote"),
    "/time": ("", "say after each answer how long it took, or no longer"),
    "/reset": ("", "forget the conversation and what is attached"),
    "/help": ("", "show this list"),
    "/quit": ("", "leave (Ctrl-D and Ctrl-C pressed twice do too)"),
}
RECORD = ("[SECONDS]", "record from the microphone until you press Enter")


class Terminal:
    """The conversation at a prompt.

    Args:
        session: the conversation.
        title: what to call the model in the greeting.
        pictures: how to show them.
        timings: whether to tell how long an answer took.

    Attributes:
        about: lines of the greeting that say more of it.
        kinds: of media that the model reads, by the command that attaches one.
        commands: what stands behind each, and what it does.
        transcript: what was asked and answered since the conversation began.
    """

    def __init__(
        self,
        session: ChatSession,
        title: str,
        pictures: Pictures = "auto",
        timings: bool = False,
    ) -> None:
        self.session, self.title, self.timings = session, title, timings
        self.about: Sequence[str] = ()
        self.kinds = {f"/{name}": name for name in session.model.modalities}
        recorded = any(MEDIA[name].from_microphone for name in self.kinds.values())
        self.commands = {
            **{
                command: ("PATH", f"attach {with_article(name)} file (its path in a line does too)")
                for command, name in self.kinds.items()
            },
            **({"/record": RECORD} if recorded else {}),
            **COMMANDS,
        }
        self.transcript, self.view = transcript.Transcript(), View(pictures)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if sys.stdin is None:
            raise UserError("standard input is closed, so nobody can talk; give --prompt or a file")
        # Piped input gets answers only: no greeting, no prompt.
        self.typed = sys.stdin.isatty()
        self.keyboard: Keyboard | None = None

    def run(self) -> int:
        """Talks until the user leaves or the input ends; returns the exit status."""
        try:
            self._talk()
        finally:
            if self._folder:
                self._folder.cleanup()
                self._folder = None
        return 0

    def _talk(self) -> None:
        if self.typed:
            self.keyboard = Keyboard(self.completions)
            say(f"{self.title}: reads text, {', '.join(self.session.model.modalities)}.")
            for told in self.about:
                say(told)
            say(f"Type to talk. Commands: {', '.join(self.commands)}.")
        if self.session.system:
            self._tell_system()
        while (line := self._read()) is not None:
            try:
                if not self._handle(line.strip()):
                    break
            except UserError as error:
                print(end="", flush=True)
                tell(str(error))
            except KeyboardInterrupt:
                aside("stopped")
        if self.typed:
            print("Goodbye.")

    def completions(self, line: str) -> list[str]:
        """What a line may become by Tab: commands, and file names after those that take one."""
        return paths.completions(line, list(self.commands), [*self.kinds, "/save", "/load"])

    def _read(self) -> str | None:
        """The next line; None when the input ends or Ctrl-C is pressed twice."""
        pressed = False
        while self.keyboard:
            try:
                return self.keyboard.line()
            except EOFError:
                print()
                return None
            except KeyboardInterrupt:
                print()
                if self.keyboard.held_words():  # a line is cleared
                    pressed = False
                    continue
                if pressed:
                    return None
                pressed = True
                aside("press Ctrl-C again to leave")
        return next_line() or None

    def _handle(self, line: str) -> bool:
        """Answers a line or follows a command; False to leave."""
        if self._took_files(line):
            return True
        command, argument = (*line.split(maxsplit=1), "", "")[:2]
        files = paths.dropped_files(line)
        media, words = ([], line) if files else paths.beside_words(line, self.kinds.values())
        if media and not words.startswith("/"):  # else a command with its file
            for medium in media:
                self._attach(medium, f"took {medium.path.name}", waits=False)
            self._ask(words)
        elif files or not command.startswith("/"):
            if line or self.session.pending:
                self._hint(line, files)
                self._ask(line)
        elif command in self.kinds:
            self._attach_named(command, argument)
        elif command in self.commands:
            follow: Callable[[str], None] = getattr(self, f"_{command[1:]}")
            follow(argument)
        else:
            close = difflib.get_close_matches(command.lower(), self.commands, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "/help lists the commands"
            raise UserError(f"{command} is not a command; {hint}")
        return command != "/quit"

    # Media

    def _took_files(self, line: str) -> bool:
        """Attaches the files that a line is made of, if the model reads all of them."""
        files = paths.dropped_files(line)
        media = [medium for path in files if (medium := self._as_medium(path))]
        if not files or len(media) < len(files):
            return False
        for medium in media:
            kind = with_article(medium.modality)
            self._attach(medium, f"took {medium.path.name} as {kind} file")
        return True

    def _as_medium(self, path: Path) -> Media | None:
        return paths.as_medium(path, self.kinds.values())

    def _attach_named(self, command: str, argument: str) -> None:
        if not argument:
            raise UserError(f"{command} needs a file: {command} PATH")
        path = paths.path_of(argument)
        if not path.exists() and paths.are_several(argument):
            raise UserError(
                f"{path}: no such file; if these are several, give each its own {command} PATH"
            )
        self._attach(Media(self.kinds[command], path), path.name)

    def _attach(self, medium: Media, what: str, waits: bool = True) -> None:
        count = self.session.attach(medium.path, medium.modality)
        self.transcript.note(medium, self.session.pending)
        waiting = ", goes with your next line; an empty one sends it" if waits else ""
        aside(f"{what}, {counted(count, 'token')}{waiting}")
        self.view.show(medium)
        if self.session.notice:
            aside(self.session.notice)

    def _hint(self, line: str, files: Sequence[Path]) -> None:
        """Says what becomes of paths in a line that is sent as text."""
        for path in files:
            if not self._as_medium(path):
                aside(f"{path.name} is no file that the model reads; sent as text")
        known = [m for message in self.session.messages for m in message.parts]
        for medium in () if files else paths.mentioned(line, self.kinds.values()):
            if medium not in (*known, *self.session.pending):
                command = f"/{medium.modality} {medium.path}"
                aside(f"the model is not shown {medium.path.name}; {command} does")

    def _record(self, argument: str) -> None:
        seconds = _number(argument, "/record", "a number of seconds") if argument else None
        if self.keyboard is None and seconds is None:
            raise UserError("nobody can press Enter here; say how long: /record SECONDS")
        kind = next(name for name in self.kinds.values() if MEDIA[name].from_microphone)
        path = self._new_folder() / "recording.wav"
        recording = start_recording(path)
        until = "Enter ends it" if seconds is None else f"{seconds:g} s, Enter ends it before"
        aside(f"recording by {recording.by}; {until}, Ctrl-C drops it")
        keyboard = self.keyboard or Keyboard(self.completions)
        try:
            keyboard.wait_for_enter(seconds, recording.going)
        except BaseException:
            recording.drop()
            raise
        recording.end()
        self._attach(Media(kind, path), "recorded")

    def _new_folder(self) -> Path:
        """For what comes from no file; it goes when the chat ends."""
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="omnitune-")
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    # Answers

    def _ask(self, text: str) -> None:
        pieces = self.session.ask(text)
        self._answer(pieces, self.transcript.begin(text))
        self._leave_room()

    def _answer(self, pieces: Generator[str, None, None], turn: conversations.Turn) -> str:
        """Writes an answer as it comes and notes the turn; returns the answer."""
        said: list[str] = []

        def noted() -> Iterator[str]:
            for piece in pieces:
                said.append(piece)
                yield piece

        state = "stopped"
        try:
            with closing(pieces):
                write_answer(noted())
            state = "done"
        finally:
            if said or state == "done":
                turn["answers"] = [self._entry("".join(said), state)]
                self.transcript.add(turn)
        if len(self.session.answer_tokens) == self.session.room:
            aside(f"stopped at the limit of {self.session.room} tokens")
        if self.timings:
            aside(told_timing(self.session))
        return "".join(said)

    def _entry(self, text: str, state: str) -> dict[str, Any]:
        """An answer as files have it."""
        name, count = Path(self.title).name, len(self.session.answer_tokens)
        return {
            "model": name,
            "title": name,
            "text": text,
            "finish": "length" if count == self.session.room else "stop",
            "tokens": count,
            "first": round(self.session.timing.first, 3),
            "seconds": round(self.session.timing.total, 3),
            "rate": round(rate_of(self.session), 1),
            "state": state,
        }

    def _retry(self, argument: str) -> None:
        usual = self.session.temperature
        if argument:
            self.session.temperature = _number(argument, "/retry", "a temperature, such as 0.7")
        try:
            before, temperature = self.session.messages[-1:], self.session.temperature
            pieces = self.session.retry()
            answer = self._answer(pieces, self.transcript.again())
        finally:
            self.session.temperature = usual
        if not temperature and before and before[0].text == answer:
            aside("these are the likeliest words, as before; /retry 0.7 draws others")
        self._leave_room()

    def _leave_room(self) -> None:
        """An empty line between what belongs together and what follows it."""
        if self.typed:
            print()

    # Commands about the conversation

    def _system(self, argument: str) -> None:
        if argument:
            self.session.system = "" if argument == "-" else argument
        self._tell_system()

    def _tell_system(self) -> None:
        text, taught = self.session.system, self.session.taught.system_text
        if not text:
            aside("no system text; /system TEXT gives one")
            return
        aside(f"system text: {text}")
        if taught is False:
            aside("this model was taught without a system text: it may ignore it, or answer worse")
        elif taught is None:
            aside("whether this model was taught with a system text is not known")

    def _save(self, argument: str) -> None:
        if not self.transcript.turns:
            raise UserError("there is nothing to save yet")
        now = datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
        path = paths.path_of(argument or f"conversation-{now}.json")
        if not path.suffix:
            path = path.with_name(f"{path.name}.json")
        conversations.write_conversation(path, self.transcript.turns, self.session.system)
        aside(f"saved {counted(len(self.transcript.turns), 'turn')} in {path}")

    def _load(self, argument: str) -> None:
        if not argument:
            raise UserError("/load needs a file: /load FILE")
        path = paths.path_of(argument)
        name = Path(self.title).name
        found = transcript.load(path, self.session, name, self._new_folder)
        self.session, self.transcript = found.session, transcript.Transcript(found.turns)
        for turn, media in zip(found.turns, found.shown, strict=True):
            self._replay(turn, media, conversations.answer_of(turn, name))
        what = [f"loaded {counted(len(found.turns), 'turn')} from {path.name}", *found.notices]
        aside("; ".join(what))
        if found.session.system:
            self._tell_system()

    def _replay(self, turn: conversations.Turn, media: Sequence[Media], answer: str) -> None:
        for medium in media:
            aside(medium.path.name)
            self.view.show(medium)
        say(f"{PROMPT}{turn.get('text', '')}", "cyan")
        write_answer([answer])

    def _time(self, argument: str) -> None:
        self.timings = not self.timings
        aside(f"times are {'told' if self.timings else 'no longer told'} after each answer")

    def _reset(self, argument: str) -> None:
        self.session.reset()
        self.transcript = transcript.Transcript()
        aside("a new conversation")

    def _help(self, argument: str) -> None:
        usages = {f"{name} {rest}".strip(): what for name, (rest, what) in self.commands.items()}
        width = max(map(len, usages))
        print("\n".join(f"  {usage:<{width}}  {what}" for usage, what in usages.items()))

    def _quit(self, argument: str) -> None:
        """Nothing: who reads the line leaves."""


def rate_of(session: ChatSession) -> float:
    """Tokens a second of the latest answer, from its first one on; 0 if it has no more."""
    count, timing = len(session.answer_tokens), session.timing
    rest = timing.total - timing.first
    return (count - 1) / rest if count > 1 and rest > 0 else 0.0


def told_timing(session: ChatSession) -> str:
    """How long the latest answer took, in words."""
    count, rate = counted(len(session.answer_tokens), "token"), rate_of(session)
    told = f"{count}, the first after {session.timing.first:.2f} s"
    return told + f", {rate:.1f} tokens/s" * (rate > 0)


def _number(argument: str, command: str, expected: str) -> float:
    try:
        found = float(argument)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 3600:
        raise UserError(f"{command} {argument}: expected {expected}")
    return found
