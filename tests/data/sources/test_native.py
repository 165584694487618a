"""Reading data files: every accepted form, and an error for every other."""

import hashlib
import json
import os
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image, write_wave

from omnitune.data import faults
from omnitune.data.reading import (
    FILES,
    REQUIRED_MEDIA,
    check_media,
    read_available,
    read_source,
    remarks,
    split_of,
)
from omnitune.data.schema import Record
from omnitune.data.splits import by_content
from omnitune.sample import SOURCES, Described, Media, Message, Sample, Text, UserError


def write(folder: Path, source: str, records: Any) -> Path:
    path = folder / FILES[source]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = records if isinstance(records, str) else json.dumps(records)
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, source: str, *records: Any) -> list[Sample]:
    write(folder, source, list(records))
    return read_source(folder, source)


def shown(message: Message) -> list[str]:
    """A message's parts: text as it is, a medium as its file's name in brackets."""
    return [p.text if isinstance(p, Text) else f"[{p.path.name}]" for p in message.parts]


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)]


def test_question_and_answer(tmp_path: Path) -> None:
    sample = read(tmp_path, "text_only", {"question": "2 plus 2?", "answer": "4"})[0]
    assert [m.role for m in sample.messages] == ["user", "assistant"]
    assert [shown(m) for m in sample.messages] == [["2 plus 2?"], ["4"]]
    assert (sample.id, sample.source, sample.task) == ("text_only/0", "text_only", "text")
    assert sample.media == ()


def test_messages_keep_system_turn_and_order(tmp_path: Path) -> None:
    system = {"role": "system", "content": "be brief."}
    record = {"id": 7, "messages": [system, *turns("a?", "b", "c?", "d")], "split": "test_voices"}
    sample = read(tmp_path, "text_only", record)[0]
    assert [m.role for m in sample.messages] == ["system", *("user", "assistant") * 2]
    assert [m.text for m in sample.messages] == ["be brief.", "a?", "b", "c?", "d"]
    assert (sample.id, sample.split) == ("7", "test_voices")
    assert not sample.independent_turns


def test_list_of_questions_is_independent_and_keeps_each_kind(tmp_path: Path) -> None:
    qa = [
        {"question": "how many?", "answer": "3", "kind": "count"},
        {"question": "what is it?", "answer": "a circle.", "kind": "caption"},
        {"question": "color?", "answer": "red"},
    ]
    sample = read(tmp_path, "image_text", {"image": "a.png", "qa": qa, "kind": "mixed"})[0]
    answers = [m for m in sample.messages if m.role == "assistant"]
    assert [m.text for m in answers] == ["3", "a circle.", "red"]
    assert [m.kind for m in answers] == ["count", "caption", "mixed"]
    assert [m.task for m in answers] == ["image_qa", "caption", "image_qa"]
    assert sample.independent_turns
    assert sample.media == (Media("image", tmp_path / "images" / "a.png"),)


def test_both_media_open_the_first_user_turn(tmp_path: Path) -> None:
    record = {"image": "sub/a.png", "audio": "b.wav", "question": "is it true?", "answer": "yes"}
    sample = read(tmp_path, "image_audio_text", record)[0]
    assert shown(sample.messages[0]) == ["[a.png]", "[b.wav]", "is it true?"]
    assert [m.path for m in sample.media] == [tmp_path / "omni/sub/a.png", tmp_path / "omni/b.wav"]
    assert sample.task == "image_audio_qa"


def test_default_place_is_the_first_user_turn_after_a_system_turn(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "look."}, *turns("a?", "b", "c?", "d")]
    sample = read(tmp_path, "image_text", {"image": "a.png", "messages": messages})[0]
    assert [shown(m) for m in sample.messages[:2]] == [["look."], ["[a.png]", "a?"]]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("<image> then <audio> now", ["[a.png]", " then ", "[b.wav]", " now"]),
        ("<audio><image>", ["[b.wav]", "[a.png]"]),
        ("see <image>", ["[b.wav]", "see ", "[a.png]"]),
        ("say \\<image> of <image>", ["[b.wav]", "say \\<image> of ", "[a.png]"]),
        ("a < b, <b> or <images>?", ["[a.png]", "[b.wav]", "a < b, <b> or <images>?"]),
    ],
)
def test_tags_say_where_media_stand(tmp_path: Path, question: str, expected: list[str]) -> None:
    record = {"image": "a.png", "audio": "b.wav", "question": question, "answer": r"\<image> ok"}
    sample = read(tmp_path, "image_audio_text", record)[0]
    assert shown(sample.messages[0]) == [text.replace("\\", "") for text in expected]
    assert shown(sample.messages[1]) == ["<image> ok"]


