"""What a record says of right answers beside the one that is trained: others, and options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from omnitune.config.settings import as_found, quoted
from omnitune.data.choices import MOST_CHOICES, chosen, lettered
from omnitune.data.fields import Fields
from omnitune.data.tags import plain

KEYS = ("answers", "choices")


def most_common(fields: Fields, values: Mapping[str, Any], at: str) -> str:
    """The answer that is trained where only ``answers`` are given: the first of the commonest."""
    return Counter(_answers(fields, values, at)).most_common(1)[0][0]


def references(fields: Fields, values: Mapping[str, Any], answer: str, at: str) -> tuple[str, ...]:
    """Every right answer, the trained one included; empty if that is the only one.

    Args:
        values: the object that the answer stands in.
        answer: the one that is trained, as the record has it.
        at: what to call the object in an error.

    Raises:
        UserError: they are no list of texts.
    """
    if "answers" not in values:
        return ()
    given = _answers(fields, values, at)
    found = given if answer in given else [answer, *given]
    texts = [plain(text, f'{at}"answers"', fields.wrong) for text in found]
    return tuple(texts) if len(texts) > 1 else ()


def choices(
    fields: Fields, values: Mapping[str, Any], answer: str, at: str
) -> tuple[tuple[str, str], ...]:
    """Key and text of each option; empty without any.

    Raises:
        UserError: they are neither a list nor an object of texts, or the answer is none of them.
    """
    if "choices" not in values:
        return ()
    given, where = values["choices"], f'{at}"choices"'
    if isinstance(given, dict) and len(given) > 1:
        fields.check_keys(given, tuple(given), f"{where}: ")  # that none is given twice
        items = given.items()
        pairs = [(key, fields.words(text, f"{where}: {quoted(key)}")) for key, text in items]
        if "" in (key.strip() for key, _ in pairs):
            raise fields.wrong(f"{where} has an option without a name; name it by a letter")
    elif isinstance(given, list) and 1 < len(given) <= MOST_CHOICES:
        texts = [fields.words(text, f"{where}: item {n + 1}") for n, text in enumerate(given)]
        pairs = list(lettered(texts))
    else:
        raise fields.wrong(
            f"{where} is {as_found(given)}, expected a list of 2 to {MOST_CHOICES} texts, or an "
            'object such as {"A": "red", "B": "blue"}'
        )
    if not chosen(answer, pairs):
        options = ", ".join(f"{key} {quoted(text)}" for key, text in pairs)
        raise fields.wrong(
            f"{at}the answer is {quoted(answer)}, which is not one of the choices: {options}; give "
            "the letter or the text of one"
        )
    return tuple(pairs)


def check_number(fields: Fields, values: Mapping[str, Any], at: str) -> None:
    """Refuses a number of an option that is not there; the others are answers by now."""
    answer, given = values["answer"], values.get("choices")
    if isinstance(answer, int) and not isinstance(answer, bool) and isinstance(given, list):
        raise fields.wrong(
            f'{at}"answer" is {answer}, but there are {len(given)} choices, and their numbers '
            "begin with 0"
        )


def refuse_beside(fields: Fields, form: str) -> None:
    """Refuses these keys in a record whose answers stand in objects of their own."""
    for key in KEYS:
        if key in fields.values:
            raise fields.wrong(
                f'has "{key}" beside "{form}"; put the key into the '
                f"{'pair' if form == 'qa' else 'message'} that it belongs to"
            )


def _answers(fields: Fields, values: Mapping[str, Any], at: str) -> list[str]:
    given, where = values["answers"], f'{at}"answers"'
    if not isinstance(given, list) or not given:
        raise fields.wrong(f"{where} is {as_found(given)}, expected a list of at least one text")
    return [fields.words(text, f"{where}: item {n + 1}") for n, text in enumerate(given)]
