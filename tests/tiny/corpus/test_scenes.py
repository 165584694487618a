"""Pictures and their questions: the caption must settle every answer."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from omnitune.tiny.corpus.basics import Dice, number_word, partition, spoken_words
from omnitune.tiny.corpus.drawing import PALETTE, draw
from omnitune.tiny.corpus.questions import PLURALS, describe, questions, statement
from omnitune.tiny.corpus.scenes import (
    CELLS,
    COLOURS,
    COPIES,
    HELD_OUT,
    SHAPES,
    SIZES,
    Digits,
    Recipe,
    Scene,
    Sheet,
    Thing,
    Word,
    caption,
    sample_picture,
    sample_scene,
)

SINGULARS = {plural: shape for shape, plural in PLURALS.items()}
PART = re.compile(r"(?:at the|in the) (\w+(?: \w+)?) a (\w+) (\w+) (\w+)")
CELL_PLACES = {CELLS[row][col]: (row, col) for row in range(3) for col in range(3)}
EXAMPLE = Scene(
    (Thing("circle", "red", "large", 0, 0), Thing("square", "blue", "small", 1, 1)),
)


def understood(text: str) -> list[Thing]:
    """Reads a caption back, knowing nothing else about the scene."""
    things = []
    for part in text.split(", "):
        match = PART.fullmatch(part)
        assert match, part
        cell, size, colour, shape = match.groups()
        things.append(Thing(shape, colour, size, *CELL_PLACES[cell]))
    return things


def having(things: list[Thing], words: str) -> list[Thing]:
    """Returns the things that every word ("red", "circle", "object") fits."""
    return [
        thing
        for thing in things
        if all(word in (thing.colour, thing.shape, "object", "objects") for word in words.split())
    ]


def answer_from(things: list[Thing], question: str) -> str:
    """Answers a question about a scene, independently of the code that asked it."""
    names = r"the (\w+ \w+)"
    if match := re.fullmatch(r"how many (.*?)( are there|)\?", question):
        noun = match[1].removeprefix("objects are ")
        return str(len(having(things, SINGULARS.get(noun, noun))))
    if match := re.fullmatch(r"is there an? (.*)\?", question):
        return "yes" if having(things, match[1]) else "no"
    if match := re.fullmatch(r"are there more (\w+) than (\w+)\?", question):
        first, second = (having(things, SINGULARS[match[i]]) for i in (1, 2))
        return "yes" if len(first) > len(second) else "no"
    if match := re.fullmatch(rf"which is larger, {names} or {names}\?", question):
        sizes = {name: only(things, name).size for name in match.groups()}
        assert sorted(sizes.values()) == ["large", "small"]
        return next(f"the {name}" for name, size in sizes.items() if size == "large")
    if match := re.fullmatch(rf"is {names} (left of|right of|above|below) {names}\?", question):
        first, second = only(things, match[1]), only(things, match[3])
        down, right = first.row - second.row, first.col - second.col
        offsets = {"left of": -right, "right of": right, "above": -down, "below": down}
        assert offsets[match[2]] != 0
        return "yes" if offsets[match[2]] > 0 else "no"
    if match := re.fullmatch(rf"where is {names}\?", question):
        thing = only(things, match[1])
        return CELLS[thing.row][thing.col]
    match = re.fullmatch(r"what (color|shape|size) is the (.*)\?", question)
    assert match, question
    thing = only(things, match[2])
    return {"color": thing.colour, "shape": thing.shape, "size": thing.size}[match[1]]


def only(things: list[Thing], words: str) -> Thing:
    found = having(things, words)
    assert len(found) == 1, words
    return found[0]


@pytest.mark.parametrize("composition", [False, True])
def test_the_caption_settles_every_answer(composition: bool) -> None:
    rng = Dice(11)
    kinds: Counter[str] = Counter()
    for _ in range(600):
        scene = sample_scene(rng, composition)
        things = understood(caption(scene))
        for question in questions(scene, rng, 5, HELD_OUT if composition else frozenset()):
            assert question.answer == answer_from(things, question.question), question
            kinds[question.kind] += 1
    assert set(kinds) == {"attribute", "count", "existence", "comparison", "spatial"}
    assert min(kinds.values()) > 200


def test_captions_read_row_by_row() -> None:
    assert (
        caption(EXAMPLE) == "at the top left a large red circle, in the center a small blue square"
    )
    assert caption(Digits((3, 7, 2))) == "the digits 3 7 2"
    assert caption(Digits((4,))) == "the digit 4"
    assert caption(Word("cat")) == "the word cat spelled c a t"
    assert describe(EXAMPLE).answer == caption(EXAMPLE)
    for seed in range(50):
        places = [(t.row, t.col) for t in sample_scene(random.Random(seed)).things]
        assert places == sorted(set(places))


def test_digit_answers() -> None:
    found = {}
    for seed in range(40):
        found.update({q.question: q.answer for q in questions(Digits((3, 7, 2)), Dice(seed))})
    assert found["what digits are shown?"] == "3 7 2"
    assert found["what is the sum of the digits?"] == "12"
    assert found["what is the left digit?"] == "3"
    assert found["what is the right digit?"] == "2"
    assert found["what is the largest digit?"] == "7"
    assert found["how many digits are there?"] == "3"
    assert found["is there a digit 7?"] == "yes"
    assert found["is there a digit 8?"] == "no"


def test_word_answers() -> None:
    found = {}
    for seed in range(40):
        found.update({q.question: q.answer for q in questions(Word("horse"), Dice(seed))})
    assert found["what word is written?"] == "horse"
    assert found["what is the first letter?"] == "h"
    assert found["how many letters are there?"] == "5"
    yes_or_no = {text: answer for text, answer in found.items() if text.startswith("is the")}
    assert yes_or_no.pop("is the word horse?") == "yes"
    assert set(yes_or_no.values()) == {"no"}


def test_yes_and_no_are_balanced_for_each_kind() -> None:
    rng = Dice(5)
    answers: dict[str, Counter[str]] = {}
    for _ in range(400):
        for question in questions(sample_picture(rng, "test"), rng):
            if question.answer in ("yes", "no"):
                answers.setdefault(question.kind, Counter())[question.answer] += 1
    assert set(answers) == {"existence", "comparison", "spatial"}
    for counts in answers.values():
        assert 0.45 < counts["yes"] / counts.total() < 0.55


def test_statements_are_true_half_the_time_and_only_when_said_to_be() -> None:
    rng = Dice(6)
    truths: Counter[bool] = Counter()
    for _ in range(600):
        scene = sample_scene(rng)
        text, truth = statement(scene, rng)
        truths[truth] += 1
        assert truth == is_true(understood(caption(scene)), text), text
    assert 0.45 < truths[True] / truths.total() < 0.55


def is_true(things: list[Thing], text: str) -> bool:
    if match := re.fullmatch(r"the (\w+ \w+) is (.*)", text):
        return answer_from(things, f"is the {match[1]} {match[2]}?") == "yes"
    if match := re.fullmatch(r"there is (an? .*)", text):
        return answer_from(things, f"is there {match[1]}?") == "yes"
    if match := re.fullmatch(r"there are (more .*)", text):
        return answer_from(things, f"are there {match[1]}?") == "yes"
    match = re.fullmatch(r"there (?:is|are) (\w+) (.*)", text)
    assert match, text
    noun = SINGULARS.get(match[2], match[2])
    return match[1].replace("no", "zero") == number_word(len(having(things, noun)))


def test_other_statements() -> None:
    for seed in range(30):
        text, truth = statement(Digits((3, 7)), Dice(seed))
        assert (text.split()[-1] in ("three", "seven")) == truth
        text, truth = statement(Word("cat"), Dice(seed))
        assert (text == "the word is cat") == truth


def test_held_out_pairs_are_named_only_when_asked_for() -> None:
    rng = Dice(8)
    held_out = re.compile("|".join(" ".join(pair) for pair in sorted(HELD_OUT)))
    for _ in range(400):
        scene = sample_scene(rng)
        asked = [question.question for question in questions(scene, rng, 5)]
        assert not held_out.search(" ".join([caption(scene), statement(scene, rng)[0], *asked]))
    named, total = 0, 0
    for _ in range(200):
        scene = sample_scene(rng, composition=True)
        assert held_out.search(caption(scene))
        asked = [question.question for question in questions(scene, rng, 4, HELD_OUT)]
        named += sum(bool(held_out.search(question)) for question in asked)
        total += len(asked)
    assert named / total > 0.3  # most others ask about its colour or shape alone


def test_scenes_belong_to_one_split() -> None:
    rng = Dice(9)
    for split in ("train", "validation", "test"):
        for _ in range(20):
            picture = sample_picture(rng, split, Recipe((1, 0, 0)))
            assert partition(caption(picture)) == split


@pytest.mark.parametrize(("copies", "alike"), [((0.9, 0.0), "colour"), ((0.0, 0.9), "shape")])
def test_what_is_copied_more_is_there_several_times_more(
    copies: tuple[float, float], alike: str
) -> None:
    def several(how_often: tuple[float, float]) -> int:
        rng = random.Random(0)
        scenes = [sample_scene(rng, copies=how_often) for _ in range(200)]
        most = [Counter(getattr(t, alike) for t in s.things).most_common(1)[0][1] for s in scenes]
        return sum(count > 2 for count in most)

    assert several(copies) > 3 * several(COPIES) > 0


def test_numbers_are_spoken_in_words() -> None:
    assert spoken_words("Is there a digit 7?") == "is there a digit seven"
    assert spoken_words("which is larger, 12 or 30?") == "which is larger twelve or thirty"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_objects_are_drawn_in_their_cell_and_colour(shape: str, colour: str) -> None:
    rng = np.random.default_rng(4)
    areas = {}
    for size in SIZES:
        pixels = draw(Scene((Thing(shape, colour, size, 1, 2),)), rng).astype(int)
        assert pixels.shape == (96, 96, 3)
        distance = np.abs(pixels - np.array(PALETTE[colour])).sum(axis=2)
        near = distance < 90
        areas[size] = near[32:64, 64:96].sum()
        assert near.sum() - areas[size] < 5
    assert areas["small"] > 20
    assert areas["large"] > 2 * areas["small"]


def test_a_sheet_shows_each_digit_in_its_cell() -> None:
    cells = (8, None, None, None, 1, None, 7, None, 3)
    sheet = Sheet(cells)
    assert sheet.digits == Digits((8, 1, 7, 3))
    glyphs = np.full((4, 8, 8), 16, dtype=np.uint8)
    for seed in range(3):
        pixels = draw(sheet, np.random.default_rng(seed), glyphs).astype(int)
        ground = np.median(pixels[:32, 32:64].reshape(-1, 3), axis=0)  # an empty cell
        for place, value in enumerate(cells):
            row, col = (32 * n + 8 for n in divmod(place, 3))
            ink = np.abs(pixels[row : row + 16, col : col + 16] - ground).sum(axis=2) > 90
            assert (ink.mean() > 0.9) == (value is not None)


def test_digits_need_their_handwriting() -> None:
    with pytest.raises(ValueError, match="handwriting"):
        draw(Digits((1, 2)), np.random.default_rng(0), np.zeros((1, 8, 8), dtype=np.uint8))


def test_words_and_digits_leave_ink_of_a_palette_colour() -> None:
    glyphs = np.full((2, 8, 8), 16, dtype=np.uint8)
    for seed in range(10):
        for picture, marks in ((Word("window"), None), (Digits((1, 2)), glyphs)):
            pixels = draw(picture, np.random.default_rng(seed), marks).astype(int)
            distances = [np.abs(pixels - np.array(c)).sum(axis=2) for c in PALETTE.values()]
            assert (np.min(distances, axis=0) < 90).sum() > 100