def test_tag_in_a_later_turn(tmp_path: Path) -> None:
    messages = turns("wait.", "ok", "now <image>?", "yes")
    sample = read(tmp_path, "image_text", {"image": "a.png", "messages": messages})[0]
    assert shown(sample.messages[0]) == ["wait."]
    assert shown(sample.messages[2]) == ["now ", "[a.png]", "?"]


QUESTIONS = ("<image>\nwhat?", "where in <image> is it?", "why?", "how so? <image>")


@pytest.mark.parametrize("described", [False, True])
def test_a_tag_in_each_question_means_the_same_picture(tmp_path: Path, described: bool) -> None:
    """As converters of conversations write it; each question shows it where its tag stands."""
    subject = {"caption": "a ring"} if described else {"image": "a.png"}
    qa = [{"question": q, "answer": str(n)} for n, q in enumerate(QUESTIONS)]
    sample = read(tmp_path, "described" if described else "image_text", subject | {"qa": qa})[0]
    name = "a ring. " if described else "[a.png]"
    alone = [
        [name, "\nwhat?"],
        ["where in ", name, " is it?"],
        [name, "why?"],
        ["how so? ", name],
    ]
    assert [shown(s.messages[0]) for s in sample.split_turns()] == alone
    assert [shown(s.messages[0]) for s in sample.select_turns([1, 3]).split_turns()] == [
        alone[1],
        alone[3],
    ]
    assert len(sample.context_parts) == 1
    for order in ([0, 1, 2, 3], [1, 3], [3, 0, 2], [2, 1]):
        asked = [m for m in sample.select_turns(order).messages if m.role == "user"]
        assert shown(asked[0]) == alone[order[0]]
        assert not [p for m in asked[1:] for p in m.parts if isinstance(p, Media | Described)]
        assert [m.text.strip() for m in asked[1:]] == [
            QUESTIONS[n].replace("<image>", "").strip() for n in order[1:]
        ]


def test_a_picture_opens_independent_questions_though_the_tag_stands_in_a_later_one(
    tmp_path: Path,
) -> None:
    qa = [{"question": "what?", "answer": "x"}, {"question": "and <image>?", "answer": "y"}]
    sample = read(tmp_path, "image_text", {"image": "a.png", "qa": qa})[0]
    assert shown(sample.messages[0]) == ["[a.png]", "what?"]
    assert shown(sample.split_turns()[1].messages[0]) == ["and ", "[a.png]", "?"]


def asks(question: str) -> dict[str, str]:
    return {"question": question, "answer": "x"}


PICTURE = {"image": "a.png"}
TAGGED: list[tuple[str, dict[str, Any], str]] = [
    ("image_text", PICTURE | asks("<image> and <image>?"), '"question" holds <image> once more'),
    ("image_text", PICTURE | asks("<audio>?"), 'holds <audio>, but the record has no "audio"'),
    ("image_text", PICTURE | asks("<IMAGE>?"), "holds <IMAGE> (did you mean <image>?)"),
    ("image_text", PICTURE | asks("<image 1>?"), "holds <image 1> (did you mean <image>?)"),
    ("image_text", PICTURE | asks("<image/>?"), "holds <image/> (did you mean <image>?)"),
    (
        "image_text",
        PICTURE | asks("<image_placeholder>?"),
        "holds <image_placeholder> (did you mean <image>?)",
    ),
    ("image_text", PICTURE | asks("<|image_pad|>?"), "holds <|image_pad|> (did you mean <image>?)"),
    ("image_text", PICTURE | asks("<|image_1|>?"), "holds <|image_1|> (did you mean <image>?)"),
    (
        "image_text",
        PICTURE | asks("a?") | {"answer": "<image>"},
        '"answer" holds <image>, but tags',
    ),
    ("image_text", PICTURE | asks("a?") | {"caption": "<image> b"}, '"caption" holds <image>'),
    ("text_only", asks("<image>?"), '"question" holds <image>, but the record has no "image"'),
    ("text_only", asks("a?") | {"answer": "an <audio>"}, '"answer" holds <audio>, but tags'),
    ("described", {"caption": "a ring"} | asks("<audio>?"), '"question" holds <audio>'),
    ("described", {"caption": "a ring"} | asks("<image> <image>"), "holds <image> once more"),
    ("text_only", {"messages": turns("a", "b", "<image>", "c")}, 'message 3: "content" holds <im'),
    (
        "image_text",
        PICTURE | {"messages": turns("<image> a", "b", "<image> c", "d")},
        'message 3: "content" holds <image> once more',
    ),
    (
        "image_text",
        PICTURE | {"messages": [{"role": "system", "content": "<image>"}, *turns("a", "b")]},
        'message 1: "content" holds <image>, but tags stand in what the user says',
    ),
    (
        "image_text",
        PICTURE | {"qa": [asks("<image>a"), asks("<image><image>")]},
        'pair 2: "question" holds <image> once more',
    ),
]


