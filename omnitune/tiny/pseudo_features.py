"""Captions as the slots of a picture say them, for a thinker that has no encoder yet."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from omnitune.data.template import placeholder
from omnitune.sample import ContentPart

FUNCTION_WORDS = frozenset({"a", "an", "the", "and", "at", "in", "of", "on", "with", "is", "are"})
ANNOUNCING = frozenset({"digit", "digits", "word", "spelled"})  # what is spelled out after them
# Words of a caption that nothing in the picture shows: an encoder has no place to say them in.
UNSEEN = FUNCTION_WORDS | ANNOUNCING
# Which row, and which column, of a grid a word says: how far down, or to the right, of all the way.
ROWS = {"top": 0.0, "bottom": 1.0}
COLUMNS = {"left": 0.0, "right": 1.0}
PLACES = {*ROWS, *COLUMNS, "center", "middle"}
# Share of digits or letters that the next row of slots says too, where they stand on its border.
BORDER_SHARE = 0.3


@dataclass(frozen=True)
class PseudoFeatures(ContentPart):
    """Words in place of a medium, shown as a medium is: a few words at once in each slot.

    Attributes:
        modality: of the medium, whose placeholder fills the slots that stay empty.
        slots: the words of each slot; "" for none.
    """

    modality: str
    slots: tuple[str, ...]

    def positions(
        self, encode: Callable[[str], Sequence[int]], id_of: Callable[[str], int]
    ) -> Iterator[Sequence[int]]:
        """A position for each slot."""
        for words in self.slots:
            yield encode(words) or (id_of(placeholder(self.modality)),)


def seen_words(caption: str) -> str:
    """The words of a caption that something in the picture shows.

    Among characters that are spelled out, all of them: "the word bat spelled b a t" has an a.
    """
    words = caption.split()
    spelled = num_spelled(words)
    begun = words[: len(words) - spelled]
    kept = [word for word in begun if word.rstrip(",.") not in UNSEEN]
    return " ".join(kept + words[len(words) - spelled :])


def num_spelled(words: Sequence[str]) -> int:
    """How many single characters the words end with."""
    return next((n for n, word in enumerate(reversed(words)) if len(word) > 1), len(words))


def spread(caption: str, slots: int, draw: random.Random) -> tuple[str, ...] | None:
    """Each phrase (between commas; else each word) in a slot of its own, in order, with gaps.

    Phrases that all say where in the picture they are stand there (:func:`in_places`). What is
    spelled out is :func:`in_columns` where it fits. None if there are more phrases than slots.
    """
    words = seen_words(caption)
    written = words.split()
    count = num_spelled(written)
    if 0 < count <= math.isqrt(slots) > 1:
        return in_columns(written[:-count], written[-count:], slots, draw)
    phrases = words.split(", ")
    if not count and all(PLACES & set(phrase.split()) for phrase in phrases):
        return in_places(phrases, slots)
    phrases = phrases if len(phrases) > 1 else written
    if len(phrases) > slots:
        return None
    places = sorted(draw.sample(range(slots), len(phrases)))
    return tuple(phrases[places.index(n)] if n in places else "" for n in range(slots))


def in_places(phrases: Sequence[str], slots: int) -> tuple[str, ...]:
    """Phrases in the slots of a grid that they name: "top left ..." in the first.

    An encoder says a thing where it is. Which of two slots comes first then tells which thing is
    higher, and the same slot always means the same place.
    """
    side = math.isqrt(slots)
    held: list[list[str]] = [[] for _ in range(slots)]
    for phrase in phrases:
        words = phrase.split()
        row, column = (
            round((side - 1) * next((names[word] for word in words if word in names), 0.5))
            for names in (ROWS, COLUMNS)
        )
        held[row * side + column] += words
    return tuple(" ".join(words) for words in held)


def in_columns(
    about: Sequence[str], characters: Sequence[str], slots: int, draw: random.Random
) -> tuple[str, ...]:
    """Digits or letters in the columns of a grid of slots, from left to right.

    As the encoder of stage C says them: all in one row, some in the next one too, as they stand
    on its border; and what they are in a slot or two, anywhere.
    """
    side = math.isqrt(slots)
    columns = sorted(draw.sample(range(side), len(characters)))
    held: list[list[str]] = [[] for _ in range(slots)]
    for word in about:
        for place in draw.sample(range(slots), draw.choice((1, 2))):
            held[place].append(word)
    row, other = draw.sample(range(side), 2)
    for character, column in zip(characters, columns, strict=True):
        held[row * side + column].append(character)
        if abs(row - other) == 1 and draw.random() < BORDER_SHARE:
            held[other * side + column].append(character)
    return tuple(" ".join(words) for words in held)
