"""Records of other people's files as samples: what the source's settings say of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.data import index
from omnitune.data.reading import read_source
from omnitune.data.remarks import remarks
from omnitune.data.samples import Samples
from omnitune.data.sources.base import Origin
from omnitune.data.sources.finding import find_files
from omnitune.data.sources.llama_factory import dialect_of_entry
from omnitune.data.sources.readdressed import RenamedDialect
from omnitune.data.sources.registry import DIALECTS
from omnitune.sample import Sample, UserError
from omnitune.sources import Source

Values = dict[str, Any]
SPEECH = {"audio_filepath": "a.wav", "text": "go on", "duration": 1.0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


def read(folder: Path, records: list[Values], **settings: Any) -> Samples:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_source(None, Source("mine", path=str(path), **settings))


def asked(sample: Sample) -> str:
    return sample.messages[0].text


def test_a_transcription_without_a_question_is_asked_the_usual_one(tmp_path: Path) -> None:
    [sample] = read(tmp_path, [SPEECH])
    assert asked(sample) == "Transcribe the speech."
    assert (sample.task, sample.media[0].path.name) == ("transcription", "a.wav")


def test_the_sources_prompts_go_before_the_usual_question(tmp_path: Path) -> None:
    samples = read(tmp_path, [SPEECH] * 40, prompts=("a?", "b?"))
    assert {asked(sample) for sample in samples} == {"a?", "b?"}
    assert [asked(s) for s in samples] == [
        asked(s) for s in read(tmp_path, [SPEECH] * 40, prompts=("a?", "b?"))
    ]


def test_our_own_records_are_asked_nothing_unasked(tmp_path: Path) -> None:
    own = {"audio": "a.wav", "answer": "go on", "task": "transcription"}
    [sample] = read(tmp_path, [own])
    assert asked(sample) == ""


def test_the_sources_task_goes_before_a_guess_and_after_the_records(tmp_path: Path) -> None:
    plain, named = SPEECH, {**SPEECH, "task": "transcription"}
    samples = read(tmp_path, [plain, named], task="audio_qa")
    assert [sample.task for sample in samples] == ["audio_qa", "transcription"]


def test_records_whose_media_lie_in_them_are_not_all_in_one_split(tmp_path: Path) -> None:
    record = {"image": {"bytes": "eA==", "path": None}, "label": 1, "x": 0}
    samples = read(tmp_path, [record] * 200)
    held_out = sum(sample.split == "validation" for sample in samples)
    assert 0 < held_out < 50


def test_what_is_not_read_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"prompt": "a", "chosen": "b", "rejected": "c"}
    read(tmp_path, [record] * 3)
    out = capsys.readouterr().err
    assert out.count('mine: not read: "rejected" (3 records)') == 1
    assert "mine: TRL prompts and completions, or messages (1 file, jsonl)" in out


def test_comments_are_no_records(tmp_path: Path) -> None:
    lines = ["; a comment", "a: Go on.", "beep: [a beep]", "b: Stop."]
    samples = read(tmp_path, [{"line": line} for line in lines])
    assert [sample.id for sample in samples] == ["a", "b"]
    assert [sample.number for sample in samples] == [0, 1]


def test_every_error_names_its_record(tmp_path: Path) -> None:
    video = {"conversations": [{"from": "human", "value": "a"}], "video": "a.mp4", "image": "a.png"}
    with pytest.raises(UserError) as error:
        read(tmp_path, [video, {**video, "conversations": "x"}])
    assert f"{tmp_path}/records.jsonl: record 1: " in str(error.value)
    assert '"video" is a video' in str(error.value)


def test_a_web_address_is_told_apart_from_a_path(tmp_path: Path) -> None:
    url = "https://example.org/demo.jpeg"
    for record in (
        {"query": f"<img>{url}</img>55555", "response": "66666"},
        {"query": "55555", "response": "66666", "images": [url]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
         + [{"role": "assistant", "content": "a"}]},
    ):  # fmt: skip
        with pytest.raises(UserError, match="a web address, and nothing is fetched"):
            read(tmp_path, [record])


def test_columns_give_a_format_other_names(tmp_path: Path) -> None:
    record = {"pic": {"bytes": "eA==", "path": None}, "talk": [{"from": "human", "value": "a"}]}
    record["talk"].append({"from": "gpt", "value": "b"})
    columns = (("image", "pic"), ("conversations", "talk"))
    [sample] = read(tmp_path, [record], format="llava", columns=columns)
    assert str(sample.media[0].path).endswith("/pic/bytes")
    assert asked(sample) == "a"


def test_a_kept_index_is_not_that_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "KEEP_FROM", 0)
    found = [read(tmp_path, [SPEECH], split=split).splits for split in ("test", "extra")]
    assert found == [{"test"}, {"extra"}]


def test_a_text_of_named_words_is_recognised_by_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("; words\n\na: Go on.\nbeep: [a beep]\nb/c: Stop.")
    samples = read_source(None, Source("mine", path=str(path)))
    assert [sample.media[0].path for sample in samples] == [
        tmp_path / "a.wav",
        tmp_path / "b/c.wav",
    ]
    path.write_text("This is a letter.\nIt has no words for sounds.\n")
    with pytest.raises(UserError, match="none of the known formats"):
        read_source(None, Source("mine", path=str(path)))


def test_several_right_answers_and_choices_come_along(tmp_path: Path) -> None:
    question = {"image": "a.png", "question": "q", "question_type": "what", "image_id": 1}
    asked = {**question, "answers": [{"answer": "b"}, {"answer": "c"}, {"answer": "c"}]}
    [sample] = read(tmp_path, [asked])
    assert (sample.task, sample.messages[-1].text) == ("vqa", "c")
    assert set(sample.messages[-1].references) == {"b", "c"}
    # As VQAv2's own annotations are.
    [sample] = read(tmp_path, [{**asked, "multiple_choice_answer": "c", "answer_type": "other"}])
    assert (sample.messages[-1].text, sample.messages[-1].references) == ("c", ("b", "c", "c"))
    offered = {"image": {"path": "a.png"}, "question": "q", "options": ["x", "y"], "answer": 1}
    [sample] = read(tmp_path, [offered])
    assert (sample.task, sample.messages[-1].text) == ("choice", "y")
    assert [text for _, text in sample.messages[-1].choices] == ["x", "y"]


def test_the_log_names_dialect_and_containers(tmp_path: Path) -> None:
    read(tmp_path, [SPEECH])
    found = find_files(Source("mine", path=str(tmp_path / "records.jsonl")))
    assert found.line == "mine: a speech manifest (1 file, jsonl)"
    assert found.note == ""


ORIGIN = Origin(Path("a.json"), Source("mine"), UserError)
ENTRY = {
    "file_name": "a.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "pics"},
    "tags": {
        "role_tag": "role", "content_tag": "content", "user_tag": "you", "assistant_tag": "me"
    },
}  # fmt: skip


def test_an_entry_of_llama_factory_names_columns_and_tags(tmp_path: Path) -> None:
    dialect = dialect_of_entry(ENTRY, "dataset_info.json: a")
    assert isinstance(dialect, RenamedDialect)
    turns = [{"role": "you", "content": "<image>a"}, {"role": "me", "content": "b"}]
    record = {"messages": turns, "pics": ["a.png"]}
    found = dialect.native(record, ORIGIN)
    assert found == {"image": ["a.png"], "question": "<image>a", "answer": "b"}
    alpaca = dialect_of_entry({"columns": {"prompt": "q", "response": "a"}}, "x")
    found = alpaca.native({"q": "1", "a": "2"}, ORIGIN)
    assert found == {"question": "1", "answer": "2"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (7, "expected an object"),
        ({"ranking": True}, "preferences"),
        ({"formatting": "chatml"}, 'expected "alpaca" or "sharegpt"'),
        ({"columns": {"prompt": 7}}, "an object of names"),
    ],
)
def test_an_entry_that_cannot_be_read_is_told(entry: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        dialect_of_entry(entry, "dataset_info.json: a")


# Files of ms-swift's own tests (Apache-2.0), and what their first records say.
SWIFT = [
    ('{"response": "11111"}\n{"response": "aaaaa"}\n', "swift", ["", "11111"]),
    ('{"system": "00000", "query": "11111", "response": "22222"}\n', "swift", ["00000", "11111"]),
    (
        '{"query": "EEEEE", "response": "FFFFF", "history": [["AAAAA", "BBBBB"]]}\n',
        "swift",
        ["AAAAA", "BBBBB", "EEEEE", "FFFFF"],
    ),
    (
        '{"instruction": "11111", "input": "22222", "output": "33333", '
        '"history": [["aaaaa", "bbbbb"]], "system": "system123"}\n',
        "alpaca",
        ["system123", "aaaaa", "bbbbb", "11111\n22222", "33333"],
    ),
    (
        '{"conversations": [{"from": "system", "value": "00000"}, '
        '{"from": "user", "value": "11111"}, {"from": "assistant", "value": "22222"}]}\n',
        "sharegpt",
        ["00000", "11111", "22222"],
    ),
    (
        '{"messages": [{"role": "system", "content": "00000"}, '
        '{"role": "user", "content": "11111"}, {"role": "assistant", "content": "22222"}]}\n',
        "native",
        ["00000", "11111", "22222"],
    ),
    (
        '{"conversation": [{"human": "AAAAA", "assistant": "BBBBB"}, '
        '{"human": "CCCCC", "assistant": "DDDDD"}]}\n',
        "swift",
        ["AAAAA", "BBBBB", "CCCCC", "DDDDD"],
    ),
]


@pytest.mark.parametrize(("text", "name", "said"), SWIFT)
def test_the_files_of_ms_swift(tmp_path: Path, text: str, name: str, said: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    source = Source("mine", path=str(path))
    assert find_files(source).dialect is DIALECTS[name]
    sample = read_source(None, source)[0]
    assert [message.text for message in sample.messages][: len(said)] == said


def test_what_is_set_aside_is_never_taken_from_the_test_split(tmp_path: Path) -> None:
    for split, count in (("test", 30), ("train", 2)):
        (tmp_path / split).mkdir()
        rows = [{"instruction": f"{split} {n}?", "output": str(n)} for n in range(count)]
        (tmp_path / split / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples = read_source(None, Source("mine", path=str(tmp_path)))
    assert len(samples.of_split("test")) == 30
    assert [len(samples.of_split(name)) for name in ("train", "validation")] == [1, 1]
    [remark] = remarks([samples])
    assert remark.startswith(f"{tmp_path / 'train' / 'a.jsonl'}: names no validation records")


def test_nothing_is_set_aside_where_the_source_says_its_split(tmp_path: Path) -> None:
    records = [{"instruction": f"{n}?", "output": str(n)} for n in range(3)]
    assert len(read(tmp_path, records, split="train").of_split("train")) == 3
    assert len(read(tmp_path, records, split="auto").of_split("train")) == 2


def test_a_cache_that_cannot_be_made_is_named_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "file" / "cache"))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(SPEECH).encode()))
    with pytest.raises(UserError, match=r"cannot be written .*OMNITUNE_CACHE"):
        read_source(None, Source("mine", path=str(path)))


def test_records_without_the_medium_that_others_have_are_told_of(tmp_path: Path) -> None:
    rows = [
        {"image": f"{n}.png" if n % 4 else None, "question": "a", "answer": "b"} for n in range(8)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if v}) for row in rows))
    samples = read_source(None, Source("rows", path=str(path)))
    assert remarks([samples])[-1] == (
        f"2 of 8 records show no medium, though others beside them do; the first: {path}: record 1"
    )