@pytest.mark.parametrize(("source", "record", "words"), TAGGED)
def test_a_tag_that_does_not_fit_the_media_is_refused(
    tmp_path: Path, source: str, record: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, source, record)
    assert str(error.value).startswith(f"{tmp_path / FILES[source]}: record 1: ")
    assert words in str(error.value)
    assert "take it off, or write" in str(error.value)


def test_task_follows_the_media_and_the_record(tmp_path: Path) -> None:
    audio = {"audio": "a.wav", "question": "what is said?", "answer": "hello"}
    first, second = read(tmp_path, "audio_text", audio, audio | {"task": "transcription"})
    assert (first.task, second.task) == ("audio_qa", "transcription")
    both = read(tmp_path, "audio_text", audio | {"image": "a.png", "task": "transcription"})[0]
    assert both.task == "image_audio_qa"


def test_stand_ins_and_voice(tmp_path: Path) -> None:
    record = {"audio": "a.wav", "question": "?", "answer": "x", "transcript": "hi", "voice": "f1"}
    sample = read(tmp_path, "audio_text", record)[0]
    assert sample.captions == {"audio": "hi"}
    assert sample.tags == {"voice": "f1"}


def test_stand_in_of_a_medium_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    record = {"question": "?", "answer": "x", "caption": "a red circle"}
    assert read(tmp_path, "text_only", record)[0].captions == {}


def test_a_caption_without_its_picture_opens_the_conversation(tmp_path: Path) -> None:
    pairs = [{"question": "which shape?", "answer": "ring"}, {"question": "red?", "answer": "no"}]
    sample = read(tmp_path, "text_only", {"caption": "a blue ring", "qa": pairs})[0]
    assert sample.messages[0].parts[0] == Described("a blue ring. ", "image")
    assert (sample.task, sample.media, sample.captions) == ("text", (), {})
    for single in [*sample.split_turns(), sample.select_turns([1])]:
        assert single.messages[0].text.startswith("a blue ring. ")
    assert sample.split_turns()[0].length_score() == 3 + 3


def plain(n: int) -> dict[str, str]:
    return {"question": f"what is number {n}?", "answer": str(n)}


def test_effort_is_in_words_and_grows_with_what_is_shown(tmp_path: Path) -> None:
    pair = {"question": "what is it?", "answer": "a cat"}
    picture = {"image": "a.png", "caption": "a red cat"}
    plain, shown, several, hard = read(
        tmp_path,
        "image_text",
        pair | {"image": "a.png"},
        pair | picture,
        {"qa": [pair, pair]} | picture,
        pair | picture | {"difficulty": 1},
    )
    assert (plain.length_score(), shown.length_score(), several.length_score()) == (5, 8, 8)
    assert (shown.difficulty, hard.difficulty) == (None, 1.0)
    (long,) = read(tmp_path, "text_only", {"messages": turns("what is it?", "a cat", "why?", "so")})
    assert long.length_score() == 7


def test_missing_split_is_hashed_stably(tmp_path: Path) -> None:
    records = [plain(n) for n in range(6000)]
    before = {s.messages[0].text: s.split for s in read(tmp_path, "text_only", *records)}
    assert set(before.values()) == {"train", "validation"}
    share = list(before.values()).count("validation") / len(records)
    assert 0.04 < share < 0.06  # 3.5 standard deviations
    random.Random(0).shuffle(records)
    records = [dict(reversed(record.items())) for record in records[:3000]]
    after = {s.messages[0].text: s.split for s in read(tmp_path, "text_only", *records)}
    assert after == {question: before[question] for question in after}


