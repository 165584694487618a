"""Questions and statements about pictures, with their answers.

Every answer follows from the caption, so that the same questions serve pictures,
described scenes, and spoken questions.
"""

from collections.abc import Callable, Sequence

from omnitune.tiny.corpus.basics import NUMBER_WORDS, Dice, Question, number_word, with_article
from omnitune.tiny.corpus.scenes import (
    COLOURS,
    HELD_OUT,
    PRINTED_WORDS,
    SHAPES,
    Digits,
    Picture,
    Scene,
    Thing,
    Word,
    caption,
)

Pair = tuple[str, str]
Maker = Callable[[Scene, Dice, frozenset[Pair]], Question | None]

PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
DESCRIBE = "describe the picture."
READ_DIGITS = "what digits are shown?"
ADD_DIGITS = "what is the sum of the digits?"
_NONE_COUNT = 0.12
_FOCUS = 0.85


def describe(picture: Picture) -> Question:
    """Returns the request for the caption."""
    return Question(DESCRIBE, caption(picture), "caption")


def questions(
    picture: Picture,
    rng: Dice,
    count: int = 4,
    focus: frozenset[Pair] = frozenset(),
) -> list[Question]:
    """Draws different questions about a picture, of as many kinds as it allows.

    Args:
        picture: The scene, digits or word to ask about.
        rng: The source of randomness.
        count: How many questions at most; a picture may allow fewer.
        focus: Pairs of colour and shape that the questions should be about. Pairs
            that are held out are only ever named when this holds them.

    Returns:
        The questions, no two alike, in random order.
    """
    if isinstance(picture, Digits):
        found = _digit_questions(picture, rng, count)
    elif isinstance(picture, Word):
        found = _word_questions(picture, rng, count)
    else:
        found = _scene_questions(picture, rng, count, focus)
    return found[:count]


