"""The options of a question stand in what is asked, once, whatever form the record has."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnitune.config.commands import ConvertConfig
from omnitune.data.convert import convert_data
from omnitune.data.options import shown
from omnitune.data.reading import DataPlace, join, read_available
from omnitune.data.schema import Record
from omnitune.evaluation.scoring import questions_of
from omnitune.evaluation.truth import Truth, right_choice
from omnitune.sample import Sample, UserError

COLORS = ["red", "blue"]
LINES = "A. red\nB. blue"


def read(values: dict[str, Any]) -> Sample:
    return Record(Path("data/x.json"), "text_only", 0, values).sample()


def asked(sample: Sample) -> list[str]:
    return [m.text for m in sample.messages if m.role == "user"]


@pytest.mark.parametrize("answer", ["B", "blue", 1, "1"])
def test_the_options_are_asked_and_letter_text_or_number_answer(answer: Any) -> None:
    sample = read({"question": "which?", "choices": COLORS, "answer": answer})
    assert asked(sample) == [f"which?\n{LINES}"]
    [question] = questions_of(sample)
    truth = Truth(question.reference, "", question.references, question.choices)
    for right in ("B", "blue", "(B) blue", "The answer is B."):
        assert right_choice(right, truth) == (1.0, 1)
    for wrong in ("A", "red", "C"):
        assert right_choice(wrong, truth) == (0.0, 1)


@pytest.mark.parametrize(
    ("question", "answer", "holds"),
    [
        ("which? (A) red (B) blue", "A", True),
        ("which?\nA. red\nB. blue", "red", True),
        ("which? A: Red, B: Blue", "B", True),
        ("red or blue?", "red", True),
        ("red or blue?", "A", False),  # the letters are nowhere
        ("is it infrared or bluest?", "red", False),
        ("is it red?", "red", False),
        ("", "red", False),
    ],
)
def test_a_question_that_holds_them_stays_as_it_is(question: str, answer: str, holds: bool) -> None:
    found = asked(read({"question": question, "choices": COLORS, "answer": answer}))
    if holds:
        assert found == [question]
    else:
        assert found == [f"{question}\n{LINES}".strip()]


def test_numbers_in_the_question_are_counted_as_it_counts() -> None:
    values = {"question": "which? 1) red 2) blue", "choices": COLORS}
    assert read({**values, "answer": 1}).messages[-1].text == "red"
    assert read({**values, "answer": "2"}).messages[-1].text == "blue"
    numbers = {"question": "how many?", "choices": ["2", "1", "0"]}
    assert read({**numbers, "answer": "1"}).messages[-1].text == "1"
    assert read({**numbers, "answer": 0}).messages[-1].text == "2"


def test_pairs_and_messages() -> None:
    pair = {"question": "which?", "choices": COLORS, "answer": "red"}
    assert asked(read({"qa": [pair, {"question": "why?", "answer": "so"}]})) == [
        f"which?\n{LINES}",
        "why?",
    ]
    answer = {"role": "assistant", "content": "A", "choices": COLORS}
    for content in ("which?", [{"type": "text", "text": "which?"}]):
        turns = [{"role": "user", "content": content}, answer]
        assert asked(read({"messages": turns})) == [f"which?\n{LINES}"]
    held = [{"type": "text", "text": "A. red"}, {"type": "text", "text": "B. blue"}]
    assert "\n" not in asked(read({"messages": [{"role": "user", "content": held}, answer]}))[0]


@pytest.mark.parametrize(
    ("answer", "words"), [("green", "not one of the choices"), (2, "is 2, but")]
)
def test_an_answer_that_is_no_option_is_named(answer: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read({"question": "which?", "choices": COLORS, "answer": answer})


@settings(deadline=None)
@given(
    question=st.text(),
    options=st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=5),
)
def test_showing_twice_is_showing_once(question: str, options: list[str]) -> None:
    pairs = list(zip("ABCDE", options, strict=False))
    for answer in ("A", options[0]):
        once = shown(question, pairs, answer)
        assert question.rstrip() in once or not question.strip()
        if not any("<" in text or not text.split() for text in options):
            assert shown(once, pairs, answer) == once


ROWS: dict[str, dict[str, Any]] = {
    "ScienceQA": {
        "question": "which?",
        "choices": COLORS,
        "answer": 1,
        "hint": "",
        "solution": "so",
    },
    "AI2D": {"question": "which?", "options": COLORS, "answer": "1"},
    "A-OKVQA": {"question": "which?", "choices": COLORS, "correct_choice_idx": 1},
    "ARC": {
        "question": "which?",
        "choices": {"text": COLORS, "label": ["A", "B"]},
        "answerKey": "B",
    },
    "MMMU": {"question": "which?", "options": "['red', 'blue']", "answer": "B", "img_type": "x"},
}


@pytest.mark.parametrize("name", ROWS)
def test_as_data_sets_of_the_hub_have_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), **ROWS[name]}) + "\n" for n in range(3)))
    for sample in join(read_available(DataPlace.of(path)).values()):
        assert asked(sample) == [f"which?\n{LINES}"]
        assert sample.messages[-1].text in ("B", "blue")
        assert sample.messages[-1].choices == (("A", "red"), ("B", "blue"))
        assert sample.task == "choice"
    for sample in join(read_available(DataPlace.to_answer(path)).values()):
        assert asked(sample) == [f"which?\n{LINES}"]


def test_questions_alone_are_asked_with_their_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "which?", "choices": COLORS}) + "\n")
    [sample] = join(read_available(DataPlace.to_answer(path)).values())
    assert asked(sample) == [f"which?\n{LINES}"]


def test_a_format_without_options_gets_them_in_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    path, out = tmp_path / "rows.json", tmp_path / "out.json"
    path.write_text(json.dumps([{"question": "which?", "choices": COLORS, "answer": "B"}]))
    config = ConvertConfig(paths=[path, out], to="llava")
    assert convert_data(config) == 0
    assert f"which?\\n{LINES}".replace("\n", "\\n") in out.read_text()