def test_given_split_is_kept(tmp_path: Path) -> None:
    records = [plain(n) | {"split": ("train", "test", "odd one")[n % 3]} for n in range(9)]
    samples = read(tmp_path, "text_only", *records)
    assert [s.split for s in samples] == ["train", "test", "odd one"] * 3
    assert [s.id for s in split_of(samples, "test")] == [f"text_only/{n}" for n in (1, 4, 7)]


def test_rows_keep_their_own_media(tmp_path: Path) -> None:
    """Shuffled or thinned, each answer stays with the media of its own record."""

    def record(n: int) -> dict[str, str]:
        name = hashlib.md5(str(n).encode()).hexdigest()
        media = {"image": f"{name}.png", "audio": f"{name}.wav"}
        return {"id": f"r{n}", "question": "which?", "answer": name, **media}

    records = [record(n) for n in range(50)]
    for seed in range(3):
        random.Random(seed).shuffle(records)
        samples = read(tmp_path, "image_audio_text", *records[: 50 - 10 * seed])
        assert [s.id for s in samples] == [r["id"] for r in records[: 50 - 10 * seed]]
        for sample in samples:
            assert {m.path.stem for m in sample.media} == {sample.messages[1].text}


def weighed(weight: Any) -> list[dict[str, Any]]:
    question, answer = turns("a", "b")
    return [question, answer | {"weight": weight}]


