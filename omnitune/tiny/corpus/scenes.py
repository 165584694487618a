"""What a picture shows: scenes of coloured shapes, handwritten digits, or a printed word.

Everything here is about meaning, not pixels: the same objects are drawn for the
image records and described in words for the text conversations.
"""

import random
from dataclasses import dataclass

from omnitune.tiny.corpus.basics import partition, pick

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "white")
SIZES = ("small", "large")
CELLS = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
# Pairs that no training, validation or test record shows or names: only the
# "test_composition" scenes do. Each colour and each shape is in one pair at most.
HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("blue", "heart"),
        ("green", "diamond"),
        ("yellow", "cross"),
        ("purple", "ring"),
        ("orange", "triangle"),
    }
)
_PRINTED_WORDS = (
    "cat dog sun moon tree bird fish book door hand milk rain snow ship road house apple bread "
    "water green table chair horse mouse river stone light night music party smile dream cloud "
    "beach train plane paper clock garden window winter summer orange yellow bridge school egg "
    "cup key box"
)
PRINTED_WORDS = tuple(_PRINTED_WORDS.split())

_THING_COUNTS = ((1, 0.14), (2, 0.24), (3, 0.28), (4, 0.2), (5, 0.14))
COPIES = (0.25, 0.25)
_EXTRA_HELD_OUT = 0.25
_UNSEEN_SHARE = 0.25  # of the scenes that are told in training


@dataclass(frozen=True)
class Recipe:
    """How pictures are drawn.

    Attributes:
        families: How often a scene, digits, a word.
        lengths: The numbers of digits to choose from.
        copies: How often an object of a scene takes over an earlier one's colour, and its shape.
    """

    families: tuple[float, float, float]
    lengths: tuple[int, ...] = (1, 2, 2, 3, 3)
    copies: tuple[float, float] = COPIES


# Handwriting and print are learnt more slowly than scenes, so more of both are trained on than
# are asked about.
SHOWN, SHOWN_IN_TRAINING = Recipe((0.6, 0.25, 0.15)), Recipe((0.45, 0.36, 0.19))
TALKED_OF = Recipe((0.76, 0.17, 0.07), lengths=(2, 3))


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in the cell (row, col) of a grid of three by three."""

    shape: str
    colour: str
    size: str
    row: int
    col: int

    @property
    def pair(self) -> tuple[str, str]:
        """The colour and the shape."""
        return self.colour, self.shape

    @property
    def name(self) -> str:
        """Such as "red circle"."""
        return f"{self.colour} {self.shape}"

    @property
    def cell(self) -> str:
        """The name of the cell, such as "top left"."""
        return CELLS[self.row][self.col]


@dataclass(frozen=True)
class Scene:
    """Objects in reading order (row by row, left to right), each in its own cell."""

    things: tuple[Thing, ...]

    @property
    def unseen(self) -> bool:
        """Whether it holds a pair of colour and shape that no picture of training shows."""
        return any(thing.pair in HELD_OUT for thing in self.things)

    def unique_things(self) -> list[Thing]:
        """Returns the objects whose colour and shape together occur once."""
        pairs = [thing.pair for thing in self.things]
        return [thing for thing in self.things if pairs.count(thing.pair) == 1]


@dataclass(frozen=True)
class Digits:
    """A row of digits (0-9), from left to right."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Word:
    """One printed word."""

    text: str


