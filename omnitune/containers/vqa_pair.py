"""A file of questions and one of answers, as VQAv2 has them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from omnitune.containers.base import without_lead
from omnitune.containers.derived import JoinedLines
from omnitune.containers.json_object import scan_list
from omnitune.containers.media_folder import media_below
from omnitune.sample import UserError

QUESTIONS, ANNOTATIONS = "questions", "annotations"  # keys of the files' objects
ID, PICTURE_ID = "question_id", "image_id"
PICTURE = PICTURE_ID.removesuffix("_id")  # key of a record: the path of its picture
_LIST = re.compile(rb'"questions"\s*:\s*\[')
_ANSWERED = re.compile(rb'"questions"\s*:\s*\[.*?"answers?"\s*:', re.DOTALL)
_SECOND_LINE = re.compile(rb"[^\n]*\}\s*\n\s*\{")
_SUBSET = re.compile(r"(train|val|test|dev)\w*?\d{4}")
_FORM = re.compile("(OpenEnded|MultipleChoice)_", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)\.\w+$")
_FOLDERS = ("", "images")  # in which pictures lie, or folders of their subsets


class VqaPairContainer(JoinedLines):
    """Questions joined with their annotations and the paths of their pictures.

    The path is that of the questions. A joined copy, one record a line, is made once.

    Attributes:
        alone: the annotations need not be there.
    """

    name = "vqa"
    suffixes = ()
    alone: ClassVar[bool] = False

    def __init__(self) -> None:
        # By questions, the number of the first picture and where all lie, as they were found last.
        self._pictures: dict[tuple[str, int, int], tuple[Any, _Pictures]] = {}

    def recognises(self, head: bytes) -> bool:
        """Whether an object with a list of questions begins, and these have no answers."""
        head = without_lead(head)
        lines = _SECOND_LINE.match(head)  # JSON lines may have such a key
        listed = bool(_LIST.search(head)) and not _ANSWERED.search(head)
        return head.startswith(b"{") and listed and not lines

    def parts(self, path: Path) -> list[Path]:
        """The questions and the annotations."""
        try:
            return [path, _annotations_of(path)]
        except UserError:
            if not self.alone:
                raise
            return [path]

    def beside(self, path: Path) -> str:
        """Where the first picture lies: a copy joined before they were moved names old places."""
        stat = path.stat()
        version = str(path.absolute()), stat.st_size, stat.st_mtime_ns
        first, pictures = self._pictures.get(version, (None, None))
        if pictures is None or not (path.parent / pictures.path(first)).is_file():
            try:
                _, _, question = next(scan_list(path, QUESTIONS))
                if PICTURE_ID not in question or PICTURE in question:
                    return ""
                first = question[PICTURE_ID]
                pictures = _find_pictures(path, first)
            except (UserError, StopIteration, TypeError):  # whoever joins them tells of it
                return ""
            self._pictures.clear()
            self._pictures[version] = first, pictures
        return pictures.path(first)

    def join(self, path: Path) -> Iterator[dict[str, Any]]:
        """The two files, joined."""
        questions, *annotations = self.parts(path)
        pictures: _Pictures | None = None
        for record in _joined(questions, annotations[0]) if annotations else _alone(questions):
            if PICTURE_ID in record and PICTURE not in record:
                pictures = pictures or _find_pictures(questions, record[PICTURE_ID])
                record[PICTURE] = pictures.path(record[PICTURE_ID])
            yield record


class VqaQuestionsContainer(VqaPairContainer):
    """The same for whoever only asks: the annotations need not be there."""

    name = "vqa questions"
    alone = True


def _joined(questions: Path, annotations: Path) -> Iterator[dict[str, Any]]:
    """Each question with its annotation."""
    places = {v[ID]: (a, n) for a, n, v in scan_list(annotations, ANNOTATIONS) if _has_id(v)}
    with annotations.open("rb", buffering=0) as file:
        for number, (_, _, question) in enumerate(scan_list(questions, QUESTIONS), 1):
            if not _has_id(question) or question[ID] not in places:
                raise UserError(
                    f'{questions}: question {number} has no annotation of its "{ID}" in '
                    f"{annotations}; give it the annotations of these questions"
                )
            start, length = places[question[ID]]
            yield json.loads(os.pread(file.fileno(), length, start)) | question


def _alone(questions: Path) -> Iterator[dict[str, Any]]:
    """Each question as it is."""
    for number, (_, _, question) in enumerate(scan_list(questions, QUESTIONS), 1):
        if not isinstance(question, dict):
            raise UserError(f"{questions}: question {number} is no object")
        yield dict(question)


def _has_id(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get(ID), int | str)


def _annotations_of(questions: Path) -> Path:
    """The file of annotations beside one of questions; raises UserError."""
    usual = _FORM.sub("", questions.name.replace(QUESTIONS, ANNOTATIONS))
    names = dict.fromkeys([usual, questions.name.replace(QUESTIONS, ANNOTATIONS)])
    there = [questions.with_name(name) for name in names if name != questions.name]
    for path in there:
        if path.is_file():
            return path
    found = sorted(questions.parent.glob(f"*{ANNOTATIONS}*.json"))
    if len(found) == 1:
        return found[0]
    raise UserError(
        f"{questions}: holds questions, and their answers are not beside it; looked for "
        f"{usual} and for one *{ANNOTATIONS}*.json"
    )


class _Pictures(NamedTuple):
    """Where pictures lie: by a pattern of their names, else by the number at their end."""

    folder: str
    subset: str
    by_number: dict[int, str]

    def path(self, number: Any) -> str:
        """The path of a picture; the usual one where it is not there, as errors name it then."""
        if not isinstance(number, int):
            return str(number)
        name = f"{self.folder}{_usual(self.subset, number)}"
        return self.by_number.get(number, name)


def _usual(subset: str, number: int) -> str:
    """What COCO calls a picture."""
    return f"COCO_{subset}_{number:012d}.jpg" if subset else f"{number:012d}.jpg"


def _find_pictures(questions: Path, first: Any) -> _Pictures:
    """Where the pictures of some questions lie; raises UserError.

    Args:
        first: number of the first question's picture.
    """
    found = _SUBSET.search(questions.name)
    subset = found[0] if found else ""
    if not isinstance(first, int):
        return _Pictures("", subset, {})
    folders = [*_folders(subset)]
    bases = (questions.parent, *islice(questions.absolute().parent.parents, 2))
    for base in bases:
        for folder in folders:
            for of in dict.fromkeys((subset, "")):  # with the year's prefix, and without
                if (base / f"{folder}{_usual(of, first)}").is_file():
                    return _Pictures(folder, of, {})
    numbers = {
        int(n[1]): name for name in media_below(questions.parent) if (n := _NUMBER.search(name))
    }
    if first in numbers:
        return _Pictures("", subset, numbers)
    raise UserError(
        f"{questions}: the picture of {PICTURE_ID} {first} is not there; looked for "
        f"{_usual(subset, first)} in {questions.parent}, the two folders above it, and "
        f"{', '.join(filter(None, folders))} in these, and for any name that ends in this number "
        f"below {questions.parent}"
    )


def _folders(subset: str) -> Iterator[str]:
    for first in _FOLDERS:
        for second in dict.fromkeys(("", subset)):
            yield "".join(f"{name}/" for name in (first, second) if name)
