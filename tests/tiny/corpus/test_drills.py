"""The exercises that are asked in training alone."""

import re
from collections import Counter

from omnitune.tiny.corpus.basics import Dice
from omnitune.tiny.corpus.drills import drills
from omnitune.tiny.corpus.scenes import Digits, Word, sample_scene


def test_exercises_are_answered_rightly() -> None:
    rng = Dice(5)
    answers, tallied = set(), set()
    ordered: Counter[tuple[str, str]] = Counter()
    for _ in range(60):
        scene = sample_scene(rng)
        for exercise in drills(scene, rng, 3):
            words = exercise.question.rstrip(".").split()
            if exercise.kind == "find":
                cells = [t.cell for t in scene.things if f"the {t.name}" == " ".join(words[1:])]
                assert exercise.answer == (cells[0] if cells else "nowhere")
                answers.add(bool(cells))
            elif exercise.kind == "shape_colors":
                shapes = [t.shape for t in scene.things]
                named = [
                    f"{t.shape} {t.colour}" for t in scene.things if shapes.count(t.shape) == 1
                ]
                assert sorted(exercise.answer.split(", ")) == sorted(named)
            elif exercise.kind == "places":
                named = [f"{t.name} {t.cell}" for t in scene.unique_things()]
                assert sorted(exercise.answer.split(", ")) == sorted(named)
            elif exercise.kind == "tally":
                of_shape = words[-1] == "shape"
                there = Counter(t.shape if of_shape else t.colour for t in scene.things)
                counted = [f"{noun} {count}" for noun, count in there.items()]
                assert sorted(exercise.answer.split(", ")) == sorted(counted)
                tallied.add(of_shape)
            elif exercise.kind == "in_order":
                match = re.fullmatch(r"is the (.*) (left of|above) the (.*)\?", exercise.question)
                assert match
                by_name = {t.name: t for t in scene.unique_things()}
                one, other = by_name[match[1]], by_name[match[3]]
                sideways = match[2] == "left of"
                before = one.col < other.col if sideways else one.row < other.row
                assert exercise.answer == ("yes" if before else "no")
                assert (one.col != other.col) if sideways else (one.row != other.row)
                ordered[match[2], exercise.answer] += 1
            elif words[2] == "colors":
                named = [t.colour for t in scene.things if words[-1].startswith(t.shape)]
                assert exercise.answer == (", ".join(named) or "none")
            else:
                named = [t.shape for t in scene.things if t.colour == words[2]]
                assert exercise.answer == (", ".join(named) or "none")
    assert answers == tallied == {True, False}
    # Half of them true, whichever way is asked about: only the places tell.
    assert len(ordered) == 4
    assert abs(sum(n if word == "yes" else -n for (_, word), n in ordered.items())) < 20


def test_digits_are_added_up_one_by_one_and_two_by_two() -> None:
    one_by_one, two_by_two = drills(Digits((7, 0, 5)), Dice(0), 0)
    assert one_by_one.answer == "7 7 12"
    assert two_by_two.answer == "7 12 5"


def test_parts_of_told_digits_are_added_up_too() -> None:
    answers = {q.question: q.answer for q in drills(Digits((7, 0, 5, 9)), Dice(0), 3)[2:]}
    assert answers == {
        "add up the digits.": "21",
        "what is the sum of the first two digits?": "7",
        "what is the sum of the last two digits?": "14",
        "what is the sum of the first three digits?": "12",
        "what is the sum of the last three digits?": "14",
    }


def test_one_digit_and_words_have_no_exercises() -> None:
    assert drills(Digits((7,)), Dice(0), 3) == drills(Word("cat"), Dice(0), 3) == []
