"""Questions and annotations of VQAv2: joined by the number of the question."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.containers.registry import container_of
from omnitune.sample import UserError

NAME = "v2_OpenEnded_mscoco_val2014_questions.json"
ANSWERS = "v2_mscoco_val2014_annotations.json"
QUESTIONS = [{"image_id": n, "question": f"what {n}?", "question_id": 10 + n} for n in (42, 7)]
ANNOTATIONS = [
    {"question_id": q["question_id"], "image_id": q["image_id"], "answers": [{"answer": "yes"}]}
    for q in reversed(QUESTIONS)
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


def write(folder: Path, questions: Any = QUESTIONS, annotations: Any = ANNOTATIONS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    head = {"info": {"year": 2017}, "data_subtype": "val2014", "license": {}}
    (folder / NAME).write_text(json.dumps(head | {"questions": questions}))
    (folder / ANSWERS).write_text(json.dumps(head | {"annotations": annotations}, indent=1))
    return folder / NAME


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    "place",
    ["val2014/COCO_val2014_{:012d}.jpg", "images/COCO_val2014_{:012d}.jpg", "{:012d}.jpg"],
)
@pytest.mark.parametrize("base", [".", ".."])
def test_questions_with_answers_and_pictures(tmp_path: Path, place: str, base: str) -> None:
    path = write(tmp_path / "data" / "lists")
    picture(path.parent / base / place.format(42))
    container = container_of(path)
    assert container.name == "vqa"
    found = list(container.scan_contents(path))
    assert [value["image"] for _, _, value, _ in found] == [place.format(42), place.format(7)]
    assert [value["question"] for _, _, value, _ in found] == ["what 42?", "what 7?"]
    assert found[0][2]["answers"] == [{"answer": "yes"}]
    for start, length, value, content in reversed(found):
        assert container.content(path, start, length) == content
        assert container.value(content) == value


def test_any_name_that_ends_in_the_number(tmp_path: Path) -> None:
    path = write(tmp_path / "data")
    picture(tmp_path / "data" / "mine" / "photo_42.png")
    values = [value for _, _, value in container_of(path).scan(path)]
    assert values[0]["image"] == "mine/photo_42.png"


def test_a_change_of_the_answers_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": "?", "question_id": 1}], [{"question_id": 1, "a": 1}])
    assert [v["a"] for _, _, v in container_of(path).scan(path)] == [1]
    (tmp_path / ANSWERS).write_text('{"annotations": [{"question_id": 1, "a": 22}]}')
    assert [v["a"] for _, _, v in container_of(path).scan(path)] == [22]


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        (ANNOTATIONS[:1], 'question 1 has no annotation of its "question_id"'),
        ({}, 'expected a JSON object with a list "annotations"'),
        (ANNOTATIONS, "the picture of image_id 42 is not there; looked for COCO_val2014_0000"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, annotations: Any, words: str) -> None:
    path = write(tmp_path / "data", QUESTIONS, annotations)
    with pytest.raises(UserError) as error:
        list(container_of(path).scan(path))
    assert words in str(error.value)
    assert "cache" not in str(error.value)


def test_half_a_file_and_none(tmp_path: Path) -> None:
    path = write(tmp_path / "data")
    picture(tmp_path / "data" / "42.jpg")
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(UserError, match=r"questions\.json: not valid JSON"):
        list(container_of(path).scan(path))
    path.write_text(whole)
    (tmp_path / "data" / ANSWERS).unlink()
    with pytest.raises(UserError, match=f"answers are not beside it; looked for {ANSWERS}"):
        list(container_of(path).scan(path))


def test_json_lines_with_such_a_key_are_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"questions": ["a"]}\n{"questions": ["b"]}\n')
    assert container_of(path).name == "jsonl"


def test_pictures_that_were_moved_are_found_in_their_new_place(tmp_path: Path) -> None:
    """The joined copy is kept; the places of the pictures in it are not older than these."""
    path = write(tmp_path / "data")
    old = tmp_path / "data" / "images"
    for number in (42, 7):
        picture(old / f"COCO_val2014_{number:012d}.jpg")
    container = container_of(path)
    before = [value["image"] for _, _, value in container.scan(path)]
    assert before[0].startswith("images/")
    old.rename(tmp_path / "data" / "val2014")
    for again in (container, type(container)()):
        found = list(again.scan_contents(path))
        assert [value["image"] for _, _, value, _ in found] == [
            name.replace("images/", "val2014/") for name in before
        ]
        for start, length, value, content in found:
            assert again.content(path, start, length) == content
            assert again.value(content) == value
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    names = [v["image"] for _, _, v in container.scan(moved / path.name)]
    assert all((moved / name).is_file() for name in names)
