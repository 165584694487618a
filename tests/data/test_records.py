"""Reading data files: every accepted form, and an error for every other."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image, write_wave

from omnitune.data.records import (
    FILES,
    REQUIRED_MEDIA,
    check_media,
    read_available,
    read_source,
    split_of,
)
from omnitune.sample import SOURCES, Media, Message, Sample, Text, Told, UserError


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
        ("<image> and <image>", ["[b.wav]", "[a.png]", " and ", "<image>"]),
        ("<IMAGE>?", ["[a.png]", "[b.wav]", "<IMAGE>?"]),
    ],
)
def test_tags_say_where_media_stand(tmp_path: Path, question: str, expected: list[str]) -> None:
    record = {"image": "a.png", "audio": "b.wav", "question": question, "answer": "<image> ok"}
    sample = read(tmp_path, "image_audio_text", record)[0]
    assert shown(sample.messages[0]) == expected
    assert shown(sample.messages[1]) == ["<image> ok"]


def test_tag_in_a_later_turn_and_tag_without_a_medium(tmp_path: Path) -> None:
    messages = turns("wait. <audio>", "ok", "now <image>?", "yes")
    sample = read(tmp_path, "image_text", {"image": "a.png", "messages": messages})[0]
    assert shown(sample.messages[0]) == ["wait. ", "<audio>"]
    assert shown(sample.messages[2]) == ["now ", "[a.png]", "?"]


def test_task_follows_the_media_and_the_record(tmp_path: Path) -> None:
    audio = {"audio": "a.wav", "question": "what is said?", "answer": "hello"}
    first, second = read(tmp_path, "audio_text", audio, audio | {"task": "transcription"})
    assert (first.task, second.task) == ("audio_qa", "transcription")
    both = read(tmp_path, "audio_text", audio | {"image": "a.png", "task": "transcription"})[0]
    assert both.task == "image_audio_qa"


def test_stand_ins_and_voice(tmp_path: Path) -> None:
    record = {"audio": "a.wav", "question": "?", "answer": "x", "transcript": "hi", "voice": "f1"}
    sample = read(tmp_path, "audio_text", record)[0]
    assert sample.stand_ins == {"audio": "hi"}
    assert sample.tags == {"voice": "f1"}


def test_stand_in_of_a_medium_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    record = {"question": "?", "answer": "x", "caption": "a red circle"}
    assert read(tmp_path, "text_only", record)[0].stand_ins == {}


def test_a_caption_without_its_picture_opens_the_conversation(tmp_path: Path) -> None:
    pairs = [{"question": "which shape?", "answer": "ring"}, {"question": "red?", "answer": "no"}]
    sample = read(tmp_path, "text_only", {"caption": "a blue ring", "qa": pairs})[0]
    assert sample.messages[0].parts[0] == Told("a blue ring. ", "image")
    assert (sample.task, sample.media, sample.stand_ins) == ("text", (), {})
    for single in [*sample.alone(), sample.only([1])]:
        assert single.messages[0].text.startswith("a blue ring. ")
    assert sample.alone()[0].effort() == 3 + 3


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
    assert (plain.effort(), shown.effort(), several.effort()) == (5, 8, 8)
    assert (shown.difficulty, hard.difficulty) == (None, 1.0)
    (long,) = read(tmp_path, "text_only", {"messages": turns("what is it?", "a cat", "why?", "so")})
    assert long.effort() == 7


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


GOOD = {"question": "a?", "answer": "b"}
WRONG: list[tuple[str, Any, str]] = [
    ("text_only", "a?", "is a JSON str"),
    ("text_only", ["a?", "b"], "is a JSON list"),
    ("text_only", {}, "neither messages, qa nor answer"),
    ("text_only", {"question": "a?"}, "neither messages, qa nor answer"),
    ("text_only", GOOD | {"messages": turns("a", "b")}, "messages and answer"),
    ("text_only", GOOD | {"qa": [GOOD]}, "qa and answer"),
    ("text_only", {"question": "a?", "answer": ""}, "\"answer\" is ''"),
    ("text_only", {"question": "a?", "answer": "  "}, '"answer"'),
    ("text_only", {"question": "a?", "answer": 4}, '"answer" is 4'),
    ("text_only", {"question": None, "answer": "b"}, '"question" is None'),
    ("text_only", {"qa": []}, '"qa"'),
    ("text_only", {"qa": {"question": "a?", "answer": "b"}}, '"qa"'),
    ("text_only", {"qa": [GOOD, "x"]}, '"qa"'),
    ("text_only", {"qa": [GOOD, {"question": "a?"}]}, '"answer" is None'),
    ("text_only", {"messages": []}, '"messages"'),
    ("text_only", {"messages": "a"}, '"messages"'),
    ("text_only", {"messages": turns("a")}, "last message is not the assistant's"),
    ("text_only", {"messages": turns("a", "b", "c")}, "last message is not the assistant's"),
    ("text_only", {"messages": turns("a", "b")[::-1]}, "message 1: role is assistant"),
    ("text_only", {"messages": turns("a", "b")[:1] * 2}, "message 2: role is user"),
    ("text_only", {"messages": turns("a", "b")[1:]}, "message 1: role is assistant"),
    ("text_only", {"messages": turns("a", "")}, 'message 2: "content"'),
    ("text_only", {"messages": [{"role": "user", "content": ["a"]}]}, 'message 1: "content"'),
    ("text_only", {"messages": [{"role": "human", "content": "a"}]}, "\"role\" is 'human'"),
    ("text_only", {"messages": [{"content": "a"}]}, '"role" is None'),
    (
        "text_only",
        {"messages": [*turns("a", "b"), {"role": "system", "content": "c"}, *turns("d", "e")]},
        "message 3: role is system",
    ),
    ("text_only", {"messages": [{"role": "system", "content": "c"}]}, "last message"),
    ("text_only", GOOD | {"id": ""}, "\"id\" is ''"),
    ("text_only", GOOD | {"id": ["x"]}, '"id"'),
    ("text_only", GOOD | {"split": 3}, '"split" is 3'),
    ("text_only", GOOD | {"split": ""}, '"split"'),
    ("text_only", GOOD | {"task": 1}, '"task"'),
    ("text_only", GOOD | {"kind": []}, '"kind"'),
    ("image_text", GOOD, '"image" is missing'),
    ("audio_text", GOOD | {"image": "a.png"}, '"audio" is missing'),
    ("image_audio_text", GOOD | {"image": "a.png"}, '"audio" is missing'),
    ("image_text", GOOD | {"image": 5}, '"image" is 5'),
    ("image_text", GOOD | {"image": None}, '"image" is None'),
    ("image_text", GOOD | {"image": ["a.png", "b.png"]}, '"image" is ['),
    ("image_text", GOOD | {"image": ""}, "\"image\" is ''"),
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
]


@pytest.mark.parametrize(("source", "record", "words"), WRONG)
def test_wrong_record_is_named(tmp_path: Path, source: str, record: Any, words: str) -> None:
    media = {name: f"a.{name}" for name in REQUIRED_MEDIA[source]}
    with pytest.raises(UserError) as error:
        read(tmp_path, source, GOOD | media, record, GOOD | media)
    assert str(error.value).startswith(f"{tmp_path / FILES[source]}: record 2: ")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "empty list"),
        ("{}", "holds a JSON dict"),
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
