"""Several media of a kind, anywhere in a message: under keys of their own or as typed parts."""

import random
from pathlib import Path
from typing import Any

import pytest
from helpers import read_records as read
from helpers import tiny_tokenizer, write_source

from omnitune.data.audit.inspect import inspect_folder
from omnitune.data.template import ChatRenderer, Rendered
from omnitune.media.base import Fingerprint, Medium
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Message, Sample, Text, UserError
from omnitune.sources import SOURCES, Source

GOOD = {"question": "a?", "answer": "b"}


def shown(message: Message) -> list[str]:
    """A message's parts: text as it is, a medium as its file's name in brackets."""
    return [p.text.strip() if isinstance(p, Text) else f"[{p.path.name}]" for p in message.parts]


def rendered(sample: Sample) -> Rendered:
    """With a slot more for each medium than for the one before it."""
    counts = range(1, len(sample.media) + 1)
    return ChatRenderer(tiny_tokenizer()).render(sample.messages, list(counts))


def image(path: str, **rest: str) -> dict[str, str]:
    return {"type": "image", "path": path, **rest}


def audio(path: str, **rest: str) -> dict[str, str]:
    return {"type": "audio", "path": path, **rest}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def turns(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)]


def chat(*contents: Any, **rest: Any) -> dict[str, Any]:
    return {"messages": turns(*contents), **rest}


TWO = {"image": ["a.png", "b.png"]}
# Short form, the same in typed parts, and what the user's messages then show.
SAME: list[tuple[dict[str, Any], dict[str, Any], list[list[str]]]] = [
    (
        TWO | {"question": "which is red?", "answer": "b"},
        chat([image("a.png"), image("b.png"), text("which is red?")], "b"),
        [["[a.png]", "[b.png]", "which is red?"]],
    ),
    (
        TWO | {"question": "is <image> as <image> is?", "answer": "b"},
        chat(
            [text("is"), image("a.png"), text("as"), image("b.png"), text("is?")],
            [text("b")],
        ),
        [["is", "[a.png]", "as", "[b.png]", "is?"]],
    ),
    (  # what has no tag stands in front
        TWO | {"question": "what of <image>?", "answer": "b"},
        chat([image("b.png"), text("what of"), image("a.png"), text("?")], "b"),
        [["[b.png]", "what of", "[a.png]", "?"]],
    ),
    (
        chat("<image> look", "yes", "and <audio> at <image>", "no", image=["a.png", "b.png"])
        | {"audio": ["a.wav"]},
        chat(
            [image("a.png"), text("look")],
            "yes",
            [text("and"), audio("a.wav"), text("at"), image("b.png")],
            "no",
        ),
        [["[a.png]", "look"], ["and", "[a.wav]", "at", "[b.png]"]],
    ),
    (  # all kinds in the order of the registry
        {"audio": "a.wav", "question": "a?", "answer": "b"} | TWO,
        chat([image("a.png"), image("b.png"), audio("a.wav"), text("a?")], "b"),
        [["[a.png]", "[b.png]", "[a.wav]", "a?"]],
    ),
    (  # the same picture twice, texts in a row
        {"image": ["a.png", "a.png"], "question": "are they alike?", "answer": "yes"},
        chat([image("a.png"), image("a.png"), text("are they"), text("alike?")], "yes"),
        [["[a.png]", "[a.png]", "are they alike?"]],
    ),
    (
        chat("<image> hello", "hi you all", image="a.png"),
        chat([image("a.png"), text("hello")], [text("hi"), text("you "), text("all")]),
        [["[a.png]", "hello"]],
    ),
    (  # untagged ones keep the record's order in front of their question
        {"image": ["a.png", "b.png", "c.png"], "question": "is <image> red?", "answer": "no"},
        chat([image("b.png"), image("c.png"), text("is"), image("a.png"), text("red?")], "no"),
        [["[b.png]", "[c.png]", "is", "[a.png]", "red?"]],
    ),
    (  # tags in a part of text stand for the media under a key
        TWO | chat("see <image>, <image>", "ok"),
        TWO | chat([text("see <image>,"), text(" <image>")], "ok"),
        [["see", "[a.png]", ",", "[b.png]"]],
    ),
]


