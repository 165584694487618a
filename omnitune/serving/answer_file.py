"""The file of answers: what is answered in it already, and its lines in order."""

from __future__ import annotations

import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from omnitune.config.serving import AnswerConfig
from omnitune.config.settings import read_json_object
from omnitune.data.every import WrongRecord
from omnitune.evaluation.scoring import Question
from omnitune.models.exported import is_exported
from omnitune.sample import Media, UserError
from omnitune.storage import sha256, write_json

Key = tuple[Any, ...]
One = TypeVar("One")  # what is asked, and gets a line


class LineForm(ABC, Generic[One]):
    """What the lines of a file of answers look like."""

    @abstractmethod
    def about(self, one: One) -> dict[str, Any]:
        """What the line of a question is known by."""

    @abstractmethod
    def key(self, line: dict[str, Any]) -> Key:
        """The same, of a line."""

    @abstractmethod
    def question(self, one: One) -> str:
        """What is asked, to notice data that were changed."""

    @abstractmethod
    def answered(self, line: dict[str, Any]) -> str | None:
        """The same, of a line with an answer; None where it has none."""

    @abstractmethod
    def place(self, one: One) -> tuple[str, int]:
        """Source and number of its record, to be told."""


class QuestionLines(LineForm[Question | WrongRecord]):
    """The form of omnitune's own."""

    def about(self, one: Question | WrongRecord) -> dict[str, Any]:
        """Source, number of the record, and id of the question."""
        name = one.id if isinstance(one, Question) else f"{one.source}/{one.number}"
        return {"source": one.source, "number": one.number, "id": name}

    def key(self, line: dict[str, Any]) -> Key:
        """The same three."""
        return line["source"], line["number"], line["id"]

    def question(self, one: Question | WrongRecord) -> str:
        """Question and media, as they are read back from a line; nothing of a wrong record."""
        if isinstance(one, WrongRecord):
            return ""
        return self._asked_in(json.loads(written(asks(one))))

    def answered(self, line: dict[str, Any]) -> str | None:
        """Question and media."""
        return self._asked_in(line) if "answer" in line else None

    def place(self, one: Question | WrongRecord) -> tuple[str, int]:
        """As the question has it."""
        return one.source, one.number

    @staticmethod
    def _asked_in(line: dict[str, Any]) -> str:
        return json.dumps([line["question"], line["media"]])


def asks(question: Question) -> dict[str, Any]:
    """What is asked, as a line has it."""
    parts = [part for message in question.messages for part in message.parts]
    return {
        "question": question.messages[-1].text,
        "media": [[p.modality, str(p.path)] for p in parts if isinstance(p, Media)],
    }


def written(line: dict[str, Any]) -> bytes:
    """A line as the file has it."""
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class AnswerFile(Generic[One]):
    """The file that ``omnitune answer`` writes, begun or gone on with.

    Failures, and a line that was cut off, are taken out of it: they are tried again.

    Args:
        form: of its lines.

    Attributes:
        done: by key, what the question of an answer was.

    Raises:
        UserError: it cannot be written, or holds the answers of another model, or to other data.
    """

    def __init__(self, config: AnswerConfig, form: LineForm[One]) -> None:
        self.path, self.form = config.out, form
        self.done: dict[Key, str] = {}
        self._order: list[Key] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            try:
                self._begin(config)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def _begin(self, config: AnswerConfig) -> None:
        if not _lock(self._file, self.path):
            raise UserError(
                f"{self.path}: another command writes answers into it now; wait until it ends, or "
                "give another --out"
            )
        settings = self.path.with_name(self.path.name + ".settings.json")
        asked = {
            "model": _digest(config.ckpt_dir),
            "data": str(config.data),
            "split": config.split,
            "prompt": config.prompt,
            "max_new_tokens": config.max_new_tokens,
        }
        if config.overwrite or not self.path.stat().st_size:
            self._file.truncate(0)
            write_json(settings, asked)
            return
        if not settings.is_file():
            raise UserError(
                f"{self.path}: is no file that omnitune wrote answers to (there is no "
                f"{settings.name} beside it); give another --out, or --overwrite"
            )
        before = read_json_object(settings)
        if other := [name for name in asked if before.get(name) != asked[name]]:
            raise UserError(
                f"{self.path}: holds answers that were made with another {' and '.join(other)}; "
                "give another --out, or --overwrite"
            )
        self._keep_answers()

    def _keep_answers(self) -> None:
        whole = self.path.read_bytes()
        kept: dict[Key, bytes] = {}
        for line in whole.splitlines(keepends=True):
            if line.endswith(b"\n") and (found := self._read(line)):
                kept[found[0]], self.done[found[0]] = line, found[1]
        self._replace(whole, b"".join(kept.values()))

    def _replace(self, before: bytes, content: bytes) -> None:
        """Writes the whole file anew; it is one or the other, whenever the machine stops."""
        if content == before:
            return
        spare = self.path.with_name(self.path.name + ".tmp")
        file = spare.open("wb")
        _lock(file, spare)
        file.write(content)
        file.flush()
        spare.replace(self.path)
        self._file.close()
        self._file = file

    def _read(self, line: bytes) -> tuple[Key, str] | None:
        """Key and question of an answer; None for anything else."""
        try:
            values = json.loads(line)
            answered = self.form.answered(values)
            return None if answered is None else (self.form.key(values), answered)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def todo(self, asked: Iterable[One]) -> Iterator[One]:
        """What has no answer yet.

        Raises:
            UserError: an answer of the file is to another question than the data now ask.
        """
        for one in asked:
            key = self.form.key(self.form.about(one))
            self._order.append(key)
            if key not in self.done:
                yield one
            elif self.done[key] != self.form.question(one):
                source, number = self.form.place(one)
                raise UserError(
                    f"{self.path}: answers another question than {source} asks now in its "
                    f"record {number + 1}; the data were changed: give another --out, or "
                    "--overwrite"
                )

    @contextmanager
    def open(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """To write lines; each is in the file when the call returns."""

        def write(line: dict[str, Any]) -> None:
            self._file.write(written(line))
            self._file.flush()

        try:
            yield write
            self._sort()
        finally:
            self._file.close()

    def _sort(self) -> None:
        """Puts the lines in the order of the questions: those that failed before come last."""
        whole = self.path.read_bytes()
        key = self.form.key
        lines = {key(json.loads(line)): line for line in whole.splitlines(keepends=True)}
        self._replace(whole, b"".join(lines[key] for key in self._order if key in lines))


def _lock(file: BinaryIO, path: Path) -> bool:
    """Keeps other commands out of a file until this one ends; whether they are not there now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks keeps nobody out
        return True
    # Another command may have put a new file in its place meanwhile.
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def _digest(ckpt_dir: Path) -> str:
    """What a model is known by."""
    files: list[Path] = [ckpt_dir if ckpt_dir.is_file() else ckpt_dir / "omni.pt"]
    if is_exported(ckpt_dir):
        files = sorted(ckpt_dir.glob("*.safetensors"))
    return "/".join(sha256(file)[:16] for file in files)
