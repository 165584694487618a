"""Lists of sounds and their words, a line each, whatever stands between: LJSpeech, AISHELL, MLS.

Such a text says nothing of itself. It is known by its names: they are those of sounds that lie
below its folder, or in a usual one beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

from omnitune.config.settings import quoted
from omnitune.containers.base import lines_of
from omnitune.data.sources.base import Values
from omnitune.data.sources.manifest import TEXTS
from omnitune.data.sources.parts import kept
from omnitune.data.sources.spoken_sets.joined import spoken
from omnitune.data.sources.spoken_sets.sounds import Sounds, around, known
from omnitune.data.splits import SPLIT
from omnitune.sample import UserError

LOOKED_AT = 20  # lines by which a list is known
SEVERAL = 4  # lines from which one value again and again is noticed
ENOUGH = 0.5  # share of them whose sounds have to be there
ALIKE = 0.5  # of two columns of words, above which the second is the first, normalised
SUFFIXES = (".txt", ".csv", ".tsv", ".trn", ".data", ".lst", ".list")
NAMES = ("text", "content", "transcript", "transcripts", "prompts")  # without a suffix
_ARCTIC = re.compile(r'\( *(\S+) +"(.*)" *\)')
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_PINYIN = re.compile(r"[a-z]+:?[a-z]*[1-5]")  # guang3
_PERSON = ("male", "female", "other", "m", "f", "unknown")
Fields = Callable[[str], list[str]]


def _split(mark: str) -> Fields:
    return lambda line: [field.strip() for field in line.split(mark)]


def _split_once(mark: str | None) -> Fields:
    return lambda line: [field.strip() for field in line.split(mark, 1)]


def _of_festival(line: str) -> list[str]:
    found = _ARCTIC.fullmatch(line)
    return list(found.groups()) if found else []


# What a first line may call the field of the name, and that of the words, the best first.
HEADS = ("id", "utt_id", "utterance_id", "file", "file_id", "fname", "filename", "name", "wav")
WORDS = ("normalized_text", "normalized", *TEXTS, "raw_text")
# What may stand between the fields of a line, the clearest first.
_WAYS: tuple[Fields, ...] = (
    _split("|"),
    _split("\t"),
    _of_festival,
    _split_once(" :: "),
    _split_once(":"),
    _split_once(None),
)


@dataclass(frozen=True)
class NameList:
    """How a list is written.

    Attributes:
        fields: of a line.
        name: number of the field that names a sound. words: that of its words.
        sounds: those that it names.
        width: fields of a line.
        header: names of the fields, if the first line has them.
    """

    fields: Fields
    name: int
    words: int
    sounds: Sounds
    width: int
    header: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What was recognised, with the field that is learnt."""
        title = "a list of sounds and their words"
        if self.header:
            return f"{title} (field {self.header[self.words]})"
        return f"{title} (field {self.words + 1} of {self.width})" if self.width > 2 else title


def may_list(path: Path) -> bool:
    """Whether a file is called as texts are that list something."""
    return path.name.lower().endswith(SUFFIXES) or path.name.lower() in NAMES


def list_of_names(path: Path, root: Path | None = None) -> NameList | None:
    """How a text lists sounds and their words; None if it does not.

    Args:
        root: folder that the user named, in which sounds may lie too.

    Raises:
        UserError: it lists sounds, and nobody knows which field says their words.
    """
    if not may_list(path):
        return None
    try:
        lines = [line for _, line in islice(text_lines(path), LOOKED_AT)]
    except (UserError, OSError):
        return None
    if not lines:
        return None
    for fields in _WAYS:
        rows = [fields(line) for line in lines]
        width = len(rows[0])
        if width < 2 or any(len(row) != width for row in rows):
            continue
        if found := _among(path, root, fields, rows):
            return found
    return None


