"""Whether a record that was converted is read back as the sample that it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omnitune.data.place import Place
from omnitune.data.schema import Record
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.sample import Media, Sample, Text, UserError
from omnitune.sources import Source

# Paths that lead out of the new file's folder are told elsewhere.
INDEPENDENT = "independent questions as one conversation"
BACK = Source("back", allow_outside=True)


def difference(native: Values, written: Values, dialect: Dialect, out: Path) -> str:
    """What differs in the sample that is read back; "" if nothing does.

    Args:
        native: the record in our keys, its media as the new file names them.
        written: what the dialect made of it.
        out: the new file.
    """
    before = _sample(native, out)
    try:
        record = Record(out, BACK, 0, written, Place(0, out, 0, 0, 0))
        origin = Origin(out, BACK, record.wrong)
        after = _sample(dialect.native(written, origin), out)
    except UserError as error:
        return f"cannot be read back ({str(error).removeprefix(f'{out}: record 1: ')})"
    if Counter(before.media) != Counter(after.media):
        return "other media"
    for role, what in (("assistant", "answers"), ("user", "questions"), ("system", "system text")):
        if _said(before, role) != _said(after, role):
            return f"other {what}"
    if before.independent_turns != after.independent_turns and before.num_questions > 1:
        return INDEPENDENT
    shown = [[_places(one) for one in sample.split_turns()] for sample in (before, after)]
    if shown[0] != shown[1]:
        return "media in other places of the text"
    weights = [[m.weight for m in s.messages if m.role == "assistant"] for s in (before, after)]
    return "other weights of answers" if weights[0] != weights[1] else ""


def asked_alone(native: Values, name: str) -> list[Values]:
    """The independent questions of a record, each as a record of its own with all its media.

    They are the samples that training and scores make of it (see ``Sample.split_turns``).

    Args:
        name: of the record.
    """
    shared = {key: value for key, value in native.items() if key != "qa"}
    return [shared | pair | {"id": f"{name}#{n}"} for n, pair in enumerate(native["qa"])]


def _sample(native: Values, out: Path) -> Sample:
    return Record(out, BACK, 0, native, Place(0, out, 0, 0, 0)).sample()


def _places(sample: Sample) -> list[list[str]]:
    """What the user says and shows, in order: each medium by its kind."""
    told = []
    for message in sample.messages:
        if message.role == "user":
            words: list[str] = []
            for part in message.parts:
                if isinstance(part, Media):
                    words.append(f"\0{part.modality}")
                elif isinstance(part, Text):
                    words += part.text.split()
            told.append(words)
    return told


def _said(sample: Sample, role: str) -> list[str]:
    """What a role says, blanks aside."""
    messages = [message for message in sample.messages if message.role == role]
    texts = [" ".join(p.text for p in m.parts if isinstance(p, Text)).split() for m in messages]
    return [" ".join(words) for words in texts if words]
