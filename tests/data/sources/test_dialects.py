"""Every dialect on small records: recognised as itself alone, read, and never with a traceback."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnitune.data.place import Place
from omnitune.data.schema import Record
from omnitune.data.sources.base import Dialect, Origin
from omnitune.data.sources.registry import DIALECTS, dialect_of
from omnitune.sample import Media, Sample, UserError
from omnitune.sources import Source

Values = dict[str, Any]
FILE = Path("/data/records.json")
SOURCE = Source("mine", path=str(FILE))


def origin(values: Values) -> Origin:
    record = Record(FILE, SOURCE, 0, values)
    return Origin(FILE, SOURCE, record.wrong)


def native(name: str, values: Values) -> Values:
    return DIALECTS[name].native(values, origin(values))


def sample(found: Values) -> Sample:
    return Record(FILE, SOURCE, 0, found, Place(0, FILE, 0, 10, 20)).sample()


def shown(values: Values) -> list[tuple[str, str]]:
    """Role and text of each turn, media as their paths in brackets."""
    turns = []
    for message in sample(values).messages:
        parts = [
            f"[{str(p.path).removeprefix('/data/')}]" if isinstance(p, Media) else p.text
            for p in message.parts
        ]
        turns.append((message.role[0], "".join(parts)))
    return turns


def turns(*values: str) -> list[Values]:
    names = ("human", "gpt")
    return [{"from": names[n % 2], "value": value} for n, value in enumerate(values)]


def said(*values: Any, **more: Any) -> list[Values]:
    names = ("user", "assistant")
    return [{"role": names[n % 2], "content": value} for n, value in enumerate(values)]


CUT = {
    "id": "c-1",
    "start": 1.5,
    "duration": 2,
    "supervisions": [{"id": "s", "text": "b", "language": "en", "speaker": "x"}],
    "recording": {"duration": 9.0, "sources": [{"type": "file", "source": "a.wav"}]},
}
BYTES = {"bytes": "x", "path": None}
# Records of one file, and their dialect; then what the first of them shows.
FILES: list[tuple[str, list[Values], list[tuple[str, str]]]] = [
    ("native", [{"question": "a", "answer": "b"}], [("u", "a"), ("a", "b")]),
    ("native", [{"image": ["a.png"], "qa": [{"answer": "b"}]}], [("u", "[a.png]"), ("a", "b")]),
    ("native", [{"messages": said("a", "b"), "image": "a.png"}], [("u", "[a.png]a"), ("a", "b")]),
    ("native", [{"question": "a", "langauge": "hi", "answer": "c"}], []),
    ("hf_dataset", [{"question_id": 1, "question": "a", "answer": "b"}], [("u", "a"), ("a", "b")]),
    (
        "llava",
        [{"id": "1", "image": "a/b.jpg", "conversations": turns("<image>\nWhat?", "A cat.")}],
        [("u", "[a/b.jpg]What?"), ("a", "A cat.")],
    ),
    (
        "llava",
        [{"image": "a.jpg", "conversations": turns("What?\n<image>", "A.", "<image>\nB?", "C.")}],
        [("u", "What?[a.jpg]"), ("a", "A."), ("u", "B?"), ("a", "C.")],
    ),
    (
        "llava",
        [
            {"conversations": turns("hi", "ho")},
            {"image": ["a.jpg", "b.jpg"], "conversations": turns("<image>\n<image>\nOf?", "x")},
        ],
        [("u", "hi"), ("a", "ho")],
    ),
    ("sharegpt", [{"conversations": turns("hi", "ho")}], [("u", "hi"), ("a", "ho")]),
    (
        "sharegpt",
        [
            {
                "conversations": turns("<image>a<audio>", "b", "c", "d"),
                "images": ["a.png"],
                "audios": ["a.wav"],
                "system": "s",
            }
        ],
        [("s", "s"), ("u", "[a.png]a[a.wav]"), ("a", "b"), ("u", "c"), ("a", "d")],
    ),
    (
        "alpaca",
        [
            {
                "instruction": "i",
                "input": "j",
                "output": "o",
                "system": "s",
                "history": [["<image>a", "b"]],
                "images": ["a.png"],
            }
        ],
        [("s", "s"), ("u", "[a.png]a"), ("a", "b"), ("u", "i\nj"), ("a", "o")],
    ),
    ("alpaca", [{"instruction": "i", "output": 3.3}], [("u", "i"), ("a", "3.3")]),
    ("alpaca", [{"instruction": "i", "context": "", "response": "o"}], [("u", "i"), ("a", "o")]),
    (
        "openai",
        [
            {
                "messages": [
                    {"role": "developer", "content": "s"},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "image_url", "image_url": {"url": "a.png"}},
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA"}},
                            {
                                "type": "input_audio",
                                "input_audio": {"data": "eA==", "format": "wav"},
                            },
                        ],
                    },
                    {"role": "assistant", "content": "b"},
                ]
            }
        ],
        [
            ("s", "s"),
            (
                "u",
                "a[a.png][records.json::10+20/messages/1/content/2/image_url/url]"
                "[records.json::10+20/messages/1/content/3/input_audio/data]",
            ),
            ("a", "b"),
        ],
    ),
    (
        "openai",
        [
            {
                "messages": said(
                    [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "a"}], "b"
                )
            }
        ],
        [("u", "[a.wav]a"), ("a", "b")],
    ),
    (
        "openai",
        [{"messages": [{"role": "user", "content": "a", "images": ["a.png"]}, *said(0, "b")[1:]]}],
        [("u", "[a.png]a"), ("a", "b")],
    ),
    (
        "sharegpt",
        [{"conversations": [{"role": "user", "content": "a"}, *said(0, "b")[1:]], "images": []}],
        [("u", "a"), ("a", "b")],
    ),
    ("openai", [{"messages": said("a", "b"), "source": "x"}], [("u", "a"), ("a", "b")]),
    ("trl", [{"prompt": "a", "completion": "b"}], [("u", "a"), ("a", "b")]),
    (
        "trl",
        [{"prompt": said("a", "b", "c"), "completion": said("x", "d")[1:], "images": [BYTES]}],
        [("u", "[records.json::10+20/images/0/bytes]a"), ("a", "b"), ("u", "c"), ("a", "d")],
    ),
    (
        "trl",
        [
            {
                "messages": said([{"type": "text", "text": "a"}, {"type": "image"}], "b"),
                "images": ["a.png", "b.png"],
            }
        ],
        [("u", "[b.png]a[a.png]"), ("a", "b")],
    ),
    ("trl", [{"prompt": "a", "chosen": "b", "rejected": "c"}], [("u", "a"), ("a", "b")]),
    (
        "swift",
        [{"messages": said("<image>a<audio>", "b"), "images": ["a.png"], "audios": "a.wav"}],
        [("u", "[a.png]a[a.wav]"), ("a", "b")],
    ),
    (
        "swift",
        [{"query": "<img>a.png</img><img>b.png</img>a", "response": "b", "history": [["h", "1"]]}],
        [("u", "h"), ("a", "1"), ("u", "[a.png][b.png]a"), ("a", "b")],
    ),
    (
        "swift",
        [{"query": "<audio>a.wav</audio>a<image>b", "response": "b", "images": ["a.png"]}],
        [("u", "[a.wav]a[a.png]b"), ("a", "b")],
    ),
    ("swift", [{"response": "11111"}, {"response": "aaaaa"}], [("u", ""), ("a", "11111")]),
    (
        "swift",
        [{"system": "0", "conversation": [{"human": "1", "assistant": "2"}]}],
        [("s", "0"), ("u", "1"), ("a", "2")],
    ),
    (
        "gemini",
        [{"contents": [{"parts": [{"text": "a"}]}, {"role": "model", "parts": [{"text": "b"}]}]}],
        [("u", "a"), ("a", "b")],
    ),
    (
        "oasst",
        [
            {
                "message_tree_id": "1",
                "prompt": {
                    **{"role": "prompter", "text": "a"},
                    "replies": [{"role": "assistant", "text": "b"}],
                },
            }
        ],
        [("u", "a"), ("a", "b")],
    ),
    ("turns", [{"conversations": ["a", "b"]}], [("u", "a"), ("a", "b")]),
    ("text", [{"text": "a", "url": "https://b"}], [("u", ""), ("a", "a")]),
    ("manifest", [{"audio_filepath": "a.wav", "text": "b"}], [("u", "[a.wav]"), ("a", "b")]),
    (
        "manifest",
        [{"audio": "a.wav", "offset": 0.1, "duration": 0.2, "question": "q", "answer": "b"}],
        [("u", "[a.wav::t=0.1,0.3]q"), ("a", "b")],
    ),
    (
        "manifest",
        [{"audio_filepath": "a.wav", "offset": 0.1, "duration": 0.2, "text": "b", "lang": "hi"}],
        [("u", "[a.wav::t=0.1,0.3]"), ("a", "b")],
    ),
    (
        "manifest",
        [{"audio": "a.wav", "duration": 2.5, "text": "b"}],
        [("u", "[a.wav]"), ("a", "b")],
    ),
    ("manifest", [CUT], [("u", "[a.wav::t=1.5,3.5]"), ("a", "b")]),
    (
        "sound_rows",
        [
            {
                "key": "1",
                "source": "a.wav",
                "source_len": 9,
                "target": "b",
                "text_language": "<|zh|>",
            }
        ],
        [("u", "[a.wav]"), ("a", "b")],
    ),
    (
        "sound_rows",
        [{"path": "a.flac", "text": "b", "task": "QA", "Q": "q"}],
        [("u", "[a.flac]q"), ("a", "b")],
    ),
    (
        "sound_rows",
        [{"ID": "1", "wav": "{data_root}/a.wav", "length": 1.5, "words": "b"}],
        [("u", "[a.wav]"), ("a", "b")],
    ),
    (
        "sound_rows",
        [{"id": "1", "caption": "b", "audio": "a.flac", "duration": 1.5}],
        [("u", "[a.flac]"), ("a", "b")],
    ),
    (
        "hf_dataset",
        [{"image": "a.png", "path": "a.wav", "text": "b"}],
        [("u", "[a.png]"), ("a", "b")],
    ),
    (
        "alpaca",
        [{"instruction": "q", "input": "", "audio_id": "a.flac", "output": "b"}],
        [("u", "[a.flac]q"), ("a", "b")],
    ),
    (
        "openai",
        [{"messages": said("Say: <|startofspeech|>!a.wav<|endofspeech|>", "b")}],
        [("u", "Say: [a.wav]"), ("a", "b")],
    ),
    (
        "common_voice",
        [{"client_id": "", "path": "a.mp3", "sentence": "b", "up_votes": "2", "locale": "en"}],
        [("u", "[clips/a.mp3]"), ("a", "b")],
    ),
    (
        "librispeech",
        [{"line": "84-121123-0000 GO ON"}],
        [("u", "[84-121123-0000.flac]"), ("a", "GO ON")],
    ),
    (
        "named_words",
        [{"line": "digits/1: one"}, {"line": "; more"}, {"line": "beep: [a beep]"}],
        [("u", "[digits/1.wav]"), ("a", "one")],
    ),
    (
        "folder",
        [{"file_name": "a.png", "text": "a cat", "depth_file_name": "d.png"}],
        [("u", "[a.png][d.png]"), ("a", "a cat")],
    ),
    ("folder", [{"file_name": "a.wav", "label": 3}], [("u", "[a.wav]"), ("a", "3")]),
    ("labelled", [{"file": "x/cat/a.jpg", "label": "cat"}], [("u", "[x/cat/a.jpg]"), ("a", "cat")]),
    ("labelled", [{"file": "3_theo_0.wav", "label": ""}], [("u", "[3_theo_0.wav]"), ("a", "3")]),
    (
        "vqa",
        [
            {
                "image": "a.jpg",
                "question_id": 7,
                "question": "q",
                "question_type": "what",
                "answers": [{"answer": "b", "answer_id": 1}, {"answer": "c"}, {"answer": "c"}],
            }
        ],
        [("u", "[a.jpg]q"), ("a", "c")],
    ),
    (
        "hf_dataset",
        [{"image": BYTES, "question": "q", "answer": "b"}],
        [("u", "[records.json::10+20/image/bytes]q"), ("a", "b")],
    ),
    (
        "hf_dataset",
        [{"audio": {"bytes": None, "path": "a.wav"}, "sentence": "b", "path": "a.wav"}],
        [("u", "[a.wav]"), ("a", "b")],
    ),
    (
        "hf_dataset",
        [{"images": [BYTES], "texts": [{"user": "q", "assistant": "b", "source": "x"}]}],
        [("u", "[records.json::10+20/images/0/bytes]q"), ("a", "b")],
    ),
    ("hf_dataset", [{"image": "a.png", "caption": "b"}], [("u", "[a.png]"), ("a", "b")]),
    ("hf_dataset", [{"prompt": "q", "answer": 4}], [("u", "q"), ("a", "4")]),
    (
        "hf_dataset",
        [{"image": BYTES, "question": "q", "choices": ["x", "y"], "answer": 1}],
        [("u", "[records.json::10+20/image/bytes]q\nA. x\nB. y"), ("a", "y")],
    ),
    (
        "webdataset",
        [{"__key__": "f/10", "png": "::/png", "cls": "7"}],
        [("u", "[records.json::10+20/png]"), ("a", "7")],
    ),
    (
        "webdataset",
        [{"__key__": "1", "png": "::/png", "question.txt": "q", "answer.txt": "b"}],
        [("u", "[records.json::10+20/png]q"), ("a", "b")],
    ),
    (
        "webdataset",
        [{"__key__": "1", "flac": "::/flac", "txt": "b"}],
        [("u", "[records.json::10+20/flac]"), ("a", "b")],
    ),
    (
        "webdataset",
        [{"__key__": "1", "jpg": "::/jpg", "json": {"conversations": turns("<image>\nq", "b")}}],
        [("u", "[records.json::10+20/jpg]q"), ("a", "b")],
    ),
]


@pytest.mark.parametrize(("name", "records", "first"), FILES)
def test_each_is_recognised_as_itself_alone_and_read(
    name: str, records: list[Values], first: list[tuple[str, str]]
) -> None:
    found = [dialect.name for dialect in DIALECTS.values() if dialect.recognises(records, FILE)]
    assert found == [name]
    if first:
        assert shown(native(name, records[0])) == first


def test_the_table_has_every_dialect() -> None:
    assert {name for name, _, _ in FILES} == set(DIALECTS)


@pytest.mark.parametrize(
    ("name", "record", "task", "language"),
    [
        ("manifest", {"source_lang": "en", "target_lang": "de"}, "translation", "de"),
        ("manifest", {"source_lang": "en", "target_lang": "en"}, "transcription", "en"),
        ("sound_rows", {"path": "a.wav", "task": "asr"}, "transcription", ""),
        ("sound_rows", {"path": "a.wav", "task": "audiocaption"}, "captioning", ""),
        ("sound_rows", {"path": "a.wav", "task": "translation_ed"}, "translation", ""),
        ("sound_rows", {"path": "a.wav", "text_language": "<|zh|>"}, "transcription", "zh"),
        ("common_voice", {"path": "a.mp3", "sentence": "c", "translation": "b"}, "translation", ""),
    ],
)
def test_the_task_is_what_the_record_means(
    name: str, record: Values, task: str, language: str
) -> None:
    whole = {"audio_filepath": "a.wav"} if name == "manifest" else {}
    found = sample(native(name, {**whole, "text": "b", **record}))
    assert ([kind for kind, _ in found.task_counts()], found.language) == ([task], language)
    assert found.messages[-1].text == "b"


WRONG: list[tuple[str, Values, str]] = [
    ("llava", {"video": "a.mp4", "conversations": turns("<video>\na", "b")}, '"video" is a video'),
    ("sharegpt", {"conversations": [{"from": "tool", "value": "a"}]}, "what tools say"),
    ("sharegpt", {"conversations": [{"from": "nobody", "value": "a"}]}, 'role is "nobody"'),
    ("openai", {"messages": [{"role": "tool", "content": "a"}]}, "what tools say"),
    ("openai", {"messages": [{"role": "assistant", "tool_calls": [1]}]}, "calls a tool"),
    ("openai", {"messages": said([{"type": "file", "file": {}}], "b")}, 'of the type "file"'),
    (
        "openai",
        {"messages": [*said("a"), {"role": "assistant", "content": "b", "images": ["a.png"]}]},
        "media stand in what the user says",
    ),
    ("trl", {"messages": said([{"type": "image"}], "b")}, "lists no more media"),
    ("swift", {"query": "a", "response": "b", "history": [["a"]]}, "a question and an answer"),
    ("manifest", {"audio_filepath": "a.wav", "text": "b", "offset": -1}, "expected seconds"),
    (
        "manifest",
        {"audio_filepath": "a.wav", "text": "b", "offset": 2, "duration": 0},
        "which is no stretch",
    ),
    ("manifest", {**CUT, "supervisions": []}, "cut the recording at its supervisions"),
    ("manifest", {**CUT, "recording": {"sources": []}}, 'with its path as "source"'),
    (
        "manifest",
        {**CUT, "recording": {"sources": [{"source": "a.wav", "channels": [0, 1]}]}},
        "several channels",
    ),
    ("sound_rows", {"path": "a.wav", "text": "b", "task": "speaker_id"}, "asks no question"),
    ("hf_dataset", {"audio": {"array": [0.1], "sampling_rate": 8}, "text": "b"}, "decode=False"),
    ("hf_dataset", {"image": 7, "text": "b"}, '"image" is 7'),
    ("hf_dataset", {"image": "a.png", "more": "b"}, "say which does with columns"),
    ("folder", {"file_name": "a.xyz", "text": "b"}, "suffix is of no known medium"),
    ("labelled", {"file": "a.png", "label": ""}, "no folder of a class"),
    ("labelled", {"file": "agent-pass.wav", "label": ""}, "no folder of a class"),
    ("labelled", {"file": "IMG_1000.png", "label": ""}, "no folder of a class"),
    ("vqa", {"question": "a", "question_type": "b", "answers": ["b"]}, '"image_id" null'),
    ("webdataset", {"__key__": "1", "mp4": "::/mp4", "txt": "b"}, "is a video"),
]


@pytest.mark.parametrize(("name", "record", "told"), WRONG)
def test_what_cannot_be_read_is_told(name: str, record: Values, told: str) -> None:
    with pytest.raises(UserError) as error:
        sample(native(name, record))
    assert told in str(error.value)
    assert "/data/records.json: record 1: " in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "from", "value", "type", "text", "image_url", "url", "bytes"]
                + ["path", "human", "assistant", "user", "image", "input_audio", "data"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
KEYS = sorted({key for _, records, _ in FILES for record in records for key in record})


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_junk_ends_in_a_traceback(record: Values) -> None:
    for dialect in DIALECTS.values():
        dialect.recognises([record], FILE)
        dialect.passes_over(record)
        dialect.unread(record)
        try:
            sample(dialect.native(record, origin(record)))
        except UserError:
            continue


@given(st.sampled_from(FILES), st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_broken_record_ends_in_a_traceback(
    file: tuple[str, list[Values], list[tuple[str, str]]], data: st.DataObject
) -> None:
    name, [record, *_], _ = file
    broken = {**record, data.draw(st.sampled_from(sorted(record))): data.draw(JSON)}
    DIALECTS[name].recognises([broken], FILE)
    try:
        sample(native(name, broken))
    except UserError:
        return


@pytest.mark.parametrize(("name", "records", "_"), FILES)
def test_nothing_that_a_table_reads_is_named_unread(
    name: str, records: list[Values], _: object
) -> None:
    known: Dialect = DIALECTS[name]
    unread = [key for record in records for key in known.unread(record)]
    assert unread == (["rejected"] if "rejected" in records[0] else [])


def test_a_second_medium_that_nothing_reads_is_named() -> None:
    record = {"image": BYTES, "mask": BYTES, "thumbnail": "b.png", "caption": "a", "note": "x"}
    assert DIALECTS["hf_dataset"].unread(record) == ["mask", "thumbnail"]


def test_what_repeats_a_medium_that_is_read_is_not_named() -> None:
    record = {"path": "a.mp3", "sentence": "b", "path.2": "a.mp3"}
    assert DIALECTS["common_voice"].unread(record) == []


def test_only_the_answers_of_a_completion_are_learnt() -> None:
    record = {"prompt": said("a", "b", "c"), "completion": said("x", "d")[1:]}
    messages = sample(native("trl", record)).messages
    assert [m.learnt for m in messages] == [False, False, False, True]


def test_an_unknown_file_is_none() -> None:
    assert dialect_of([{"a": 1}], FILE) is None