GOOD = {"question": "a?", "answer": "b"}
WRONG: list[tuple[str, Any, str]] = [
    ("text_only", "a?", "is a JSON string"),
    ("text_only", ["a?", "b"], "is a JSON list"),
    ("text_only", {}, "neither messages, qa nor answer"),
    ("text_only", {"question": "a?"}, "neither messages, qa nor answer"),
    ("text_only", GOOD | {"messages": turns("a", "b")}, "messages and answer"),
    ("text_only", GOOD | {"qa": [GOOD]}, "qa and answer"),
    ("text_only", {"question": "a?", "answer": ""}, '"answer" is ""'),
    ("text_only", {"question": "a?", "answer": "  "}, '"answer"'),
    ("text_only", {"question": "a?", "answer": 4}, '"answer" is 4'),
    ("text_only", {"question": None, "answer": "b"}, '"question" is null'),
    ("text_only", {"qa": []}, '"qa"'),
    ("text_only", {"qa": {"question": "a?", "answer": "b"}}, '"qa"'),
    ("text_only", {"qa": [GOOD, "x"]}, '"qa"'),
    ("text_only", {"qa": [GOOD, {"question": "a?"}]}, 'pair 2: the key "answer" is missing'),
    ("text_only", {"messages": []}, '"messages"'),
    ("text_only", {"messages": "a"}, '"messages"'),
    ("text_only", {"messages": turns("a")}, "last message is not the assistant's"),
    ("text_only", {"messages": turns("a", "b", "c")}, "last message is not the assistant's"),
    ("text_only", {"messages": turns("a", "b")[::-1]}, "message 1: role is assistant"),
    ("text_only", {"messages": turns("a", "b")[:1] * 2}, "message 2: role is user"),
    ("text_only", {"messages": turns("a", "b")[1:]}, "message 1: role is assistant"),
    ("text_only", {"messages": turns("a", "")}, 'message 2: "content"'),
    ("text_only", {"messages": [{"role": "user", "content": ["a"]}]}, 'message 1: "content"'),
    (
        "text_only",
        {"messages": [{"role": "human", "content": "a"}]},
        '"role" is "human", expected',
    ),
    ("text_only", {"messages": [{"content": "a"}]}, 'message 1: the key "role" is missing'),
    (
        "text_only",
        {"messages": [*turns("a", "b"), {"role": "system", "content": "c"}, *turns("d", "e")]},
        "message 3: role is system",
    ),
    ("text_only", {"messages": [{"role": "system", "content": "c"}]}, "last message"),
    ("text_only", GOOD | {"id": ""}, '"id" is ""'),
    ("text_only", GOOD | {"id": ["x"]}, '"id"'),
    ("text_only", GOOD | {"split": 3}, '"split" is 3'),
    ("text_only", GOOD | {"split": ""}, '"split"'),
    ("text_only", GOOD | {"task": 1}, '"task"'),
    ("text_only", GOOD | {"kind": []}, '"kind"'),
    ("image_text", GOOD, '"image" is missing'),
    ("audio_text", GOOD | {"image": "a.png"}, '"audio" is missing'),
    ("image_audio_text", GOOD | {"image": "a.png"}, '"audio" is missing'),
    ("image_text", GOOD | {"image": 5}, '"image" is 5'),
    ("image_text", GOOD | {"image": None}, '"image" is null'),
    ("image_text", GOOD | {"image": ["a.png", "b.png"]}, '"image" is ['),
    ("image_text", GOOD | {"image": ""}, '"image" is ""'),
    ("image_text", GOOD | {"image": "/etc/passwd"}, "leaves the folder"),
    ("image_text", GOOD | {"image": "../a.png"}, "leaves the folder"),
    ("image_text", GOOD | {"image": "a/../../b.png"}, "leaves the folder"),
    ("text_only", GOOD | {"audio": "../a.wav"}, "leaves the folder"),
    ("image_text", GOOD | {"image": "a.png", "caption": 5}, '"caption"'),
    ("audio_text", GOOD | {"audio": "a.wav", "transcript": ["hi"]}, '"transcript"'),
    ("audio_text", GOOD | {"audio": "a.wav", "voice": 1}, '"voice"'),
    ("text_only", GOOD | {"difficulty": 1.5}, '"difficulty" is 1.5, expected a number from 0 to 1'),
    ("text_only", GOOD | {"difficulty": "hard"}, '"difficulty"'),
    ("text_only", GOOD | {"difficulty": True}, '"difficulty"'),
    ("text_only", GOOD | {"difficulty": None}, '"difficulty"'),
    ("text_only", GOOD | {"difficulty": float("nan")}, '"difficulty"'),
    ("text_only", GOOD | {"id": float("nan")}, '"id" is NaN (a number)'),
    ("text_only", GOOD | {"id": True}, '"id" is true, expected text'),
    ("text_only", GOOD | {"kind": None}, '"kind" is null, expected text; leave the key out'),
    ("text_only", GOOD | {"split": " "}, '"split" is " ", expected text; leave the key out'),
    ("text_only", GOOD | {"kind": "\n"}, '"kind" is "\\n", expected text; leave the key out'),
    ("image_text", {"image": " ", "answer": "x"}, '"image" is " ", expected one relative path'),
    ("text_only", None, "is a JSON null"),
    ("text_only", True, "is a JSON true"),
    ("text_only", 4, "is a JSON number"),
    ("text_only", {"question": ["a"], "answer": "b"}, '"question" is ["a"] (a list)'),
    ("text_only", {"question": "a", "answer": {}}, '"answer" is {} (an object)'),
    ("text_only", {"qa": None}, '"qa" is null, expected a list'),
    ("text_only", {"qa": [GOOD, None]}, '"qa": item 2 is null, expected an object'),
    ("text_only", {"qa": [GOOD, GOOD | {"answer": None}]}, 'pair 2: "answer" is null'),
    ("text_only", {"qa": [GOOD | {"question": None}]}, 'pair 1: "question" is null'),
    ("text_only", {"qa": [GOOD | {"kind": None}]}, 'pair 1: "kind" is null'),
    ("text_only", {"qa": [GOOD | {"kind": 3}]}, 'pair 1: "kind" is 3 (a number)'),
    ("text_only", {"qa": [GOOD | {"task": None}]}, 'pair 1: "task" is null'),
    ("text_only", {"qa": [GOOD | {"task": ["qa"]}]}, 'pair 1: "task" is ["qa"] (a list)'),
    ("text_only", {"messages": [None]}, '"messages": item 1 is null'),
    ("text_only", {"messages": [{"role": None, "content": "a"}]}, '"role" is null'),
    ("text_only", {"messages": [{"role": "user"}]}, 'message 1: the key "content" is missing'),
    # a task that is none, or of other media
    ("text_only", GOOD | {"task": "image_qa"}, "does not fit a record with no medium"),
    ("text_only", GOOD | {"task": "chat"}, '"task" is "chat", which is no task'),
    ("image_text", GOOD | PICTURE | {"task": "transcription"}, "not fit a record with image"),
    ("image_text", GOOD | PICTURE | {"task": "captoin"}, '(did you mean "caption"?)'),
    ("image_text", PICTURE | {"qa": [GOOD, GOOD | {"task": "text"}]}, 'pair 2: "task" is "text"'),
    ("audio_text", GOOD | {"audio": "a.wav", "task": "caption"}, "not fit a record with audio"),
    # keys that nothing reads
    ("text_only", {"question": "a?", "ansewr": "b"}, '"ansewr" (did you mean "answer"?)'),
    ("text_only", GOOD | {"source_url": "x"}, 'unknown key "source_url"; known here: id, image'),
    (
        "text_only",
        {"qa": [GOOD | {"knid": "x"}]},
        'pair 1: unknown key "knid" (did you mean "kind"',
    ),
    ("text_only", {"qa": [GOOD | {"split": "test"}]}, 'pair 1: unknown key "split"'),
    ("text_only", {"messages": turns("a", "b"), "qustion": "c"}, '(did you mean "question"?)'),
    ("text_only", {"messages": [{"role": "user", "content": "a", "task": "text"}]}, "unknown key"),
    ("image_text", {"images": ["a.png"], **GOOD}, '"images" (did you mean "image"?)'),
    (
        "text_only",
        {"conversations": [{"from": "human", "value": "a"}]},
        '"conversations" (did you mean "messages"?)',
    ),
    (
        "text_only",
        {"messages": [{"from": "human", "value": "a"}]},
        '"from" (did you mean "role"?), "value" (did you mean "content"?)',
    ),
    ("text_only", {"messages": turns("a", "b"), "question": "c"}, "has messages and question"),
    ("text_only", {"qa": [GOOD], "question": "c"}, "has qa and question"),
    # what is learnt
    (
        "text_only",
        {"messages": [{"role": "user", "content": "a", "weight": 0}, *turns("a", "b")[1:]]},
        'message 1: "weight" is for the assistant\'s messages',
    ),
    ("text_only", {"messages": weighed(0.5)}, 'message 2: "weight" is 0.5 (a number), expected 1'),
    ("text_only", {"messages": weighed(True)}, 'message 2: "weight" is true'),
    ("text_only", {"messages": weighed("0")}, 'message 2: "weight" is "0"'),
    ("text_only", {"messages": weighed(None)}, 'message 2: "weight" is null'),
    ("text_only", {"messages": weighed(0)}, 'every answer has "weight": 0'),
    ("text_only", GOOD | {"weight": 0}, 'unknown key "weight"'),
    # text that is none
    ("text_only", {"question": "hi \ud83d", "answer": "b"}, '"question" holds half of a surrogate'),
    ("text_only", {"question": "hi", "answer": "b\udc00"}, '"answer" holds half of a surrogate'),
    ("text_only", {"qa": [GOOD, GOOD | {"kind": "\ud83d"}]}, 'pair 2: "kind" holds half'),
    ("text_only", {"messages": turns("a", "b\ud83d")}, 'message 2: "content" holds half'),
    ("text_only", GOOD | {"id": "x\ud83d"}, '"id" holds half of a surrogate pair'),
    ("text_only", GOOD | {"split": "x\ud83d"}, '"split" holds half of a surrogate pair'),
    ("text_only", GOOD | {"\ud83d": 1}, 'unknown key "\\ud83d"'),
    ("image_text", GOOD | {"image": "\ud83d.png"}, '"image" holds half of a surrogate pair'),
    ("image_text", GOOD | PICTURE | {"caption": "\ud83d"}, '"caption" holds half'),
    ("text_only", {"question": "hi\0", "answer": "b"}, '"question" holds a NUL'),
    ("image_text", GOOD | {"image": "a\0.png"}, '"image" holds a NUL'),
    # splits
    ("text_only", GOOD | {"split": "Train"}, '"split" is "Train"; did you mean "train"?'),
    ("text_only", GOOD | {"split": " train"}, '"split" is " train"; did you mean "train"?'),
    ("text_only", GOOD | {"split": "training"}, 'did you mean "train"?'),
    ("text_only", GOOD | {"split": "VALIDATION"}, 'did you mean "validation"?'),
    ("text_only", GOOD | {"split": "mine "}, 'did you mean "mine"?'),
    ("text_only", GOOD | {"split": None}, '"split" is null, expected text'),
    # languages
    ("text_only", GOOD | {"language": "English"}, '"language" is "English", expected a code'),
    ("text_only", GOOD | {"language": "en/US"}, '"language" is "en/US"'),
    ("text_only", GOOD | {"language": ""}, '"language" is ""'),
]


