"""The words of a flat row by their usual names, however its columns name them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from omnitune.data.choices import MOST_CHOICES, lettered
from omnitune.data.sources.base import Values
from omnitune.data.sources.parts import as_text, first_filled, is_blank

QUESTIONS = ("question", "prompt", "problem", "query", "inputs", "input", "question_stem")
ANSWERS = (
    *("answer", "multiple_choice_answer", "answers", "response", "target", "answerKey"),
    *("answer_key", "correct_choice_idx", "correct_answer", "cop", "solution", "direct_answers"),
    *("generated_solution", "targets", "output"),
)
CHOICES = ("choices", "options")
LABELS = ("label", "class", "category", "cls", "fine_label")
CONTEXTS = ("context", "hint", "passage")  # what a question is about
SYSTEMS = ("system", "system_prompt")
# How columns of one option each begin, before its letter: SEED's, others', MedMCQA's.
_FAMILIES = ("choice_", "option_", "op")
_LETTERS = ascii_uppercase[:10]
_RAW = "raw"  # of a sentence in Karpathy's files
_PLACE = re.compile(r"<image (\d{1,2})>")


def usual(record: Values) -> Values:
    """A row whose words are under their usual names: question, answer, captions, choices."""
    found = dict(record)
    if record.keys() >= {"question_id", "text", "label"} and not first_filled(record, QUESTIONS):
        found["question"], found["answer"] = found.pop("text"), found.pop("label")  # POPE
    if pair := _preference(record.get("text")):  # RLHF-V
        found |= pair
        del found["text"]
    if {"comment", "comment_number"} <= record.keys():  # Flickr30k
        found["caption"] = found.pop("comment", None)
    if texts := _texts(record, "caption_str") + _texts(record, "reference_strs"):  # TextCaps
        found["captions"] = list(dict.fromkeys(texts))
    if "sentids" in record and (texts := _texts(record, "sentences")):  # Karpathy
        found["captions"] = texts
    if record.get("split") == "restval":  # his name for more of the training split
        found["split"] = "train"
    # Without options beside it, an answer may be a list as somebody is to write it.
    answer = ("answer",) if first_filled(record, CHOICES) else ()
    for key in (*CHOICES, "answers", "direct_answers", *answer):
        if isinstance(value := found.get(key), str):
            found[key] = listed(value)
    if options := _option_columns(record):
        found[CHOICES[0]] = options
    return found


def listed(text: str) -> Any:
    """The texts of a list that is written as Python writes it, in one field; else the text."""
    if not (text.startswith("[") and text.rstrip().endswith("]")):
        return text
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return found if isinstance(found, list) and all(isinstance(x, str) for x in found) else text


def choices_of(record: Values) -> dict[str, str]:
    """The options of a row's question by their letters; empty without any."""
    given = record.get(first_filled(record, CHOICES))
    if isinstance(given, dict) and isinstance(given.get("text"), list):  # Arrow's
        names, given = given.get("label"), given["text"]
        if isinstance(names, list) and len(names) == len(given):
            given = dict(zip(map(str, names), given, strict=True))
    if isinstance(given, list):
        given = dict(lettered(given)) if len(given) <= MOST_CHOICES else None
    texts = {key: as_text(text) for key, text in given.items()} if isinstance(given, dict) else {}
    known = len(texts) > 1 and all(isinstance(text, str) for text in texts.values())
    return texts if known else {}


def is_nothing(value: Any) -> bool:
    """Whether a field holds nothing, which some tables write as "nan"."""
    return is_blank(value) or (isinstance(value, str) and value.strip().lower() == "nan")


def places(text: str) -> list[int]:
    """The numbers of the media that ``<image 2>`` in a text names, each where it comes first."""
    return list(dict.fromkeys(int(number) for number in _PLACE.findall(text)))


def tagged(text: str, tag: str) -> str:
    """A text with a tag where each medium is first named by its number, and its name later."""
    seen: set[str] = set()

    def put(found: re.Match[str]) -> str:
        first = found[1] not in seen
        seen.add(found[1])
        return tag if first else f"image {found[1]}"

    return _PLACE.sub(put, text)


def untagged(text: str) -> str:
    """A text with the numbers of media in words: ``image 2`` for ``<image 2>``."""
    return _PLACE.sub(r"image \1", text)


def _preference(text: Any) -> Values:
    """Question and better answer of an object that is written into one field; empty without."""
    if not (isinstance(text, str) and text.startswith("{") and '"rejected"' in text):
        return {}
    try:
        pair = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    both = isinstance(pair, dict) and {"question", "chosen"} <= pair.keys()
    return {"question": pair["question"], "answer": pair["chosen"]} if both else {}


def _option_columns(record: Mapping[str, Any]) -> dict[str, str]:
    """Options in columns of their own: ``choice_a``, ``option_a``, ``opa``, or ``A`` alone."""
    for family in _FAMILIES:
        keys = {letter: f"{family}{letter.lower()}" for letter in _LETTERS}
        if keys["B"] in record:
            return _filled(record, keys)
    alone = {letter: letter for letter in _LETTERS}
    return _filled(record, alone) if {"A", "B", "answer"} <= record.keys() else {}


def _filled(record: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, str]:
    given = {letter: record.get(key) for letter, key in keys.items()}
    return {letter: as_text(text) for letter, text in given.items() if not is_nothing(text)}


def _texts(record: Mapping[str, Any], key: str) -> list[str]:
    """The texts under a key: one, some, or objects of a sentence."""
    given = record.get(key)
    items = given if isinstance(given, list) else [given]
    texts = [item.get(_RAW) if isinstance(item, dict) else item for item in items]
    return [text for text in texts if isinstance(text, str) and text.strip()]