def _scene_questions(scene: Scene, rng: Dice, count: int, focus: frozenset[Pair]) -> list[Question]:
    makers = list(_MAKERS)
    rng.shuffle(makers)
    found: dict[str, Question] = {}
    for maker in makers * max(3, count // 2):
        if len(found) == count:
            break
        question = maker(scene, rng, focus)
        if question is not None:
            found.setdefault(question.question, question)
    return list(found.values())


def yes_or_no(value: bool) -> str:
    """Returns the answer to a question about what is or is not so."""
    return "yes" if value else "no"


def _choose(rng: Dice, things: Sequence[Thing], focus: frozenset[Pair]) -> Thing:
    """Returns one of the things, mostly one in focus where there is any."""
    focused = [thing for thing in things if thing.pair in focus]
    return rng.choice(focused if focused and rng.random() < _FOCUS else things)


def _attribute(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question | None:
    shapes = [thing.shape for thing in scene.things]
    colours = [thing.colour for thing in scene.things]
    options: list[tuple[Thing, str]] = []
    for thing in scene.things:
        options += [(thing, "color")] * (shapes.count(thing.shape) == 1)
        options += [(thing, "shape")] * (colours.count(thing.colour) == 1)
    options += [(thing, "size") for thing in scene.unique_things()]
    if not options:
        return None
    chosen = _choose(rng, [thing for thing, _ in options], focus)
    what = rng.choice([name for thing, name in options if thing == chosen])
    if what == "color":
        return Question(f"what color is the {chosen.shape}?", chosen.colour, "attribute")
    if what == "shape":
        return Question(f"what shape is the {chosen.colour} object?", chosen.shape, "attribute")
    return Question(f"what size is the {chosen.name}?", chosen.size, "attribute")


def count_of(scene: Scene, noun: str) -> int:
    """Returns how many objects have the colour or shape `noun`; all for "object"."""
    return sum(noun in (thing.colour, thing.shape, "object") for thing in scene.things)


def count_noun(scene: Scene, rng: Dice) -> str:
    """Draws a colour or a shape to count; what occurs more than once is likelier."""
    attributes = COLOURS if rng.random() < 0.5 else SHAPES
    present = [name for name in attributes if count_of(scene, name)]
    if rng.random() < _NONE_COUNT:
        return rng.choice([name for name in attributes if name not in present])
    return rng.choices(present, [count_of(scene, name) ** 2 for name in present])[0]


def _count(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question:
    focused = [thing for thing in scene.things if thing.pair in focus]
    if focused and rng.random() < _FOCUS:
        noun = rng.choice(rng.choice(focused).pair)
    else:
        noun = "object" if rng.random() < 0.25 else count_noun(scene, rng)
    if noun in COLOURS:
        form = rng.choice(("how many {} objects are there?", "how many objects are {}?"))
        question = form.format(noun)
    else:
        question = f"how many {PLURALS.get(noun, 'objects')} are there?"
    return Question(question, str(count_of(scene, noun)), "count")


def absent_pair(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Pair:
    """Draws a pair that the scene lacks but for which it has the colour or the shape.

    Pairs whose colour and shape both occur, though apart, are the hardest: they come first.
    """
    things = [thing for thing in scene.things if thing.pair in focus] or list(scene.things)
    present = {thing.pair for thing in scene.things}
    # A scene that is only told may hold such pairs: then others of them are asked for in vain.
    banned = present if present & HELD_OUT else present | (HELD_OUT - focus)
    colours = {thing.colour for thing in things}
    shapes = {thing.shape for thing in things}
    near = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in banned]
    hard = [(c, s) for c, s in near if c in colours and s in shapes]
    near = [(c, s) for c, s in near if c in colours or s in shapes]
    return rng.choice(hard if hard and rng.random() < 0.6 else near)


def _existence(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question:
    present = rng.toss("existence")
    form = rng.random()
    if form < 0.7 or focus:
        pair = _choose(rng, scene.things, focus).pair
        noun = " ".join(pair if present else absent_pair(scene, rng, focus))
    else:
        attributes = COLOURS if form < 0.85 else SHAPES
        names = [name for name in attributes if bool(count_of(scene, name)) == present]
        noun = rng.choice(names)
        noun = f"{noun} object" if noun in COLOURS else noun
    return Question(f"is there {with_article(noun)}?", yes_or_no(present), "existence")


def _comparison(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question:
    unique = scene.unique_things()
    sizes = {thing.size for thing in unique}
    if len(sizes) == 2 and rng.random() < 0.5:
        first = _choose(rng, unique, focus)
        second = rng.choice([thing for thing in unique if thing.size != first.size])
        if rng.random() < 0.5:
            first, second = second, first
        larger = first if first.size == "large" else second
        question = f"which is larger, the {first.name} or the {second.name}?"
        return Question(question, f"the {larger.name}", "comparison")
    return _more_than(scene, rng, focus)


def _more_than(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question:
    answer = rng.toss("comparison")
    counts = {shape: count_of(scene, shape) for shape in SHAPES}
    options = [
        (first, second)
        for first in SHAPES
        for second in SHAPES
        if first != second and counts[first] + counts[second] > 0
        if (counts[first] > counts[second]) == answer
    ]
    focused = {thing.shape for thing in scene.things if thing.pair in focus}
    options = [pair for pair in options if focused & set(pair)] or options
    both = [(a, b) for a, b in options if counts[a] and counts[b]]
    first, second = rng.choice(both or options)
    question = f"are there more {PLURALS[first]} than {PLURALS[second]}?"
    return Question(question, yes_or_no(answer), "comparison")


def _relation(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question | None:
    """Asks whether one thing is left of, right of, above or below another."""
    unique = scene.unique_things()
    if len(unique) < 2:
        return None
    first = _choose(rng, unique, focus)
    second = rng.choice([thing for thing in unique if thing != first])
    options: list[tuple[str, bool]] = []
    if first.col != second.col:
        options += [("left of", first.col < second.col), ("right of", first.col > second.col)]
    if first.row != second.row:
        options += [("above", first.row < second.row), ("below", first.row > second.row)]
    answer = rng.toss("spatial")
    relation = rng.choice([name for name, value in options if value == answer])
    question = f"is the {first.name} {relation} the {second.name}?"
    return Question(question, yes_or_no(answer), "spatial")


def _spatial(scene: Scene, rng: Dice, focus: frozenset[Pair]) -> Question | None:
    unique = scene.unique_things()
    if not unique:
        return None
    relation = _relation(scene, rng, focus) if rng.random() < 0.5 else None
    if relation is not None:
        return relation
    thing = _choose(rng, unique, focus)
    return Question(f"where is the {thing.name}?", thing.cell, "spatial")


_MAKERS: tuple[Maker, ...] = (_attribute, _count, _existence, _comparison, _spatial)


def _digit_questions(digits: Digits, rng: Dice, count: int) -> list[Question]:
    values = digits.values
    shown = Question(READ_DIGITS, " ".join(map(str, values)), "digits")
    others = [Question("how many digits are there?", str(len(values)), "digits")]
    if len(values) > 1:
        others += [
            Question("what is the left digit?", str(values[0]), "digits"),
            Question("what is the right digit?", str(values[-1]), "digits"),
            Question("what is the largest digit?", str(max(values)), "digits"),
        ]
    rng.shuffle(others)
    if rng.random() < 0.5 or len(others) == 1:
        others.insert(0, _digit_existence(digits, rng))
    found = [shown, *others[: max(2, count - 4)]]
    if len(values) > 1:
        total = Question(ADD_DIGITS, str(sum(values)), "digit_sum")
        found.insert(2, total)
    for _ in range(count - len(found)):
        another = _digit_existence(digits, rng)
        found += [another] * (another not in found)
    return found


def _digit_existence(digits: Digits, rng: Dice) -> Question:
    present = rng.toss("digit existence")
    digit = rng.choice([n for n in range(10) if (n in digits.values) == present])
    return Question(f"is there a digit {digit}?", yes_or_no(present), "existence")


def _word_existence(word: Word, rng: Dice) -> Question:
    present = rng.toss("word existence")
    alike = [w for w in PRINTED_WORDS if w != word.text and len(w) == len(word.text)]
    asked = word.text if present else rng.choice(alike)
    return Question(f"is the word {asked}?", yes_or_no(present), "existence")


def _word_questions(word: Word, rng: Dice, count: int) -> list[Question]:
    others = [
        _word_existence(word, rng),
        Question("what is the first letter?", word.text[0], "word"),
        Question("how many letters are there?", str(len(word.text)), "word"),
    ]
    rng.shuffle(others)
    found = [Question("what word is written?", word.text, "word"), *others]
    for _ in range(count - len(found)):
        another = _word_existence(word, rng)
        found += [another] * (another not in found)
    return found


def statement(picture: Picture, rng: Dice) -> tuple[str, bool]:
    """Draws a statement about a picture, in spoken words, and says whether it is true.

    True and false ones are equally likely. No held-out pair is ever named, given
    that the picture shows none.
    """
    truth = rng.toss(type(picture).__name__)
    if isinstance(picture, Word):
        alike = [w for w in PRINTED_WORDS if w != picture.text]
        return f"the word is {picture.text if truth else rng.choice(alike)}", truth
    if isinstance(picture, Digits):
        digit = rng.choice([n for n in range(10) if (n in picture.values) == truth])
        return f"one of the digits is {number_word(digit)}", truth
    kind = rng.choice(("existence", "count", "spatial", "comparison"))
    if kind == "count":
        return _count_statement(picture, rng, truth), truth
    question = _balanced(picture, rng, kind)
    words = question.question.rstrip("?").split()
    if question.kind == "spatial":  # "is the red circle above the blue square"
        body = f"{' '.join(words[1:4])} is {' '.join(words[4:])}"
    else:  # "is there a red circle", "are there more circles than squares"
        body = f"there {words[0]} {' '.join(words[2:])}"
    return body, question.answer == "yes"


def _balanced(scene: Scene, rng: Dice, kind: str) -> Question:
    """Returns a yes-or-no question of a kind, or a comparison where there is none."""
    everything: frozenset[Pair] = frozenset()
    if kind == "existence":
        return _existence(scene, rng, everything)
    found = _relation(scene, rng, everything) if kind == "spatial" else None
    return found or _more_than(scene, rng, everything)


def _count_statement(scene: Scene, rng: Dice, truth: bool) -> str:
    noun = count_noun(scene, rng)
    count = count_of(scene, noun)
    said = count if truth else rng.choice([n for n in range(1, 5) if n != count])
    singular = f"{noun} object" if noun in COLOURS else noun
    plural = f"{noun} objects" if noun in COLOURS else PLURALS[noun]
    verb, name = ("is", singular) if said == 1 else ("are", plural)
    amount = "no" if said == 0 else NUMBER_WORDS[said]
    return f"there {verb} {amount} {name}"