@pytest.mark.parametrize(("source", "record", "words"), WRONG)
def test_wrong_record_is_named(tmp_path: Path, source: str, record: Any, words: str) -> None:
    media = {name: f"a.{name}" for name in REQUIRED_MEDIA[source]}
    with pytest.raises(UserError) as error:
        read(tmp_path, source, GOOD | media, record, GOOD | media)
    assert str(error.value).startswith(f"{tmp_path / FILES[source]}: record 2: ")
    assert words in str(error.value)


def test_own_keys_are_left_alone(tmp_path: Path) -> None:
    own = {"_url": "x", "meta": {"a": None, "b": "\ud83d"}, "metadata": [1]}
    messages = [turn | {"_n": 1} for turn in turns("a", "b")]
    plain, pairs, talk = read(
        tmp_path, "text_only", GOOD | own, {"qa": [GOOD | own]} | own, {"messages": messages} | own
    )
    assert [m.text for m in plain.messages] == [m.text for m in pairs.messages] == ["a?", "b"]
    assert [m.text for m in talk.messages] == ["a", "b"]


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    for n, record in enumerate(
        (
            '{"question": "a", "answer": "b", "answer": "c"}',
            '{"qa": [{"question": "a", "answer": "b", "answer": "c"}]}',
            '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        )
    ):
        write(tmp_path, "text_only", f"[{record}]")
        key = "answer" if n < 2 else "content"
        with pytest.raises(UserError, match=rf'record 1: .*the key "{key}" is given twice'):
            read_source(tmp_path, "text_only")
    write(tmp_path, "text_only", '[{"question": "a", "answer": "b", "meta": {"x": 1, "x": 2}}]')
    assert len(read_source(tmp_path, "text_only")) == 1


def test_an_answer_of_weight_0_is_context_only(tmp_path: Path) -> None:
    asked, first, again, second = turns("a?", "b", "c?", "d")
    messages = [asked, first | {"weight": 0}, again, second | {"weight": 1, "kind": "k"}]
    [sample] = read(tmp_path, "text_only", {"messages": messages})
    assert [m.learnt for m in sample.messages] == [False, False, False, True]
    assert (sample.num_questions, sample.task_counts(), sample.task) == (1, [("text", 1)], "text")


def test_a_language_is_a_code(tmp_path: Path) -> None:
    codes = ("en", "hi", "zh-Hant", "es-419", "EN-us", "en_US")
    samples = read(tmp_path, "text_only", *(GOOD | {"language": code} for code in codes))
    assert [s.language for s in samples] == ["en", "hi", "zh-Hant", "es-419", "en-us", "en-US"]


def test_the_kind_transcription_is_the_task(tmp_path: Path) -> None:
    record = {"audio": "a.wav", "question": "?", "answer": "yes", "kind": "transcription"}
    told, asked = read(tmp_path, "audio_text", record, record | {"task": "qa"})
    assert (told.task, asked.task) == ("transcription", "audio_qa")


def test_several_wrong_records_are_told_at_once(tmp_path: Path) -> None:
    bad = [GOOD if n % 3 == 0 else {"answer": n} for n in range(12)]
    with pytest.raises(UserError) as error:
        read(tmp_path, "text_only", *bad)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{tmp_path / FILES['text_only']}: record 2: ")
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        f"record {n}" for n in (3, 5, 6, 8)
    ]
    assert lines[5:] == ["  and 3 more"]


