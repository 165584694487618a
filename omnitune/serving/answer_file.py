"""The file of answers: what is answered in it already, and its lines in order."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from omnitune.config.serving import AnswerConfig
from omnitune.config.settings import read_json_object
from omnitune.data.every import WrongRecord
from omnitune.evaluation.scoring import Question
from omnitune.models.exported import is_exported
from omnitune.sample import Media, UserError
from omnitune.storage import sha256, write_json

Key = tuple[str, int, str]  # source, number of the record, id of the question
Asked = Question | WrongRecord


def about(one: Asked) -> dict[str, Any]:
    """What a line is known by."""
    name = one.id if isinstance(one, Question) else f"{one.source}/{one.number}"
    return {"source": one.source, "number": one.number, "id": name}


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


class AnswerFile:
    """The file that ``omnitune answer`` writes, begun or gone on with.

    Failures, and a line that was cut off, are taken out of it: they are tried again.

    Attributes:
        done: by key, what the question of an answer was.

    Raises:
        UserError: it cannot be written, or holds the answers of another model, or to other data.
    """

    def __init__(self, config: AnswerConfig) -> None:
        self.path = config.out
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
            if line.endswith(b"\n") and (found := _read(line)):
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

    def todo(self, asked: Iterable[Asked]) -> Iterator[Asked]:
        """What has no answer yet.

        Raises:
            UserError: an answer of the file is to another question than the data now ask.
        """
        for one in asked:
            key = _key(about(one))
            self._order.append(key)
            if key not in self.done:
                yield one
            elif isinstance(one, WrongRecord) or self.done[key] != _question(one):
                raise UserError(
                    f"{self.path}: answers another question than {one.source} asks now in its "
                    f"record {one.number + 1}; the data were changed: give another --out, or "
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
        lines = {_key(json.loads(line)): line for line in whole.splitlines(keepends=True)}
        self._replace(whole, b"".join(lines[key] for key in self._order if key in lines))


def _key(values: dict[str, Any]) -> Key:
    return values["source"], values["number"], values["id"]


def _question(one: Question) -> str:
    """What is asked, as it is read back from a line."""
    return _asked_in(json.loads(written(asks(one))))


def _asked_in(values: dict[str, Any]) -> str:
    return json.dumps([values["question"], values["media"]])


def _read(line: bytes) -> tuple[Key, str] | None:
    """Key and question of an answer; None for anything else."""
    try:
        values = json.loads(line)
        return (_key(values), _asked_in(values)) if "answer" in values else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


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
