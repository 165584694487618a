"""Tables in text with a column that names sounds: ESC-50, UrbanSound8K, Clotho, VoxPopuli.

Which column it is shows in the folder: its values are names of sounds that are there. What the
others hold is told by their names.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from omnitune.data.sources.base import Values
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.manifest import AUDIO, CAPTION, TEXTS, TRANSCRIPTION, TRANSLATION
from omnitune.data.sources.parts import is_blank, kept
from omnitune.data.sources.spoken_sets.name_lists import text_lines
from omnitune.data.sources.spoken_sets.sounds import Sounds, around, known
from omnitune.data.splits import SPLIT
from omnitune.sample import UserError

LOOKED_AT = 20  # rows by which a table is known
ENOUGH = 0.5  # share of them whose sounds have to be there
SUFFIXES = (".csv", ".tsv")
QUESTIONS = ("question", "QuestionText")
WORDS: tuple[str, ...] = (
    "normalized_text",
    "normalized_transcription",
    *TEXTS,
    "raw_text",
    "raw_transcription",
)
WORDS += ("wrd", "words")
LABELS = ("category", "class", "class_name", "labels", "label", "human_labels", "scene_label")
_CALLED = ("id", "name", "file", "path")
_DELIMITERS = ("|", "\t", ",", ";")


@dataclass(frozen=True)
class SoundTable:
    """How a table is written.

    Attributes:
        delimiter: of its fields.
        names: of its columns.
        sound: the column that names sounds.
        told: what the others hold, by our name for it.
        sounds: those that it names.
    """

    delimiter: str
    names: tuple[str, ...]
    sound: str
    told: Mapping[str, Sequence[str]]
    sounds: Sounds

    @property
    def title(self) -> str:
        """What was recognised, with the column that is learnt."""
        learnt = ", ".join(self.told.get("answer") or self.told.get(CAPTION, ()))
        return f"a table of sounds ({self.sound}: {learnt})"


def table_of_sounds(path: Path, root: Path | None = None) -> SoundTable | None:
    """How a table names sounds and what is to be learnt of them; None if it does not.

    Args:
        root: folder that the user named, in which sounds may lie too.
    """
    if not path.name.lower().endswith(SUFFIXES):
        return None
    try:
        first = next((line for _, line in text_lines(path)), "")
        delimiter = next((mark for mark in _DELIMITERS if mark in first), "")
        if not delimiter:
            return None
        rows = list(islice(_rows(path, delimiter), LOOKED_AT))
    except (UserError, OSError, csv.Error, UnicodeDecodeError):
        return None
    told = _told(rows[0]) if rows else {}
    if not told.keys() & {"answer", CAPTION}:
        return None
    used = {name for names in told.values() for name in names}
    for sounds in around(path, root):
        for column in _by_likelihood(rows):
            if column not in used and known([row[column] for row in rows], sounds) >= ENOUGH:
                return SoundTable(delimiter, tuple(rows[0]), column, told, sounds)
    return None


def _by_likelihood(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns that may name sounds: first those whose values end as files of sounds do.

    A column of numbers is one only if it is called so: sounds may be called 1, and so may a fold.
    """
    files, others = [], []
    for column in rows[0]:
        values = [row[column] for row in rows]
        if not all(values):
            continue
        if all(modality_of(value) == AUDIO for value in values):
            files.append(column)
        elif not all(value.isdigit() for value in values) or column.lower().endswith(_CALLED):
            others.append(column)
    return [*files, *others]


def _rows(path: Path, delimiter: str) -> Iterator[dict[str, str]]:
    """The rows under the names of the first one.

    Raises:
        OSError, csv.Error: it cannot be read.
        UnicodeDecodeError: it is no UTF-8 text.
        UserError: a row has another number of fields.
    """
    # Where tabs or bars part the fields, a quote is a sign like any other.
    plain = delimiter not in ",;"
    names: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(
            file, delimiter=delimiter, quotechar=None if plain else '"', strict=True
        )
        for row in reader:
            if not any(row):
                continue
            if not names:
                names = [name.strip() or f"column {n}" for n, name in enumerate(row, 1)]
                continue
            if len(row) != len(names):
                raise UserError(
                    f"{path}: line {reader.line_num} has {len(row)} fields and the header "
                    f"{len(names)} ({', '.join(row)[:60]}); give every row all its fields"
                )
            yield dict(zip(names, row, strict=True))


def _told(row: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """What the columns of a table hold as their names tell, by our name for it."""
    captions = [name for name in row if name == CAPTION or name.startswith(f"{CAPTION}_")]
    question = next((name for name in QUESTIONS if name in row), "")
    if question:
        return {"question": [question], "answer": ["answer"]} if "answer" in row else {}
    if target := next((name for name in _target(row) if name in row), ""):
        return {"answer": [target], "task": [TRANSLATION]}
    if words := next((name for name in WORDS if name in row), ""):
        return {"answer": [words], "task": [TRANSCRIPTION]}
    if captions:
        return {CAPTION: captions}
    label = next((name for name in LABELS if name in row), "")
    return {"answer": [label]} if label else {}


def _target(row: Mapping[str, str]) -> Sequence[str]:
    """Columns of a translation: CoVoST's, and fairseq's where the words are there too."""
    return (TRANSLATION, "tgt_text") if "src_text" in row else (TRANSLATION,)


def records_of_table(form: SoundTable, folder: str, path: Path) -> Iterator[Values]:
    """The records of a table in our keys.

    Args:
        folder: of its sounds, as seen from that of all media.

    Raises:
        OSError, UserError: it cannot be read.
    """
    try:
        for row in _rows(path, form.delimiter):
            found = form.sounds.find(row[form.sound]) or form.sounds.missing(row[form.sound])
            record = {**kept(dict(row)), AUDIO: found if folder == "." else f"{folder}/{found}"}
            record.pop("task", None)
            if SPLIT not in record and (split := form.sounds.splits.get(found)):
                record[SPLIT] = split
            yield record | _learnt(row, form.told)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no table ({error}); write it anew as CSV in UTF-8") from None


def _learnt(row: Mapping[str, str], told: Mapping[str, Sequence[str]]) -> Values:
    if captions := told.get(CAPTION):
        texts = [row[name].strip() for name in captions if not is_blank(row[name])]
        several = {"answers": texts} if len(texts) > 1 else {}
        return {"answer": texts[0] if texts else "", "task": CAPTION, **several}
    found: Values = {"answer": row[told["answer"][0]].strip()}
    if "question" in told:
        found["question"] = row[told["question"][0]]
    if "task" in told:
        found["task"] = told["task"][0]
    return found