def _among(path: Path, root: Path | None, fields: Fields, rows: list[list[str]]) -> NameList | None:
    for sounds in around(path, root):
        for column in range(min(2, len(rows[0]))):
            if known([row[column] for row in rows], sounds) < ENOUGH:
                continue
            form = NameList(fields, column, 0, sounds, len(rows[0]))
            if _is_header(rows[0][column], sounds):
                header = tuple(rows[0])
                if header[column].lower() not in HEADS:
                    return None
                words = next((header.index(key) for key in WORDS if key in header), -1)
                form = replace(form, header=header)
            else:
                words = _words(path, rows, column)
            return replace(form, words=words) if words >= 0 else None
    return None


def _is_header(first: str, sounds: Sounds) -> bool:
    """Whether a first line names columns: it names no sound, and has no number as names do."""
    return not sounds.has(first) and not any(sign.isdigit() for sign in first)


def _words(path: Path, rows: list[list[str]], name: int) -> int:
    """The column of the words, normalised where they are given twice; -1 if there is none.

    Raises:
        UserError: there are several, and they are not the same words.
    """
    columns = list(zip(*rows, strict=True))
    told = [n for n in range(name + 1, len(columns)) if _is_words(columns[n])]
    if not told:
        return -1
    first, *others = told
    for column in others:
        both = zip(columns[first], columns[column], strict=True)
        ratio = [SequenceMatcher(None, a.lower(), b.lower()).ratio() for a, b in both if a and b]
        if sum(ratio) < ALIKE * len(ratio):
            shown = ", ".join(quoted(row[column]) for row in rows[:2])
            raise UserError(
                f"{path}: its fields {first + 1} and {column + 1} both hold words, and other ones "
                f"({shown}, ...); write a table with the columns file_name and text"
            )
    if _repeated(columns[told[-1]]):
        raise UserError(
            f"{path}: its field {told[-1] + 1} holds the same for many sounds "
            f"({quoted(rows[0][told[-1]])}), so that it may be a class, and no words; write a "
            "table with the columns file_name and label, or text"
        )
    if _interleaved(columns[told[-1]]):
        raise UserError(
            f"{path}: its words stand between their pinyin ({quoted(rows[0][told[-1]])}); write a "
            "table with the columns file_name and text, which has the words alone"
        )
    return told[-1]


def _is_words(column: Sequence[str]) -> bool:
    filled = [value for value in column if value]
    letters = any(sign.isalpha() for value in filled for sign in value)
    persons = all(value.lower() in _PERSON for value in filled)
    spelt = all(" | " in value or value.endswith(" |") for value in filled)
    others = all(_NUMBER.fullmatch(value) or "://" in value for value in filled)
    return letters and not persons and not spelt and not others


def _repeated(column: Sequence[str]) -> bool:
    """Whether a field holds few values again and again, as classes are."""
    single = all(len(value.split()) == 1 for value in column if value)
    return single and len(column) >= SEVERAL and 2 * len(set(column)) <= len(column)


def _interleaved(column: Sequence[str]) -> bool:
    pairs = [value.split() for value in column]
    return all(
        len(words) > 1 and all(_PINYIN.fullmatch(word) for word in words[1::2]) for words in pairs
    )


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank; raises OSError, UserError."""
    for number, _, content in lines_of(path):
        try:
            yield number, content.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: line {number} is not UTF-8 text ({error.reason}); save it as UTF-8"
            ) from None


def records_of_list(form: NameList, folder: str, path: Path) -> Iterator[Values]:
    """The transcriptions of a list in our keys.

    Args:
        folder: of its sounds, as seen from that of all media.

    Raises:
        OSError, UserError: it cannot be read, or a line has another number of fields.
    """
    for number, line in islice(text_lines(path), bool(form.header), None):
        fields = form.fields(line)
        if len(fields) != form.width:
            raise UserError(
                f"{path}: line {number} has {len(fields)} fields and the first {form.width}; give "
                "every line the same"
            )
        name = fields[form.name]
        others = () if form.header else fields[form.name + 1 :]
        words = next((text for text in (fields[form.words], *others) if text), "")
        found = form.sounds.find(name) or form.sounds.missing(name)
        sound = found if folder == "." else f"{folder}/{found}"
        told = kept(dict(zip(form.header, fields, strict=False)))
        split = told.get(SPLIT) or form.sounds.splits.get(found, "")
        yield spoken(sound, words, split, name, told.get("language", ""))
