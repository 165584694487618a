"""Whether a run came out well: each rule at its border, and the sentence that is made of them."""

from typing import Any

import pytest
from made_up import RESULTS, rich_results

from omnitune.reporting.verdict import judge


def exact(
    value: float, low: float, high: float, prior: float | None = 0.3, questions: int = 100
) -> dict[str, Any]:
    scores: dict[str, Any] = {"exact_match": value, "intervals": {"exact_match": [low, high]}}
    return {**scores, "questions": questions, "prior": prior}


def heard(value: float, low: float, high: float, questions: int = 100) -> dict[str, Any]:
    return {"wer": value, "intervals": {"wer": [low, high]}, "questions": questions}


GOOD = exact(0.9, 0.85, 0.95)


def run(image_qa: dict[str, Any] = GOOD, **more: Any) -> dict[str, Any]:
    return {"tasks": {"image_qa": image_qa}, **more}


def grade(results: dict[str, Any]) -> str:
    return judge(results).grade


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (exact(0.65, 0.6, 0.7), "fine"),  # halfway from 30 % to all right
        (exact(0.64, 0.6, 0.7), "bad"),  # less, and nothing else is good
        (exact(0.9, 0.31, 0.95), "fine"),
        (exact(0.9, 0.3, 0.95), "bad"),  # the interval reaches down to the guess
        (exact(0.2, 0.1, 0.25), "bad"),
        (exact(0.9, 0.85, 0.95, questions=20), "fine"),
        (exact(0.9, 0.85, 0.95, questions=19), "few"),
        (exact(0.2, 0.1, 0.25, questions=19), "few"),
        (exact(0.9, 0.85, 0.95, prior=None), "unknown"),
        (exact(1.0, 1.0, 1.0, prior=1.0), "unknown"),
        ({"exact_match": 0.9, "prior": 0.3, "questions": 100}, "unknown"),
        (exact(0.0, 0.0, 0.0) | {"tokens": 1001}, "unknown"),  # long answers
        (exact(0.0, 0.0, 0.0) | {"tokens": 1000}, "bad"),
        (exact(0.9, 0.85, 0.95) | {"tokens": 9999}, "fine"),
        ({"exact_match": "much", "intervals": 3}, "unknown"),
    ],
)
def test_answers_are_held_against_guessing(scores: dict[str, Any], expected: str) -> None:
    assert grade(run(scores)) == expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (heard(0.5, 0.4, 0.6), "fine"),
        (heard(0.51, 0.4, 0.6), "bad"),
        (heard(1.5, 1.2, 1.9), "bad"),
        (heard(0.1, 0.0, 0.2, questions=19), "few"),
        # Saying nothing is better than a guess of more words than there are.
        (heard(1.0, 0.9, 1.1) | {"prior": 2.0}, "bad"),
        (heard(0.1, 0.0, 0.2) | {"prior": 0.9}, "fine"),
    ],
)
def test_transcripts_are_held_against_saying_nothing(scores: dict[str, Any], expected: str) -> None:
    assert grade({"tasks": {"transcription": scores}}) == expected


@pytest.mark.parametrize(
    ("interval", "questions", "expected"),
    [
        ([0.001, 0.2], 20, "fine"),
        ([0.0, 0.2], 20, "bad"),
        ([0.0, 0.2], 19, "fine"),  # too few to blame; the answers are good
        (None, 20, "fine"),
    ],
)
def test_a_model_that_does_not_look_is_not_good(
    interval: list[float] | None, questions: int, expected: str
) -> None:
    found = {"interval": interval, "questions": questions}
    verdict = judge(run(reliance={"image": found}))
    assert verdict.grade == expected
    assert ("does not look at the picture" in verdict.sentence) == (expected == "bad")


def test_a_modality_of_another_name_has_words_too() -> None:
    found = {"interval": [-0.1, 0.1], "questions": 50}
    assert "it does not use the depth" in judge(run(reliance={"depth": found})).sentence
    found["interval"] = [0.1, 0.2]
    both = {"image": found, "depth": found}
    assert "it looks at the picture and uses the depth" in judge(run(reliance=both)).sentence


@pytest.mark.parametrize(
    ("change", "interval", "expected"),
    [
        (0.1, [0.05, 0.15], "bad"),
        (0.09, [0.05, 0.15], "weak"),
        (0.01, [0.001, 0.02], "weak"),
        (0.01, [0.0, 0.02], "fine"),
        (0.05, [-0.1, 0.09], "fine"),
        (0.05, [-0.1, 0.1], "fine"),  # too few texts to say; the answers are good
    ],
)
def test_language_is_held_against_the_start(
    change: float, interval: list[float], expected: str
) -> None:
    guard = {"loss": 1.0 + change, "start": 1.0, "interval": interval}
    verdict = judge(run(text_guard=guard))
    assert verdict.grade == expected
    kept = "language is as good as before" in verdict.sentence
    assert kept == (expected == "fine" and interval[1] < 0.1)


@pytest.mark.parametrize("interval", [[0.05, 0.15], [0.5, 1.0], [-0.2, -0.1]])
def test_a_change_of_language_that_few_records_show_is_no_verdict(interval: list[float]) -> None:
    """Their interval is too narrow: of two texts it covers nothing but what lies between them."""
    guard = {"loss": 1.1, "start": 1.0, "interval": interval, "records": 19}
    verdict = judge({"text_guard": guard})
    assert verdict.grade == "few"
    assert "the texts are too few to say whether language was lost" in verdict.sentence
    assert judge({"text_guard": guard | {"records": 20}}).grade != "few"


