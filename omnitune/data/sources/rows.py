"""Flat rows: Hugging Face data sets, folders with metadata, folders by class, VQAv2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found, quoted
from omnitune.data.choices import lettered
from omnitune.data.options import option_at
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import ASSISTANT, SYSTEM, USER, Reader
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.native import is_ours
from omnitune.data.sources.parts import (
    ForeignDialect,
    as_text,
    first_filled,
    is_blank,
    is_web,
    kept,
    located_all,
    one_of,
    refuse_videos,
)
from omnitune.data.sources.row_media import (
    IDS,
    PICTURE,
    has_bytes,
    media_keys,
    media_of,
    names_precisely,
    shows_media,
)
from omnitune.data.sources.row_words import (
    ANSWERS,
    CHOICES,
    CONTEXTS,
    LABELS,
    QUESTIONS,
    SYSTEMS,
    choices_of,
    is_nothing,
    places,
    tagged,
    untagged,
    usual,
)

# By kind of medium, what its words are called, and the task that they make.
WORDS = {
    "image": (
        ("caption", "text", "captions", "txt", "alt_text", "blip_caption", "annotations_captions"),
        "caption",
    ),
    "audio": (
        ("text", "sentence", "transcription", "transcript", "normalized_text", "txt"),
        "transcription",
    ),
}
QAS = ("qas", "qa_pairs")  # independent questions, as Visual Genome has them
TEXTS = "texts"  # pairs of user and assistant, as The Cauldron has them
VQA = "vqa"  # the task, too
ANLS = "anls"
# Fields by which sets of questions about documents are known (DocVQA, InfographicVQA, ST-VQA).
_OF_DOCUMENTS = frozenset(
    ("ucsf_document_id", "ocr_output_file", "operation/reasoning", "image_local_name")
)
FILE_NAME, FILE, LABEL = "file_name", "file", "label"
# Keys by which the records of other dialects are known.
_OTHERS = frozenset(
    ("messages", "conversations", "conversation", "instruction", "completion", "chosen")
    + ("audio_filepath", "line", "__key__")
)


class RowsDialect(ForeignDialect):
    """Columns as most data sets on the Hub call them."""

    name = "hf_dataset"
    title = "rows of a data set"
    reads = (
        *(*QUESTIONS, *ANSWERS, *CHOICES, *LABELS, *CONTEXTS, *SYSTEMS, TEXTS, *QAS),
        *(*WORDS["image"][0], *WORDS["audio"][0]),
        "path",  # Common Voice repeats where the sound was
    )

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have media or a question, with something to answer, and no other's keys."""
        return all(map(_is_row, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """A question, a caption, a transcription or a label."""
        media = media_of(record, origin)
        if isinstance(record.get(TEXTS), list) and record[TEXTS]:
            return _pairs(record, media, origin)
        if key := first_filled(record, QAS):
            return _independent(record, key, media, origin)
        return of_row(record, media, origin)

    def unread(self, record: Values) -> list[str]:
        """All that is not read, but for columns that media are told by."""
        known = media_keys(record)
        shows = shows_media(record)
        return [
            key
            for key in super().unread(record)
            if not (key in known or (shows and is_web(record[key])))
        ]


class FolderDialect(ForeignDialect):
    """Metadata beside a folder of media: ``file_name`` and any columns."""

    name = "folder"
    title = "a folder of media with metadata"
    reads = RowsDialect.reads

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all name a file."""
        return all(map(_is_of_folder, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The other columns are read as those of a row."""
        refuse_videos(record, origin)
        media: dict[str, list[str]] = {}
        for key in sorted(filter(_names_file, record), key=lambda key: key not in _FILE_NAMES):
            for path in located_all(record[key], [key], origin):
                if not (kind := modality_of(path)):
                    raise origin.wrong(
                        f"{quoted(key)} is {quoted(path)}, whose suffix is of no known medium"
                    )
                media.setdefault(kind, []).append(path)
        rest = {key: value for key, value in record.items() if not _names_file(key)}
        return of_row(rest, media, origin)

    def unread(self, record: Values) -> list[str]:
        """All that is not read, but for the files."""
        return [key for key in super().unread(record) if not _names_file(key)]


# How cameras, recorders and programs begin the names of their files: these are no classes.
_NO_CLASS = {
    *("img", "image", "picture", "pic", "photo", "screenshot", "scan", "dsc", "dscf", "dscn"),
    *("audio", "sound", "speech", "voice", "clip", "track", "rec", "recording", "sample", "wav"),
    *("video", "vid", "mov", "gopr", "frame", "capture", "file", "pxl"),
}


class LabelledDialect(ForeignDialect):
    """A folder of media whose names, or whose folders' names, are the answers."""

    name = "labelled"
    title = "a folder of media by class"
    reads = (FILE, LABEL)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all are a file with its folder, and nothing else."""
        return all(set(record) == {FILE, LABEL} for record in records)

    def native(self, record: Values, origin: Origin) -> Values:
        """The class as answer: the folder's name, or the beginning of the file's own."""
        file, label = record.get(FILE), record.get(LABEL)
        if not isinstance(file, str) or not (kind := modality_of(file)):
            raise origin.wrong(f'"{FILE}" is {as_found(file)}, expected the path of a medium')
        path = Path(file)
        first, *others = path.stem.replace("-", "_").split("_")
        numbered = len(path.parts) == 1 and others and others[-1].isdigit()
        if numbered and first.lower() not in _NO_CLASS:  # 3_jackson_0.wav
            label = first
        if not isinstance(label, str) or is_blank(label) or label.lower().rstrip("s") in _NO_CLASS:
            raise origin.wrong(
                f"{file} lies in no folder of a class; expected one folder a class, such as "
                f"red/{path.name}, or names such as red_1{path.suffix}"
            )
        return {kind: file, "answer": label}


class VqaDialect(ForeignDialect):
    """Questions joined with their annotations, as VQAv2 has them."""

    name = VQA
    title = "VQAv2 questions with annotations"
    reads = (*RowsDialect.reads, "image_id")

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have a type of question, and answers."""
        return all(map(_is_vqa, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The question with the answer that most people gave."""
        media = media_of(record, origin)
        if not media:
            number = quoted(record.get("image_id"))
            raise origin.wrong(f'has no "image", and none was found for "image_id" {number}')
        found = of_row(record, media, origin)
        found.setdefault("task", VQA)
        if "id" not in found and "question_id" in record:
            found["id"] = str(record["question_id"])
        return found


_FILE_NAMES = (FILE_NAME, f"{FILE_NAME}s")


def _names_file(key: str) -> bool:
    return key.endswith(_FILE_NAMES)


def _is_of_folder(record: Values) -> bool:
    named = any(map(_names_file, record))
    return named and not has_bytes(record) and not names_precisely(record)


def _is_vqa(record: Values) -> bool:
    given = "answers" in record or "multiple_choice_answer" in record
    return "question" in record and given and ("question_type" in record or "image_id" in record)


def _is_row(record: Values) -> bool:
    others = not _OTHERS.isdisjoint(record) or _is_of_folder(record) or _is_vqa(record)
    if "question_type" in record and "question" not in record:  # VQAv2's answers alone
        return False
    of_sound = {"path", "sentence"} <= set(record) or "duration" in record
    if others or is_ours(record) or (of_sound and isinstance(record.get("audio", ""), str)):
        return False
    if "query" in record and "response" in record:
        return False
    if "prompt" in record and "response" in record:
        return False
    row = usual(record)
    asked = any(key in row for key in QUESTIONS) and any(key in row for key in ANSWERS)
    told = any(key in row for key in RowsDialect.reads if key != "path")
    listed = any(isinstance(record.get(key), list) for key in QAS)
    return asked or TEXTS in record or listed or (told and shows_media(record))


def of_row(record: Values, media: dict[str, list[str]], origin: Origin) -> Values:
    """A flat record: question and answer, else words of its medium, else a label."""
    record = usual(record)
    found: Values = {**media, **kept(record)}
    question, answer = first_filled(record, QUESTIONS), first_filled(record, ANSWERS)
    answer = answer or (first_filled(record, LABELS) if question else "")
    if question:
        found["question"] = _in_context(record, as_text(record[question]), origin)
    if answer:
        found |= _answered(record, found.get("question"), answer, origin)
        if _is_of_document(record) and "choices" not in found:
            found.setdefault("task", ANLS)
        return _with_system(record, _placed(found, media))
    words, task = WORDS.get(next(iter(media)), ((), "")) if len(media) == 1 else (("text",), "")
    if key := first_filled(record, words):
        if task and not question:
            found.setdefault("task", task)
        return {**found, **_answer(record[key])}
    if key := first_filled(record, LABELS):
        return {**found, "answer": as_text(record[key])}
    known = one_of(dict.fromkeys([*ANSWERS[:3], *words[:4], *LABELS[:2]]))
    raise origin.wrong(
        f"has the fields {one_of(record)}, and none that holds an answer ({known}, ...); say "
        "which does with columns"
    )


def _is_of_document(record: Values) -> bool:
    return names_precisely(record) or not _OF_DOCUMENTS.isdisjoint(record)


def _in_context(record: Values, question: Any, origin: Origin) -> Any:
    """A question below what it is about."""
    for key in CONTEXTS:
        context = record.get(key)
        if is_nothing(context) or not isinstance(question, str):
            continue
        if not isinstance(context, str):
            raise origin.wrong(f'"{key}" is {as_found(context)}, expected text')
        question = question if context in question else f"{context}\n{question}"
    return question


def _with_system(record: Values, found: Values) -> Values:
    """A question with its answer, after the system's message where the row has one."""
    key = first_filled(record, SYSTEMS)
    if not key or "question" not in found:
        return found
    further = ("answers", "choices")
    reply: Values = {name: found.pop(name) for name in further if name in found}
    turns = [
        {"role": SYSTEM, "content": record[key]},
        {"role": USER, "content": found.pop("question")},
        {"role": ASSISTANT, "content": found.pop("answer"), **reply},
    ]
    return {**found, "messages": turns}


def _placed(found: Values, media: dict[str, list[str]]) -> Values:
    """A question in which ``<image 2>`` stands for the second picture, with our tags."""
    paths, found = media.get(PICTURE, []), _with_pictured(found)
    question = found.get("question")
    numbers = places(question) if isinstance(question, str) else []
    numbers = [number for number in numbers if 0 < number <= len(paths)]
    if not numbers:
        return found
    rest = [path for n, path in enumerate(paths, 1) if n not in numbers]
    order = [*(paths[number - 1] for number in numbers), *rest]
    return {**found, PICTURE: order, "question": tagged(found["question"], f"<{PICTURE}>")}


def _with_pictured(found: Values) -> Values:
    """A question with lines for its options, where some of them are pictures (``<image 1>``)."""
    given, question = found.get("choices"), found.get("question")
    pairs = dict(given if isinstance(given, dict) else lettered(given or []))
    if not isinstance(question, str) or not any(map(places, pairs.values())):
        return found
    lines = [f"({key}) {text}" for key, text in pairs.items()]
    asked = question if lines[0] in question else "\n".join([question, *lines])
    texts = {key: untagged(text) for key, text in pairs.items()}
    answer = untagged(found["answer"]) if isinstance(found["answer"], str) else found["answer"]
    return {**found, "question": asked, "choices": texts, "answer": answer}


def _answered(record: Values, question: Any, key: str, origin: Origin) -> Values:
    """The answer, as one of several choices where they are given."""
    value, choices = record[key], choices_of(record)
    texts = list(choices.values())
    if not choices:
        # VQAv2 names the commonest answer beside those of all people; scores are held against all.
        several = _answer(record["answers"]) if isinstance(record.get("answers"), list) else {}
        return several | _answer(value)
    if isinstance(value, int) and not isinstance(value, bool):
        number = option_at(value, texts, question)
        if not 0 <= number < len(choices):
            raise origin.wrong(f'"{key}" is {value}, but there are {len(choices)} choices')
        value = texts[number]
    usual_names = list(choices) == [letter for letter, _ in lettered(texts)]
    return {"answer": as_text(value), "choices": texts if usual_names else choices}


def _independent(record: Values, key: str, media: dict[str, list[str]], origin: Origin) -> Values:
    """Questions that do not build on each other."""
    pairs = record[key]
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise origin.wrong(f'"{key}" is {as_found(pairs)}, expected a list of objects')
    two = ("question", "answer")
    read = [of_row({key: pair.get(key) for key in two}, {}, origin) for pair in pairs]
    if not media and (number := as_text(pairs[0].get(IDS[0]))):
        media = {PICTURE: [f"{number}.jpg"]}  # Visual Genome
    return {**media, **kept(record), "qa": read}


def _answer(value: Any) -> Values:
    """One answer; of several, the one that most gave, and all of them as right."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if not isinstance(value, list):
        return {"answer": as_text(value)}
    given = [item.get("answer") if isinstance(item, dict) else item for item in value]
    texts = [text for item in given if isinstance(text := as_text(item), str) and text.strip()]
    if not texts:
        return {"answer": ""}
    [(most, _)] = Counter(texts).most_common(1)
    return {"answer": most, **({"answers": texts} if len(texts) > 1 else {})}


def _pairs(record: Values, media: dict[str, list[str]], origin: Origin) -> Values:
    """A conversation of pairs of user and assistant."""
    reader = Reader(record, origin, media, once=True)
    for n, pair in enumerate(record[TEXTS]):
        if not isinstance(pair, dict) or not {USER, ASSISTANT} <= set(pair):
            raise origin.wrong(
                f'"{TEXTS}" item {n + 1} is {as_found(pair)}, expected an object with "{USER}" '
                f'and "{ASSISTANT}"'
            )
        for role in (SYSTEM, USER, ASSISTANT):
            if role in pair:
                reader.add(role, pair[role], [TEXTS, str(n), role])
    return {**kept(record), **reader.native()}