@pytest.mark.parametrize(("short", "typed", "expected"), SAME)
def test_short_form_and_typed_parts_are_the_same(
    tmp_path: Path, short: dict[str, Any], typed: dict[str, Any], expected: list[list[str]]
) -> None:
    one, other = read(tmp_path, "image_text", short, typed)
    for sample in (one, other):
        assert [shown(m) for m in sample.messages if m.role == "user"] == expected
    assert one.media == other.media
    assert [(s.media, s.start, s.count) for s in rendered(one).slots] == [
        (s.media, s.start, s.count) for s in rendered(other).slots
    ]
    assert rendered(one) == rendered(other)
    assert (one.task, one.task_counts()) == (other.task, other.task_counts())
    assert one.length_score() == other.length_score()


def test_any_number_of_media_keeps_its_order(tmp_path: Path) -> None:
    draw = random.Random(0)
    records, expected = [], []
    for n in range(40):
        names = [f"{draw.randrange(9)}.png" for _ in range(draw.randint(1, 6))]
        tags = " x ".join(["<image>"] * len(names))
        asked = tags if n % 2 else "what?"
        records.append({"image": names, "question": asked, "answer": "y"})
        expected.append(names)
    samples = read(tmp_path, "image_text", *records)
    assert [[m.path.name for m in sample.media] for sample in samples] == expected


QA = [
    {"question": "which is larger?", "answer": "0"},
    {"question": "is <image> red?", "answer": "1"},
    {"question": "does <image> lie in <image>?", "answer": "2"},
]
OF_BOTH = {"question": "is <image> as loud as <audio>?", "answer": "3"}
ALONE = [
    ["[a.png]", "[b.png]", "which is larger?"],
    ["[b.png]", "is", "[a.png]", "red?"],
    ["does", "[a.png]", "lie in", "[b.png]", "?"],
]


@pytest.mark.parametrize("order", [[0, 1, 2], [1], [2, 0], [2, 1, 0], [1, 2]])
def test_each_independent_question_shows_all_media(tmp_path: Path, order: list[int]) -> None:
    [sample] = read(tmp_path, "image_text", TWO | {"qa": QA})
    assert [shown(s.messages[0]) for s in sample.split_turns()] == ALONE
    chosen = sample.select_turns(order)
    first, *rest = [message for message in chosen.messages if message.role == "user"]
    assert shown(first) == ALONE[order[0]]
    assert not [p for m in rest for p in m.parts if isinstance(p, Media)]
    assert [shown(s.messages[0])[-1] for s in chosen.split_turns()] == [ALONE[n][-1] for n in order]
    for single in chosen.split_turns():
        assert sorted(m.path.name for m in single.media) == ["a.png", "b.png"]


