"""Our records in other dialects, and back: the model is shown the same."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnitune.data.schema import Record
from omnitune.data.sources.base import Origin
from omnitune.data.sources.registry import DIALECTS
from omnitune.sample import Message, UserError
from omnitune.sources import Source

FILE = Path("/data/records.json")
SOURCE = Source("mine", path=str(FILE))
WRITTEN = ("native", "llava", "sharegpt", "alpaca", "openai", "trl", "swift", "manifest")
PLAIN = st.text("ab <>\\/\n.?", max_size=12)
PATHS = st.lists(st.sampled_from(["a.png", "b/c.png", "d.jpg"]), min_size=1, max_size=3)
SOUNDS = st.lists(st.sampled_from(["a.wav", "b/c.flac::t=1.5,2"]), min_size=1, max_size=2)
KEPT = {
    "id": st.sampled_from(["1", "x/y"]),
    "split": st.sampled_from(["train", "test"]),
    "language": st.just("hi"),
    "kind": st.just("count"),
    "difficulty": st.sampled_from([0, 0.25]),
}


@st.composite
def _asked(draw: st.DrawFn, tags: list[str]) -> str:
    """A question with some of the tags that are left; takes these off."""
    pieces = [draw(PLAIN)]
    while tags and draw(st.booleans()):
        pieces += [tags.pop(0), draw(PLAIN)]
    text = "".join(pieces)
    # Letters that make a tag by chance are no matter of a dialect.
    return text if text.strip() else "a" + text


ANSWERS = PLAIN.filter(lambda text: bool(text.strip()))


@st.composite
def records(draw: st.DrawFn, name: str) -> dict[str, Any]:
    found = draw(st.fixed_dictionaries({}, optional=KEPT))
    if name == "manifest":
        found["audio"] = draw(SOUNDS)[:1]
        return {**found, "question": draw(_asked(["<audio>"])), "answer": draw(ANSWERS)}
    found |= draw(st.fixed_dictionaries({}, optional={"image": PATHS, "audio": SOUNDS}))
    tags = [f"<{name}>" for name in ("image", "audio") for _ in found.get(name, [])]
    tags = list(draw(st.permutations(tags)))
    if draw(st.booleans()):
        return {**found, "question": draw(_asked(tags)), "answer": draw(ANSWERS)}
    messages = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(ANSWERS)})
    for _ in range(draw(st.integers(1, 3))):
        asked: Any = draw(_asked(tags))
        if draw(st.booleans()):
            asked = [{"type": "text", "text": asked}, {"type": "image", "path": "t.png"}]
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": draw(ANSWERS)})
    if draw(st.booleans()):
        for message in messages[:-1]:
            if message["role"] == "assistant":
                message["weight"] = 0
    return {**found, "messages": messages}


def read(name: str, record: dict[str, Any]) -> tuple[list[Message], tuple[Any, ...]]:
    wrong = Record(FILE, SOURCE, 0, record).wrong
    native = DIALECTS[name].native(record, Origin(FILE, SOURCE, wrong))
    sample = Record(FILE, SOURCE, 0, native).sample()
    split = sample.split if "split" in native else ""
    messages = [Message(m.role, m.parts, m.kind, m.task, m.weight) for m in sample.messages]
    return messages, (sample.id, split, sample.language, sample.kind, sample.difficulty)


@pytest.mark.parametrize("name", WRITTEN)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_record_is_the_same_there_and_back(name: str, data: st.DataObject) -> None:
    record = data.draw(records(name))
    try:
        wanted = read("native", record)
        foreign = DIALECTS[name].foreign(record)
    except UserError:  # what it cannot say is refused
        return
    assert read(name, foreign) == wanted


@pytest.mark.parametrize("name", WRITTEN)
def test_the_simplest_record_can_be_written(name: str) -> None:
    medium = {"audio": "a.wav"} if name == "manifest" else {"image": "a.png"}
    record = {**medium, "question": "a", "answer": "b"}
    foreign = DIALECTS[name].foreign(record)
    assert read(name, foreign) == read("native", record)
    found = [dialect.name for dialect in DIALECTS.values() if dialect.recognises([foreign], FILE)]
    assert found == [name]


QA = {
    "image": ["a.png", "b.png"],
    "qa": [
        {"question": "is <image>like <image>?", "answer": "no"},
        {"question": "is <image>red?", "answer": "yes"},
    ],
}


@pytest.mark.parametrize("name", ["llava", "sharegpt", "alpaca", "openai", "trl", "swift"])
def test_independent_questions_become_a_conversation_that_shows_media_once(name: str) -> None:
    messages, _ = read(name, DIALECTS[name].foreign(QA))
    assert [message.role for message in messages] == ["user", "assistant"] * 2
    assert [message.text for message in messages] == ["is like ?", "no", "is red?", "yes"]
    media = [len(message.parts) - 1 for message in messages]
    assert media == [4, 0, 0, 0] or media == [3, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "record", "told"),
    [
        ("llava", {"image": "::/image/bytes", "answer": "a"}, "lies in the record itself"),
        ("swift", {"caption": "a cat", "question": "a", "answer": "b"}, "words in place of"),
        ("manifest", {"image": "a.png", "answer": "b"}, "one sound and one answer"),
        ("hf_dataset", {"answer": "b"}, "cannot be written"),
        (
            "llava",
            {
                "messages": [
                    *({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
                    *({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
                ]
            },
            "",
        ),
    ],
)
def test_what_a_dialect_cannot_say_is_refused(name: str, record: dict[str, Any], told: str) -> None:
    if not told:
        record["messages"][1]["weight"] = 0
        told = '"weight": 0'
    with pytest.raises(UserError, match=told):
        DIALECTS[name].foreign(record)