def test_wrong_records_are_not_counted_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "COUNTED", 8)
    with pytest.raises(UserError, match="and at least 3 more"):
        read(tmp_path, "text_only", *[{"answer": 4}] * 100)


def test_what_is_wrong_with_several_sources_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "text_only", [{"answer": 4}])
    write(tmp_path, "image_text", [GOOD])
    with pytest.raises(UserError) as error:
        read_available(tmp_path)
    assert FILES["text_only"] in str(error.value)
    assert FILES["image_text"] in str(error.value)


def small(count: int, **rest: Any) -> list[dict[str, Any]]:
    """Records without a split, none of which falls to validation by its hash."""
    every = ({"question": f"what is {n}?", "answer": str(n), **rest} for n in range(1000))
    return list(islice((r for r in every if by_content(r) == "train"), count))


def test_one_record_of_a_small_file_is_set_aside(tmp_path: Path) -> None:
    records = small(30)
    samples = read(tmp_path, "text_only", *records)
    [aside] = split_of(samples, "validation")
    assert len(split_of(samples, "train")) == 29
    [remark] = remarks([samples])
    assert f"record {aside.number + 1} (text_only/{aside.number}) was set aside" in remark
    random.Random(0).shuffle(records)
    [same] = split_of(read(tmp_path, "text_only", *records), "validation")
    assert same.messages == aside.messages