@pytest.mark.parametrize("record", [TWO, {"caption": ["a", "b"]}])
def test_a_question_without_tags_shows_the_records_order_whatever_others_tag(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    source = "image_text" if "image" in record else "text_only"
    [sample] = read(tmp_path, source, record | {"qa": [QA[1], QA[0]]})
    for chosen in (sample, sample.select_turns([1, 0]), sample.select_turns([0, 1])):
        [single] = [s for s in chosen.split_turns() if s.messages[1].text == "0"]
        assert [name.strip("[].")[0] for name in shown(single.messages[0])[:2]] == ["a", "b"]
    [both] = read(tmp_path, "image_text", TWO | {"audio": "a.wav", "qa": [OF_BOTH, QA[0]]})
    assert shown(both.split_turns()[1].messages[0])[:3] == ["[a.png]", "[b.png]", "[a.wav]"]


def test_a_picture_that_is_shown_twice_is_shown_twice_to_each_question(tmp_path: Path) -> None:
    record = {"image": ["a.png", "a.png"], "qa": [QA[0], QA[1]]}
    [sample] = read(tmp_path, "image_text", record)
    for chosen in (sample, sample.select_turns([1, 0]), sample.select_turns([1])):
        assert [len(s.media) for s in chosen.split_turns()] == [2] * chosen.num_questions
        assert len(chosen.media) == 2


def test_captions_are_those_of_each_medium(tmp_path: Path) -> None:
    listed, typed, told = read(
        tmp_path,
        "image_text",
        GOOD | TWO | {"caption": ["a ring", "a red star"]},
        chat([image("a.png", caption="a ring"), image("b.png"), text("a?")], "b"),
        GOOD | {"image": "a.png", "caption": "a ring"},
    )
    assert [m.caption for m in listed.media] == ["a ring", "a red star"]
    assert [m.caption for m in typed.media] == ["a ring", ""]
    assert [s.length_score() for s in (listed, typed, told)] == [7, 4, 4]
    [described] = read(
        tmp_path, "text_only", {"caption": ["a ring", "a star"], "question": "<image>, <image>?"}
        | {"answer": "b"},
    )  # fmt: skip
    assert shown(described.messages[0]) == ["a ring.", ",", "a star.", "?"]


def test_typed_media_are_the_media_of_their_record(tmp_path: Path) -> None:
    """They meet what the source asks for, and name the task."""
    spoken = chat([audio("a.wav")], "hello", kind="greeting")
    spoken["messages"][1]["task"] = "transcription"
    [sample] = read(tmp_path, "audio_text", spoken)
    assert (sample.task, sample.messages[1].kind) == ("transcription", "greeting")
    both = chat([image("a.png"), text("see")], "ok", [audio("a.wav")], "ok")
    assert read(tmp_path, "image_audio_text", both)[0].task == "image_audio_qa"
    with pytest.raises(UserError, match='the key "audio" is missing'):
        read(tmp_path, "image_audio_text", chat([image("a.png"), text("see")], "ok"))


PART = 'message 1: "content" part 2: '
WRONG: list[tuple[dict[str, Any], str]] = [
    (TWO | {"question": "<image> <image> <image>", "answer": "b"}, 'has 2 under "image"; take it'),
    (
        TWO | {"qa": [*QA[:2], {"question": "<image><image><image>", "answer": "x"}]},
        'pair 3: "question" holds <image> once more, but the record has 2 under "image"',
    ),
    (
        TWO | chat("<image> a", "b", "<image><image>", "d"),
        'message 3: "content" holds <image> once more',
    ),
    (chat([image("a.png"), text("<image>")], "b"), 'part 2: "text" holds <image>, but the record'),
    (chat([], "b"), 'message 1: "content" is [] (a list), expected text or a list of parts'),
    (chat({"type": "text"}, "b"), 'message 1: "content" is {"type": "text"} (an object)'),
    (chat([text("a"), "b"], "b"), PART + 'is "b", expected an object with a "type"'),
    (
        chat([text("a"), {"text": "b"}], "b"),
        PART + 'the key "type" is missing, expected text or',
    ),
    (chat([text("a"), {"type": "text"}], "b"), PART + 'the key "text" is missing, expected text'),
    (chat([text("a"), {"type": "text", "text": 4}], "b"), PART + '"text" is 4 (a number)'),
    (chat([text("a"), {"type": "text", "text": "\ud83d"}], "b"), PART + '"text" holds half of a'),
    (chat([text("a"), text("b") | {"weight": 1}], "b"), PART + 'unknown key "weight"; known here'),
    (
        chat([text("a"), {"type": "imgae", "path": "a.png"}], "b"),
        PART + '"type" is "imgae", expected text or image or audio (did you mean "image"?)',
    ),
    (
        chat([text("a"), {"type": "image_url", "image_url": {"url": "a.png"}}], "b"),
        '"type" is "image_url", expected text or image or audio (did you mean "image"?)',
    ),
    (
        chat([text("a"), {"type": "video", "path": "a.mp4"}], "b"),
        PART + '"type" is "video", exp',
    ),
    (chat([text("a"), {"type": ["image"]}], "b"), PART + '"type" is ["image"] (a list)'),
    (chat([text("a"), {"type": "image"}], "b"), PART + 'the key "path" is missing, expected a rel'),
    (
        chat([text("a"), {"type": "image", "image": "a.png"}], "b"),
        PART + 'unknown key "image" (did you mean "path"?)',
    ),
    (chat([text("a"), image("/a.png")], "b"), PART + '"path" is "/a.png", which leaves the folder'),
    (chat([text("a"), image("../a.png")], "b"), PART + '"path" is "../a.png", which leaves'),
    (chat([text("a"), image("")], "b"), PART + '"path" is "", expected one relative path'),
    (chat([text("a"), image("a.png", caption=" ")], "b"), PART + '"caption" is " ", expected text'),
    (chat([text("a"), image("a.png", transcript="x")], "b"), PART + 'unknown key "transcript"'),
    (
        chat("a", [text("b"), image("a.png")]),
        'message 2: "content" part 2: is of the type "image", but the message is the assistant\'s',
    ),
    (chat("a", [text(" ")]), 'message 2: "content" is [{"type": "text", "text": " "}] (a list)'),
    (chat("a", [text("<image>")]), 'part 1: "text" holds <image>, but tags stand in what the user'),
    (
        {"messages": [{"role": "system", "content": [image("a.png")]}, *turns("a", "b")]},
        'message 1: "content" part 1: is of the type "image", but the message is the system\'s',
    ),
    (
        chat([image("a.png"), text("a")], "b", caption="a ring"),
        '"caption" is a key of the record, but its image is a part of a message',
    ),
    (
        GOOD | {"audio": "a.wav", "caption": "a ring"},
        '"caption" says what a picture holds, but the record has audio and no image; add the '
        '"image", or call the key "_caption" if nothing is to read it',
    ),
    (GOOD | TWO | {"transcript": "a ring"}, '"transcript" says what a sound holds, but the rec'),
    (chat([audio("a.wav"), text("a")], "b", caption="a ring"), "the record has audio and no image"),
    (
        GOOD | TWO | {"caption": ["a ring"]},
        '"caption" holds 1 and "image" 2; expected one text for each path, in the same order',
    ),
]


@pytest.mark.parametrize(("record", "words"), WRONG)
def test_what_is_wrong_with_a_part_is_named(
    tmp_path: Path, record: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, "text_only", GOOD, record)
    start = f"{tmp_path / SOURCES['text_only'].file}: record 2: "
    assert str(error.value).startswith(start)
    assert words in str(error.value)


class Thermal(Medium):
    """A made-up medium: whatever bytes a file holds."""

    name, caption_key, unit = "thermal", "reading", "bytes"
    aliases = ("heat",)

    def check(self, path: Path) -> None:
        path.read_bytes()

    def fingerprint(self, path: Path) -> Fingerprint:
        return Fingerprint(hash(path.read_bytes()) % 2**64, path.stat().st_size)


def test_a_medium_and_a_source_that_are_added_have_keys_tags_and_parts_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"thermal": ["1.bin", "2.bin"], "reading": ["warm", "cold"], "split": "train"}
    record |= {"question": "<thermal> or <thermal>?", "answer": "the first."}
    with pytest.raises(UserError, match='unknown keys "thermal", "reading"'):
        read(tmp_path, "text_only", record)
    write_source(tmp_path, "text_only", [GOOD])
    monkeypatch.setitem(MEDIA, "thermal", Thermal())
    source = Source("thermal_text", "thermal/qa.json", media=("thermal",), keys=("place",))
    monkeypatch.setitem(SOURCES, "thermal_text", source)
    typed = [{"type": "thermal", "path": "1.bin", "reading": "warm"}, text("how warm?")]
    samples = read(tmp_path, "thermal_text", record, chat(typed, "very.", split="test", place=4))
    assert shown(samples[0].messages[0]) == ["[1.bin]", "or", "[2.bin]", "?"]
    assert [m.caption for m in samples[0].media] == ["warm", "cold"]
    assert samples[1].media == samples[0].media[:1]
    for name in ("1.bin", "2.bin"):
        (tmp_path / "thermal" / name).write_text(name * 3)
    found = inspect_folder(tmp_path)
    assert found["sources"]["thermal_text"]["train"]["media"] == {"thermal": 2}
    assert found["leaks"]["test"]["thermal"] == {"compared": 1, "same file": 1}
    with pytest.raises(UserError, match='the key "thermal" is missing'):
        read(tmp_path, "thermal_text", GOOD)
    with pytest.raises(UserError, match=r'"type" is "heat".*\(did you mean "thermal"\?\)'):
        read(tmp_path, "thermal_text", chat([{"type": "heat", "path": "1.bin"}], "b"))
