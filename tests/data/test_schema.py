"""Records: every accepted form, and an error for every other."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import read_records as read
from helpers import write_source as write

from omnitune.data.reading import read_source
from omnitune.data.schema import Record
from omnitune.sample import Described, Media, Message, Text, UserError
from omnitune.sources import SOURCES

PICTURE = {"image": "a.png"}
GOOD = {"question": "a?", "answer": "b"}


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


def test_task_follows_the_media_and_the_record(tmp_path: Path) -> None:
    audio = {"audio": "a.wav", "question": "what is said?", "answer": "hello"}
    first, second = read(tmp_path, "audio_text", audio, audio | {"task": "transcription"})
    assert (first.task, second.task) == ("audio_qa", "transcription")
    both = read(tmp_path, "audio_text", audio | {"image": "a.png", "task": "transcription"})[0]
    assert both.task == "image_audio_qa"


def test_captions_go_with_their_media(tmp_path: Path) -> None:
    record = {"audio": "a.wav", "question": "?", "answer": "x", "transcript": "hi"}
    [medium] = read(tmp_path, "audio_text", record)[0].media
    assert (medium, medium.caption) == (Media("audio", tmp_path / "audio/a.wav"), "hi")


def test_a_caption_without_its_picture_opens_the_conversation(tmp_path: Path) -> None:
    pairs = [{"question": "which shape?", "answer": "ring"}, {"question": "red?", "answer": "no"}]
    sample = read(tmp_path, "text_only", {"caption": "a blue ring", "qa": pairs})[0]
    assert sample.messages[0].parts[0] == Described("a blue ring. ", "image")
    assert (sample.task, sample.media) == ("text", ())
    for single in [*sample.split_turns(), sample.select_turns([1])]:
        assert single.messages[0].text.startswith("a blue ring. ")
    assert sample.split_turns()[0].length_score() == 3 + 3


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
    ("image_text", GOOD | {"image": []}, '"image" is an empty list'),
    ("image_text", GOOD | {"image": ["a.png", 5]}, '"image": item 2 is 5 (a number), expected one'),
    ("image_text", GOOD | {"image": ["a.png", "../b.png"]}, '"image": item 2 is "../b.png", which'),
    ("image_text", GOOD | {"image": {"path": "a.png"}}, '"image" is {"path": "a.png"} (an object)'),
    ("image_text", GOOD | {"image": ""}, '"image" is ""'),
    ("image_text", GOOD | {"image": "/etc/passwd"}, "leaves the folder"),
    ("image_text", GOOD | {"image": "../a.png"}, "leaves the folder"),
    ("image_text", GOOD | {"image": "a/../../b.png"}, "leaves the folder"),
    ("text_only", GOOD | {"audio": "../a.wav"}, "leaves the folder"),
    ("image_text", GOOD | {"image": "a.png", "caption": 5}, '"caption"'),
    ("audio_text", GOOD | {"audio": "a.wav", "transcript": ["hi", 5]}, '"transcript": item 2 is 5'),
    ("audio_text", GOOD | {"audio": "a.wav", "transcript": []}, '"transcript" is [] (a list)'),
    (
        "image_text",
        GOOD | {"image": ["a.png", "b.png"], "caption": "two rings"},
        '"caption" holds 1 and "image" 2; expected one text for each path',
    ),
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
    ("audio_text", GOOD | {"audio": "a.wav", "task": "image_qa"}, "not fit a record with audio"),
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
    media = {name: f"a.{name}" for name in SOURCES[source].media}
    with pytest.raises(UserError) as error:
        read(tmp_path, source, GOOD | media, record, GOOD | media)
    assert str(error.value).startswith(f"{tmp_path / SOURCES[source].file}: record 2: ")
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


def test_nesting_that_is_read_but_not_hashed_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UserError, match="record 1: its lists or objects are nested too deep"):
        Record(tmp_path / "a.json", "text_only", 0, GOOD | {"_x": deep}).sample()