@pytest.mark.parametrize(
    "others",
    [
        [GOOD | {"split": "validation"}],
        [GOOD | {"split": "dev"}],
    ],
)
def test_nothing_is_set_aside_where_something_is_held_out_for_it(
    tmp_path: Path, others: list[dict[str, Any]]
) -> None:
    samples = read(tmp_path, "text_only", *small(9), *others)
    assert len(split_of(samples, "train")) == 9
    assert [r for r in remarks([samples]) if "set aside" in r] == []


def test_nothing_is_set_aside_of_what_names_its_split_or_is_alone(tmp_path: Path) -> None:
    for records in (small(9, split="train"), small(1), [*small(1), GOOD | {"split": "test"}]):
        samples = read(tmp_path, "text_only", *records)
        assert not split_of(samples, "validation")
        assert remarks([samples]) == []


def test_names_like_slips_are_remarked_on(tmp_path: Path) -> None:
    names = ("train", "validation", "val", "test", "test_composition", "trian", "mine", "Dev")
    samples = read(tmp_path, "text_only", *(GOOD | {"split": name} for name in names))
    told = "\n".join(remarks([samples]))
    for slip, meant in (("val", "validation"), ("Dev", "validation"), ("trian", "train")):
        assert f'the split "{slip}" is held out under a name of its own; if "{meant}"' in told
    assert told.count("\n") == 2
    with pytest.raises(UserError, match='splits "mine" and "Mine" differ by case alone'):
        read(tmp_path, "text_only", *(GOOD | {"split": s} for s in ("train", "mine", "Mine")))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, "text_only", "")
    path.write_text(json.dumps([GOOD] * 3), encoding="utf-8-sig")
    assert [s.messages[0].text for s in read_source(tmp_path, "text_only")] == ["a?"] * 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "empty list"),
        ("{}", "holds a JSON object"),
        ('[{"answer": 1},', "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path, "text_only", content)
    with pytest.raises(UserError) as error:
        read_source(tmp_path, "text_only")
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"audio_qa\.json: no such file.*audio_text"):
        read_source(tmp_path, "audio_text")
    with pytest.raises(UserError, match="no such data folder"):
        read_available(tmp_path / "none")
    with pytest.raises(UserError, match="none of the data files"):
        read_available(tmp_path)
    (tmp_path / "llava.json").write_text("[]")
    with pytest.raises(UserError, match=r"llava\.json in it would have to be one of these"):
        read_available(tmp_path)
    with pytest.raises(UserError, match=r"llava\.json: is a file; expected the folder"):
        read_available(tmp_path / "llava.json")
    os.mkfifo(write(tmp_path, "image_text", "").with_name("captions.json"))
    with pytest.raises(UserError, match="is no regular file"):
        read_source(tmp_path, "captions")
    path = tmp_path / FILES["audio_text"]
    path.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_source(tmp_path, "audio_text")


def test_available_sources_only(tmp_path: Path) -> None:
    write(tmp_path, "text_only", [GOOD])
    write(tmp_path, "image_text", [GOOD | {"image": "a.png"}])
    found = read_available(tmp_path)
    assert list(found) == [s for s in SOURCES if s in ("text_only", "image_text")]
    assert [s.source for samples in found.values() for s in samples] == list(found)


def test_check_media_names_the_sample(tmp_path: Path) -> None:
    good, bad = GOOD | {"image": "good.png"}, GOOD | {"image": "bad.png", "id": "the-third"}
    samples = read(tmp_path, "image_text", good, good, bad)
    write_image(tmp_path / "images" / "good.png")
    check_media(samples[:2])
    with pytest.raises(UserError, match=r"sample the-third \(image_text\): .*bad\.png: no such"):
        check_media(samples)
    write_wave(tmp_path / "images" / "bad.wav").rename(tmp_path / "images" / "bad.png")
    with pytest.raises(UserError, match=r"the-third.*is not an image"):
        check_media(samples)


def test_nesting_that_is_read_but_not_hashed_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UserError, match="record 1: its lists or objects are nested too deep"):
        Record(tmp_path / "a.json", "text_only", 0, GOOD | {"_x": deep}).sample()
