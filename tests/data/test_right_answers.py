"""Several right answers and options: one is trained, all are kept; mistakes are named."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnitune.config.settings import object_of_pairs
from omnitune.data.schema import Record
from omnitune.evaluation.scoring import questions_of
from omnitune.sample import Message, Sample, UserError

COLORS = (("A", "red"), ("B", "blue"))


def read(**values: Any) -> Sample:
    return Record(Path("data/x.json"), "text_only", 0, {"question": "which?", **values}).sample()


def answer(**values: Any) -> Message:
    return read(**values).messages[-1]


def test_the_commonest_answer_is_trained() -> None:
    given = ["dark red", "red", "red", "rose"]
    found = answer(answers=given)
    assert (found.text, found.references) == ("red", tuple(given))
    assert answer(answers=["b", "a", "a", "b"]).text == "b"  # of equals the first
    assert answer(answers=["one"]).references == ()


def test_the_named_answer_is_trained_and_right() -> None:
    found = answer(answer="rose", answers=["rose", "red", "red"])
    assert (found.text, found.references) == ("rose", ("rose", "red", "red"))
    assert answer(answer="x", answers=["y", "z"]).references == ("x", "y", "z")


def test_options_have_letters_or_names_of_their_own() -> None:
    assert answer(answer="B", choices=["red", "blue"]).choices == COLORS
    assert answer(answer="blue", choices={"A": "red", "B": "blue"}).choices == COLORS
    assert answer(answer="2", choices={"1": "red", "2": "blue"}).choices[1] == ("2", "blue")


def test_options_make_it_a_choice_unless_another_task_is_named() -> None:
    assert read(answer="B", choices=["red", "blue"]).task == "choice"
    assert read(answer="B", choices=["red", "blue"], task="vqa").task == "vqa"
    assert read(answers=["B", "b"]).task == "text"


def test_pairs_and_messages_have_their_own() -> None:
    one = {"question": "which?", "answers": ["red", "red", "rose"]}
    two = {"question": "and which?", "answer": "A", "choices": ["red", "blue"]}
    pairs = Record(Path("x.json"), "text_only", 0, {"qa": [one, two]}).sample()
    talk = [
        message
        for pair in (one, two)
        for message in (
            {"role": "user", "content": pair["question"]},
            {"role": "assistant", "content": "red"}
            | {k: v for k, v in pair.items() if k in ("answers", "choices")},
        )
    ]
    turns = Record(Path("x.json"), "text_only", 0, {"messages": talk}).sample()
    for sample in (pairs, turns):
        first, second = questions_of(sample)
        assert (first.reference, first.references) == ("red", ("red", "red", "rose"))
        assert (second.references, second.choices) == ((), COLORS)
    assert [q.task for q in questions_of(pairs)] == ["text", "choice"]


def test_letters_of_a_tag_are_letters_here_too() -> None:
    found = answer(answers=["\\<image>", "x"])
    assert (found.text, found.references) == ("<image>", ("<image>", "x"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"answers": []}, '"answers" is [] (a list), expected a list of at least one text'),
        ({"answers": "red"}, '"answers" is "red", expected a list'),
        ({"answers": ["red", 2]}, '"answers": item 2 is 2'),
        ({"answers": ["red", " "]}, '"answers": item 2 is'),
        ({"answers": ["red", "<image>"]}, '"answers" holds <image>'),
        ({"answer": "B", "choices": "AB"}, '"choices" is "AB"'),
        ({"answer": "A", "choices": ["red"]}, "expected a list of 2 to 26 texts"),
        ({"answer": "A", "choices": {"A": "red"}}, "expected a list of 2 to 26 texts"),
        ({"answer": "A", "choices": [str(n) for n in range(27)]}, "expected a list of 2 to 26"),
        ({"answer": "A", "choices": ["red", None]}, '"choices": item 2 is null'),
        ({"answer": "A", "choices": {"A": "red", "B": 4}}, '"choices": "B" is 4'),
        ({"answer": "A", "choices": {"A": "red", " ": "x"}}, "an option without a name"),
        (
            {"answer": "green", "choices": ["red", "blue"]},
            'the answer is "green", which is not one of the choices: A "red", B "blue"',
        ),
        ({"answer": "a", "options": ["a", "b"]}, 'did you mean "choices"?'),
        ({"answer": "a", "references": ["a", "b"]}, 'did you mean "answers"?'),
    ],
)
def test_a_mistake_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        read(**values)
    assert words in str(error.value)
    assert str(error.value).startswith("data/x.json: record 1: ")


@pytest.mark.parametrize("key", ["answers", "choices"])
@pytest.mark.parametrize("form", ["qa", "messages"])
def test_keys_outside_of_what_they_belong_to_are_refused(key: str, form: str) -> None:
    forms = {
        "qa": [{"question": "a?", "answer": "b"}],
        "messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}],
    }
    record = {form: forms[form], key: ["b", "c"]}
    with pytest.raises(UserError, match=f'has "{key}" beside "{form}"; put the key into the'):
        Record(Path("x.json"), "text_only", 0, record).sample()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(values=st.dictionaries(st.sampled_from(["answer", "answers", "choices"]), anything))
def test_any_value_is_read_or_refused(values: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        assert read(**values).messages[-1].text.strip()


def test_an_option_that_is_given_twice_is_refused() -> None:
    record = json.loads(
        '{"question": "a?", "answer": "A", "choices": {"A": "x", "B": "y", "A": "z"}}',
        object_pairs_hook=object_of_pairs,
    )
    with pytest.raises(UserError, match='"choices": the key "A" is given twice'):
        Record(Path("x.json"), "text_only", 0, record).sample()