def test_language_alone_is_good_only_if_it_became_better() -> None:
    def guard(*interval: float) -> dict[str, Any]:
        return {"text_guard": {"loss": 0.9, "start": 1.0, "interval": list(interval)}}

    assert grade(guard(-0.2, -0.01)) == "fine"
    assert grade(guard(-0.2, 0.0)) == "unknown"
    assert grade(guard(-0.2, 0.2)) == "few"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (exact(0.75, 0.7, 0.8), "weak"),
        (exact(0.81, 0.7, 0.84), "fine"),  # less than a tenth lower
        (exact(0.75, 0.6, 0.85), "fine"),  # the intervals meet
        (exact(0.75, 0.7, 0.8, questions=19), "fine"),
        (exact(0.4, 0.2, 0.5), "bad"),
        (exact(0.4, 0.2, 0.5, prior=None), "weak"),
    ],
)
def test_other_splits_may_not_be_much_worse(scores: dict[str, Any], expected: str) -> None:
    verdict = judge(run(splits={"unseen": {"tasks": {"image_qa": scores, "other": GOOD}}}))
    assert verdict.grade == expected
    assert ("on the split unseen" in verdict.sentence) == (expected != "fine")


@pytest.mark.parametrize(
    ("after", "interval", "expected"),
    [(0.8, [0.01, 0.2], "weak"), (0.81, [0.01, 0.2], "fine"), (0.8, [0.0, 0.2], "fine")],
)
def test_follow_up_questions_may_not_be_much_worse(
    after: float, interval: list[float], expected: str
) -> None:
    found = {"exact_match": after, "alone": 0.9, "interval": interval, "questions": 20}
    assert grade(run(follow_ups={"image_qa": found})) == expected


@pytest.mark.parametrize(("cut", "expected"), [(0, "fine"), (1, "fine"), (2, "weak")])
def test_answers_at_the_limit_are_said(cut: int, expected: str) -> None:
    there = {"unseen": {"tasks": {"image_qa": {"at_limit": cut, "questions": 100}}}}
    verdict = judge(run({**GOOD, "at_limit": 0}, splits=there))
    assert verdict.grade == expected
    said = " ".join([verdict.sentence, *verdict.more])
    assert (f"{cut} of 200 answers of image_qa ran into the length limit" in said) == (cut > 0)


def test_the_worst_comes_first() -> None:
    results = run(
        exact(0.3, 0.2, 0.4),
        reliance={"image": {"interval": [-0.1, 0.1], "questions": 50}},
        text_guard={"loss": 2.0, "start": 1.0, "interval": [0.9, 1.1]},
        follow_ups={
            "image_qa": {"exact_match": 0.1, "alone": 0.9, "interval": [0.5, 1], "questions": 50}
        },
    )
    results["tasks"]["transcription"] = heard(0.02, 0.01, 0.03)
    verdict = judge(results)
    assert verdict.sentence == (
        "Not good yet: it gets 30.0 % right on questions about an image, no better than guessing "
        "the most common answer (30.0 %); it does not look at the picture: with that of another "
        "question it answers as well; language was lost (text loss 2.000, before 1.000)."
    )
    assert verdict.more == (
        "After another question it gets 10.0 % right on questions about an image, and 90.0 % "
        "without one.",
        "It gets 2.0 % of the words wrong on transcripts of speech.",
    )


def test_a_good_run_is_said_in_one_sentence() -> None:
    results = run(
        reliance={"image": {"interval": [0.5, 0.6], "questions": 50}},
        text_guard={"loss": 1.0, "start": 1.0, "interval": [-0.01, 0.01]},
    )
    results["tasks"] = {"caption": GOOD, "mine": GOOD, **results["tasks"]}
    verdict = judge(results)
    assert verdict.sentence == (
        "Good: it gets 90.0 % right on questions about an image (guessing the most common answer: "
        "30.0 %); it gets 90.0 % right on captions of an image (guessing the most common answer: "
        "30.0 %); it looks at the picture; language is as good as before."
    )
    assert [line for line in verdict.more if "questions of mine" in line]


def test_what_is_weak_follows_what_is_good() -> None:
    results = run()
    results["tasks"]["caption"] = exact(0.4, 0.35, 0.45)
    sentence = judge(results).sentence
    assert sentence.startswith("Good for the most part: it gets 90.0 %")
    assert "; but it gets 40.0 % right on captions of an image, less than halfway" in sentence


def test_nothing_is_claimed_of_little() -> None:
    assert judge({}).sentence.endswith("the results hold no score that shows it.")
    sentence = judge(RESULTS).sentence  # neither intervals nor priors
    assert sentence.startswith("It cannot be said whether this is good: it gets 50.0 %")
    assert "the score for transcripts of speech rests on 7 questions only" in sentence
    few = judge(run(exact(1.0, 1.0, 1.0, questions=1))).sentence
    assert few.startswith("Too few questions to say whether this is good (at least 20 of a task")
    assert "the score for questions about an image rests on 1 question only" in few
    assert judge(rich_results()).grade == "bad"  # 50 % where guessing gets 30 %


def test_what_is_good_does_not_hide_a_task_of_few_questions() -> None:
    results = run()
    results["tasks"]["transcription"] = heard(1.48, 1.2, 1.9, questions=10)
    verdict = judge(results)
    assert verdict.grade == "fine"
    assert "; but the score for transcripts of speech rests on 10 questions" in verdict.sentence


def test_odd_values_are_left_out() -> None:
    odd = {"reliance": {"image": 3}, "text_guard": [1], "follow_ups": {"a": None}}
    splits = {"x": {"tasks": {"image_qa": {"at_limit": "many"}}}, "y": None}
    assert grade(run(**odd, splits=splits)) == "fine"
