"""Records without answers, in every program's form, for whoever only asks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image, write_wave

from omnitune.data.every import WrongRecord, every_record
from omnitune.data.reading import DataPlace, read_available
from omnitune.evaluation.scoring import questions_of
from omnitune.sample import UserError


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "a.png")
    write_wave(tmp_path / "a.wav")
    return tmp_path


Found = list[tuple[str, str, str]]  # question, kinds of media, reference


def asked(data: Path, prompt: str = "") -> Found:
    found = []
    for name, samples in read_available(DataPlace.to_answer(data, prompt)).items():
        for record in every_record(name, samples):
            assert not isinstance(record, WrongRecord), record.error
            kinds = " ".join(medium.modality for medium in record.media)
            for q in questions_of(record):
                found.append((q.messages[-1].text.strip(), kinds, q.reference))
    return found


PICTURE = {"type": "image_url", "image_url": {"url": "a.png"}}
FORMS: dict[str, tuple[Sequence[dict[str, Any]], Found]] = {
    "ours": (
        [{"image": "a.png", "question": "1?"}, {"audio": "a.wav"}, {"question": "2?"}],
        [("1?", "image", ""), ("", "audio", ""), ("2?", "", "")],
    ),
    "some_answered": (
        [{"question": "1?", "answer": "a"}, {"question": "2?"}],
        [("1?", "", "a"), ("2?", "", "")],
    ),
    "qa": (
        [{"image": "a.png", "qa": [{"question": "1?"}, {"question": "2?", "answer": "b"}]}],
        [("1?", "image", ""), ("2?", "image", "b")],
    ),
    "choices": (
        [{"question": "A or B?", "choices": ["x", "y"]}],
        [("A or B?\nA. x\nB. y", "", "")],
    ),
    "messages": (
        [{"messages": [user("1?"), assistant("a"), user("2?")]}, {"messages": [user("3?")]}],
        [("2?", "", ""), ("3?", "", "")],
    ),
    "openai": (
        [{"messages": [user([PICTURE, {"type": "text", "text": "1?"}])]}],
        [("1?", "image", "")],
    ),
    "openai_batch": (
        [{"custom_id": "a", "url": "/v1/chat", "body": {"model": "m", "messages": [user("1?")]}}],
        [("1?", "", "")],
    ),
    "swift": (
        [{"messages": [user("<audio>1?")], "audios": ["a.wav"]}],
        [("1?", "audio", "")],
    ),
    "swift_query": (
        [{"query": "<image>1?", "images": ["a.png"]}, {"query": "3?", "history": [["2?", "b"]]}],
        [("1?", "image", ""), ("3?", "", "")],
    ),
    "trl": (
        [{"prompt": [user("1?"), assistant("a"), user("2?")]}],
        [("2?", "", "")],
    ),
    "trl_text": ([{"prompt": "1?"}, {"prompt": "2?"}], [("1?", "", ""), ("2?", "", "")]),
    "llava": (
        [{"id": "x", "image": "a.png", "conversations": [human("<image>\n1?")]}],
        [("1?", "image", "")],
    ),
    "llava_questions": (
        [{"question_id": 7, "image": "a.png", "text": "1?", "category": "conv"}],
        [("1?", "image", "")],
    ),
    "sharegpt": (
        [{"conversations": [human("<image>1?")], "images": ["a.png"]}],
        [("1?", "image", "")],
    ),
    "alpaca": (
        [{"instruction": "do", "input": "it"}, {"instruction": "go", "output": ""}],
        [("do\nit", "", ""), ("go", "", "")],
    ),
    "manifest": (
        [{"audio_filepath": "a.wav", "duration": 0.5, "question": "1?"}],
        [("1?", "audio", "")],
    ),
    "rows": ([{"image": "a.png", "question": "1?", "answer": None}], [("1?", "image", "")]),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(folder: Path, name: str) -> None:
    records, expected = FORMS[name]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert asked(folder / "q.jsonl") == expected


def test_a_manifest_without_words_is_to_be_transcribed(folder: Path) -> None:
    (folder / "q.jsonl").write_text('{"audio_filepath": "a.wav", "duration": 0.5}')
    [(question, kinds, reference)] = asked(folder / "q.jsonl")
    assert (kinds, reference) == ("audio", "")
    assert "ranscribe" in question


def test_tables(folder: Path) -> None:
    for text in ("image,question\na.png,1?\n", "image,question,answer\na.png,1?,\n"):
        (folder / "q.csv").write_text(text)
        assert asked(folder / "q.csv") == [("1?", "image", "")]


def test_questions_of_vqa_without_annotations(folder: Path) -> None:
    (folder / "a.png").rename(folder / "COCO_test2015_000000000001.png")
    questions = folder / "v2_OpenEnded_mscoco_test2015_questions.json"
    rows = [{"image_id": 1, "question": f"{n}?", "question_id": n} for n in range(2)]
    questions.write_text(json.dumps({"questions": rows}))
    for place in (questions, folder):
        assert asked(place) == [("0?", "image", ""), ("1?", "image", "")]
    with pytest.raises(UserError, match="their answers are not beside it"):
        read_available(questions)


def test_a_folder_of_media_is_asked_the_prompt(folder: Path) -> None:
    (folder / "a.wav").unlink()
    assert asked(folder, "describe it.") == [("describe it.", "image", "")]
    (folder / "metadata.csv").write_text("file_name\na.png\n")
    assert asked(folder, "describe it.") == [("describe it.", "image", "")]


def test_the_folder_of_fixed_names(folder: Path) -> None:
    (folder / "images").mkdir()
    write_image(folder / "images" / "a.png")
    rows = [{"image": "a.png", "question": "1?"}]
    (folder / "images" / "image_qa.json").write_text(json.dumps(rows))
    assert asked(folder) == [("1?", "image", "")]


def test_they_stay_wrong_for_training(folder: Path) -> None:
    (folder / "q.jsonl").write_text('{"messages": [{"role": "user", "content": "1?"}]}')
    with pytest.raises(UserError, match="nothing to learn"):
        read_available(folder / "q.jsonl")


def test_wrong_records_keep_their_place(folder: Path) -> None:
    rows = [{"question": "1?"}, {"image": 3, "question": "2?"}, {"question": "3?"}]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [(name, samples)] = read_available(DataPlace.to_answer(folder / "q.jsonl")).items()
    first, wrong, last = every_record(name, samples)
    assert isinstance(wrong, WrongRecord)
    assert 'record 2: "image" is 3' in wrong.error
    assert [one.number for one in (first, wrong, last)] == [0, 1, 2]
    assert not isinstance(last, WrongRecord)
    assert last.id == "q/2"
    assert len(list(every_record(name, samples, wrong=False))) == 2
