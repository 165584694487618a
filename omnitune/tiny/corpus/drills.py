"""Exercises, whose answers tell a learner more of what it did wrong than a single word does.

They are there in training and in no test.
"""

from itertools import accumulate, combinations

from omnitune.tiny.corpus.basics import NUMBER_WORDS, Dice, Question
from omnitune.tiny.corpus.questions import PLURALS, absent_pair, count_noun, count_of, yes_or_no
from omnitune.tiny.corpus.scenes import COLOURS, Digits, Picture, Scene


def drills(picture: Picture, rng: Dice, count: int) -> list[Question]:
    """Returns the exercises about a picture.

    Args:
        picture: Of a scene they are `count` things each to find, to name, to give their colour
            or place and to count, which want the same looking as whether and how many, and pairs
            of them to compare by place; of two or more digits their sums, and those of parts of
            them where the count is not 0; of a word none.
        rng: The source of randomness.
        count: How many exercises of each sort, of scenes.
    """
    if isinstance(picture, Digits) and len(picture.values) > 1:
        return _sums(picture) + (_more_sums(picture) if count else [])
    return _looking(picture, rng, count) if isinstance(picture, Scene) else []


def _sums(digits: Digits) -> list[Question]:
    running = " ".join(map(str, accumulate(digits.values)))
    pairs = " ".join(str(a + b) for a, b in combinations(digits.values, 2))
    return [
        Question("add up the digits one by one.", running, "running_sum"),
        Question("add up every two digits.", pairs, "pair_sums"),
    ]


def _more_sums(digits: Digits) -> list[Question]:
    """The sum again, and those of the first and of the last two, three, ... of more digits."""
    found = [Question("add up the digits.", str(sum(digits.values)), "total")]
    for length in range(2, len(digits.values)):
        parts = {"first": digits.values[:length], "last": digits.values[-length:]}
        for name, part in parts.items():
            asked = f"what is the sum of the {name} {NUMBER_WORDS[length]} digits?"
            found.append(Question(asked, str(sum(part)), "partial_sum"))
    return found


def _looking(scene: Scene, rng: Dice, count: int) -> list[Question]:
    found = []
    for _ in range(count):
        found += [_find(scene, rng), _name_all(scene, rng), _tally(scene, rng)]
        found += _shapes_then_colours(scene, rng) + _places(scene, rng)
        found += _in_order(scene, rng) + _in_order(scene, rng)
    return list(dict.fromkeys(found))


def _shapes_then_colours(scene: Scene, rng: Dice) -> list[Question]:
    """The colour of each shape that is there once, in random order.

    Language names the colour first, so that every "the red" teaches a learner to look up the
    shape of what is red, and next to nothing teaches it to look up the colour of a ring.
    """
    shapes = [thing.shape for thing in scene.things]
    things = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    rng.shuffle(things)
    answer = ", ".join(f"{thing.shape} {thing.colour}" for thing in things)
    return [Question("give each shape its color.", answer, "shape_colors")] * bool(things)


def _places(scene: Scene, rng: Dice) -> list[Question]:
    """Where each thing is that can be told from the others, in random order.

    Who answers a question about one thing may gather its words at the end and look once. Here each
    thing must be looked up where it is named, as a question about two of them wants it.
    """
    things = scene.unique_things()
    rng.shuffle(things)
    answer = ", ".join(f"{thing.name} {thing.cell}" for thing in things)
    return [Question("say where each object is.", answer, "places")] * bool(things)


def _in_order(scene: Scene, rng: Dice) -> list[Question]:
    """Whether one thing is left of, or above, another; never right of it, or below.

    Asked in both directions, neither the direction nor a place alone makes "yes" likelier: nothing
    can be learnt of either before both are. Asked in one, the first thing's place is half of the
    answer, the second's the other half, and the direction may come later.
    """
    things = scene.unique_things()
    if len(things) < 2:
        return []
    first, second = rng.sample(things, 2)
    ways = (("left of", first.col, second.col), ("above", first.row, second.row))
    relation, before = rng.choice([(name, a < b) for name, a, b in ways if a != b])
    answer = rng.toss("in order")
    if before != answer:
        first, second = second, first
    asked = f"is the {first.name} {relation} the {second.name}?"
    return [Question(asked, yes_or_no(answer), "in_order")]


def _find(scene: Scene, rng: Dice) -> Question:
    unique = scene.unique_things()
    if unique and rng.toss("find"):
        thing = rng.choice(unique)
        return Question(f"find the {thing.name}.", thing.cell, "find")
    colour, shape = absent_pair(scene, rng, frozenset())
    return Question(f"find the {colour} {shape}.", "nowhere", "find")


def _name_all(scene: Scene, rng: Dice) -> Question:
    noun = count_noun(scene, rng)
    if noun in COLOURS:
        asked = f"name the {noun} objects."
        names = [thing.shape for thing in scene.things if thing.colour == noun]
    else:
        asked = f"name the colors of the {PLURALS[noun]}."
        names = [thing.colour for thing in scene.things if thing.shape == noun]
    return Question(asked, ", ".join(names) or "none", "name_all")


def _tally(scene: Scene, rng: Dice) -> Question:
    """How many there are of each shape, or of each colour, in random order."""
    what, nouns = rng.choice(
        (
            ("shape", [thing.shape for thing in scene.things]),
            ("color", [thing.colour for thing in scene.things]),
        )
    )
    there = list(dict.fromkeys(nouns))
    rng.shuffle(there)
    answer = ", ".join(f"{noun} {count_of(scene, noun)}" for noun in there)
    return Question(f"count each {what}.", answer, "tally")