@dataclass(frozen=True)
class Sheet:
    """Digits (0-9) in the cells of the grid, row by row; None where there is none."""

    cells: tuple[int | None, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The digits in reading order."""
        return tuple(value for value in self.cells if value is not None)

    @property
    def digits(self) -> Digits:
        """What is written, as if it were a row."""
        return Digits(self.values)


Picture = Scene | Digits | Word


def caption(picture: Picture) -> str:
    """Returns the words for everything in the picture that can be asked about.

    The place comes before what is there: whoever learns to write captions then knows where to
    look before a colour or a shape is due.
    """
    if isinstance(picture, Digits):
        noun = "digit" if len(picture.values) == 1 else "digits"
        return f"the {noun} " + " ".join(map(str, picture.values))
    if isinstance(picture, Word):
        return f"the word {picture.text} spelled {' '.join(picture.text)}"
    parts = []
    for thing in picture.things:
        place = "in the center" if thing.cell == "center" else f"at the {thing.cell}"
        parts.append(f"{place} a {thing.size} {thing.name}")
    return ", ".join(parts)


def sample_scene(
    rng: random.Random, composition: bool = False, copies: tuple[float, float] = COPIES
) -> Scene:
    """Draws a scene of one to five objects, some of them sharing a colour or a shape.

    Args:
        rng: The source of randomness.
        composition: Whether the scene must hold a held-out pair; otherwise it holds none.
        copies: As of a `Recipe`.
    """
    count = pick(rng, _THING_COUNTS)
    cells = sorted(rng.sample(range(9), count))
    pairs: list[tuple[str, str]] = []
    for index in range(count):
        if composition and (index == 0 or rng.random() < _EXTRA_HELD_OUT):
            pairs.append(rng.choice(sorted(HELD_OUT)))
        else:
            pairs.append(_sample_pair(rng, pairs, copies))
    rng.shuffle(pairs)
    things = [
        Thing(shape, colour, rng.choice(SIZES), cell // 3, cell % 3)
        for (colour, shape), cell in zip(pairs, cells, strict=True)
    ]
    return Scene(tuple(things))


def _sample_pair(
    rng: random.Random, earlier: list[tuple[str, str]], copies: tuple[float, float]
) -> tuple[str, str]:
    """Draws a colour and a shape that are not held out."""
    while True:
        colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
        if earlier and rng.random() < copies[0]:
            colour = rng.choice(earlier)[0]
        if earlier and rng.random() < copies[1]:
            shape = rng.choice(earlier)[1]
        if (colour, shape) not in HELD_OUT:
            return colour, shape


def belongs(picture: Picture, split: str) -> bool:
    """Says whether a split may show the picture.

    Scenes and rows of two or more digits are owned by one split each. Single
    digits and words are too few for that: every split may show them.
    """
    if split == "test_composition":
        novel = isinstance(picture, Scene) and picture.unseen
        return novel and partition(caption(picture)) != "train"  # those may be told in training
    if isinstance(picture, Word) or (isinstance(picture, Digits) and len(picture.values) == 1):
        return True
    return partition(caption(picture)) == split


def sample_picture(rng: random.Random, split: str, recipe: Recipe | None = None) -> Picture:
    """Draws a picture that `split` may show.

    Args:
        rng: The source of randomness.
        split: The split it is for; "test_composition" always gets a scene.
        recipe: By default `SHOWN`, for training `SHOWN_IN_TRAINING`.
    """
    recipe = recipe or (SHOWN_IN_TRAINING if split == "train" else SHOWN)
    families = ("scene", "digits", "word")
    composition = split == "test_composition"
    family = "scene" if composition else rng.choices(families, recipe.families)[0]
    while True:
        picture: Picture
        if family == "scene":
            picture = sample_scene(rng, composition, recipe.copies)
        elif family == "digits":
            count = rng.choice(recipe.lengths)
            picture = Digits(tuple(rng.randrange(10) for _ in range(count)))
        else:
            picture = Word(rng.choice(PRINTED_WORDS))
        if belongs(picture, split):
            return picture


def sample_told(rng: random.Random, split: str, recipe: Recipe = TALKED_OF) -> Picture:
    """Draws a picture that is only told of, in words.

    In training some hold a pair of colour and shape that no picture of training shows: a thinker
    that never heard of such a pair would not say it when it sees one.

    Args:
        rng, split, recipe: As of `sample_picture`; by default as conversations tell them.
    """
    while split == "train" and rng.random() < _UNSEEN_SHARE:
        scene = sample_scene(rng, composition=True, copies=recipe.copies)
        if partition(caption(scene)) == "train":
            return scene
    return sample_picture(rng, split, recipe)
