"""Records as public sets of pictures and texts have them: which they are taken for, and read as."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image

from omnitune.containers.registry import CONTAINERS, container_of
from omnitune.data.place import Place
from omnitune.data.reading import DataPlace
from omnitune.data.sources.finding import find_files
from omnitune.data.sources.media_dir import folder_within
from omnitune.data.sources.registry import DIALECTS
from omnitune.sample import Media, Sample, UserError
from omnitune.sources import Source

Values = dict[str, Any]
TEN = ["nokia"] * 8 + ["phone", "x"]
STRUCT = {"bytes": True, "path": "a.png"}  # as Parquet's rows are scanned
BASE64 = "iVBORw0KGgo" + "A" * 101
Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
BAD = {"role": "assistant", "content": "B"}
HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}
OPTIONS = "\nA a\nB b"  # whatever stands around the letters
IN_ROW = "r.jsonl::0+9/"


def read(path: Path | str, **settings: Any) -> list[Sample]:
    found = find_files(Source("mine", path=str(path), **settings))
    return [
        found.parse(Place(n, file, n, 0, 9), values)
        for file, container in found.files
        for n, (_, _, values) in enumerate(container.scan(file))
    ]


def shown(sample: Sample, folder: Path) -> str:
    """The turns in one line, media as their paths in brackets."""
    turns = []
    for message in sample.messages:
        parts = [
            f"[{str(p.path).removeprefix(f'{folder}/')}]" if isinstance(p, Media) else p.text
            for p in message.parts
        ]
        turns.append("".join(parts))
    return re.sub(r"\n\(?([A-Z])[).] ", r"\n\1 ", " | ".join(turns))


def put_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path)


def rows(*records: Any) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def shows(*parts: Values) -> Values:
    return {"role": "user", "content": [*parts]}


# Of each: a record, the task, and what is shown and answered. Bytes stand as a scan has them.
SETS: dict[str, tuple[Values, str, str]] = {
    "pope": (
        {"question_id": 1, "image": "a.jpg", "text": "A dog?", "label": "no"},
        "image_qa",
        "[a.jpg]A dog? | no",
    ),
    "chartqa": (
        {"imgname": "1.png", "query": "How many?", "label": "14"},
        "image_qa",
        "[1.png]How many? | 14",
    ),
    "gqa": (
        {"imageId": "24", "question": "What?", "answer": "pipe"},
        "image_qa",
        "[24.jpg]What? | pipe",
    ),
    "a-okvqa": (
        {
            "image_id": 299207,
            "question": "Q?",
            "choices": ["a", "b"],
            "correct_choice_idx": 1,
            "direct_answers": "['b', 'b']",
        },
        "choice",
        f"[000000299207.jpg]Q?{OPTIONS} | b",
    ),
    "textvqa": (
        {"image_id": "e84", "question": "brand?", "question_id": 3, "answers": TEN},
        "vqa",
        "[e84.jpg]brand? | nokia",
    ),
    "textcaps": (
        {
            "image_id": "e84",
            "image_path": "train/e84",
            "caption_str": "B",
            "reference_strs": ["A", "B"],
        },
        "captioning",
        "[e84.jpg]Describe the picture. | B",
    ),
    "docvqa": (
        {"image": "d/x.png", "question": "date?", "answers": ["1", "2"], "ucsf_document_id": "x"},
        "anls",
        "[d/x.png]date? | 1",
    ),
    "infographicvqa": (
        {
            "image_local_name": "2.jpeg",
            "image_url": "https://x/y.jpg",
            "question": "Q?",
            "answers": ["a"],
        },
        "anls",
        "[2.jpeg]Q? | a",
    ),
    "st-vqa": (
        {"file_path": "coco/a.jpg", "file_name": "a.jpg", "question": "Q?", "answers": ["a"]},
        "anls",
        "[coco/a.jpg]Q? | a",
    ),
    "scienceqa": (
        {
            **{"id": "7", "image": "image.png", "split": "val", "lecture": "", "hint": "Read."},
            **{"question": "Q?", "choices": ["a", "b"], "answer": 0, "task": "closed choice"},
        },
        "choice",
        f"[val/7/image.png]Read.\nQ?{OPTIONS} | a",
    ),
    "mmmu": (
        {
            **{"question": "Is <image 2> <image 1>?", "options": "['a', 'b']", "answer": "B"},
            **{"image_1": STRUCT, "image_2": STRUCT, "image_3": None, "question_type": "open"},
        },
        "choice",
        f"Is [{IN_ROW}image_2/bytes][{IN_ROW}image_1/bytes]?{OPTIONS} | B",
    ),
    "mmbench": (
        {
            "question": "Q?",
            "hint": "nan",
            "A": "a",
            "B": "b",
            "C": "",
            "answer": "B",
            "image": BASE64,
        },
        "choice",
        f"[{IN_ROW}image]Q?{OPTIONS} | B",
    ),
    "seed": (
        {
            **{"data_id": "14_25", "data_type": "image", "question": "Q?", "answer": "A"},
            **{"choice_a": "a", "choice_b": "b"},
        },
        "choice",
        f"[14_25]Q?{OPTIONS} | A",
    ),
    "mathvista": (
        {
            **{"image": "images/1.jpg", "decoded_image": STRUCT, "choices": None, "answer": "1.2"},
            **{"question": "Q?", "question_type": "free_form", "query": "Hint: Q?"},
        },
        "image_qa",
        f"[{IN_ROW}decoded_image/bytes]Q? | 1.2",
    ),
    "refcoco": (
        {"image": STRUCT, "file_name": "COCO_1.jpg", "question": "Q?", "answer": ["a", "b"]},
        "image_qa",
        f"[{IN_ROW}image/bytes]Q? | a",
    ),
    "clevr": (
        {"image_filename": "C_0.png", "question": "Q?", "answer": "yes", "program": []},
        "image_qa",
        "[C_0.png]Q? | yes",
    ),
    "karpathy": (
        {
            **{"filepath": "val2014", "filename": "c.jpg", "sentids": [1], "split": "restval"},
            "sentences": [{"raw": "A cat."}],
        },
        "captioning",
        "[val2014/c.jpg]Describe the picture. | A cat.",
    ),
    "visual genome": (
        {"id": 1, "qas": [{"question": "Q?", "answer": "a", "image_id": 1}]},
        "image_qa",
        "[1.jpg]Q? | a",
    ),
    "img2dataset": (
        {"url": "https://a/b.jpg", "caption": "c", "jpg": STRUCT},
        "captioning",
        f"[{IN_ROW}jpg/bytes]Describe the picture. | c",
    ),
    "rlhf-v": (
        {"image": "a.jpg", "text": '{"question": "Q", "chosen": "A", "rejected": "B"}'},
        "image_qa",
        "[a.jpg]Q | A",
    ),
    "squad": (
        {"context": "Long.", "question": "Q?", "answers": {"text": ["a"], "answer_start": [1]}},
        "text",
        "Long.\nQ? | a",
    ),
    "arc": (
        {"question": "Q?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
        "choice",
        f"Q?{OPTIONS} | B",
    ),
    "openorca": ({"system_prompt": "S", "question": "Q", "response": "A"}, "text", "S | Q | A"),
    "flan": ({"inputs": "Q", "targets": "A"}, "text", "Q | A"),
    "openhermes": (
        {"system_prompt": "S", "conversations": [{"from": "system", "value": "S"}, HUMAN, GPT]},
        "text",
        "S | Q | A",
    ),
    "capybara": ({"conversation": [{"input": "Q", "output": "A"}]}, "text", "Q | A"),
    "lima": ({"conversations": ["Q", "A"], "source": "x"}, "text", "Q | A"),
    "ultrachat": ({"id": "0", "data": ["Q", "A", "R", "B"]}, "text", "Q | A | R | B"),
    "oasst": (
        {
            "message_tree_id": "1",
            "prompt": {
                **{"text": "Q", "role": "prompter"},
                "replies": [
                    {"text": "B", "role": "assistant", "rank": 1, "replies": []},
                    {
                        **{"text": "A", "role": "assistant", "rank": 0},
                        "replies": [{"text": "R", "role": "prompter", "replies": []}],
                    },
                ],
            },
        },
        "text",
        "Q | A",
    ),
    "guanaco": ({"text": "### Human: Q### Assistant: A"}, "text", "Q | A"),
    "hh-rlhf": (
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        "text",
        "Q | A",
    ),
    "orca dpo": (
        {"system": "S", "question": "Q", "chosen": "A", "rejected": "B"},
        "text",
        "S | Q | A",
    ),
    "ultrafeedback": ({"prompt": "Q", "chosen": [Q, A], "rejected": [Q, BAD]}, "text", "Q | A"),
    "factory dpo": ({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT}, "text", "Q | A"),
    "fineweb": (
        {"text": "Once.", "id": "u", "dump": "CC", "url": "http://a", "language_score": 0.9},
        "text",
        " | Once.",
    ),
    "gemini": (
        {
            "systemInstruction": {"parts": [{"text": "S"}]},
            "contents": [
                {
                    "role": "user",
                    "parts": [
                        {"inlineData": {"mimeType": "image/png", "data": BASE64}},
                        {"text": "Q"},
                    ],
                },
                {"role": "model", "parts": [{"text": "A"}]},
            ],
        },
        "image_qa",
        f"S | [{IN_ROW}contents/0/parts/0/inlineData/data]Q | A",
    ),
    "openai": (
        {
            "messages": [
                Q,
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]},
                A,
            ]
        },
        "image_qa",
        "Q[a.png] | A",
    ),
    "trl by number": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "index": 1}, {"type": "image", "index": 0}],
                },
                A,
            ],
            "images": ["a.png", "b.png"],
        },
        "image_qa",
        "[b.png][a.png] | A",
    ),
    "ms-swift boxes": (
        {
            "messages": [
                {"role": "user", "content": "<image>find <ref-object>"},
                {"role": "assistant", "content": "<bbox>"},
            ],
            "images": ["a.png"],
            "objects": {"ref": ["sheep"], "bbox": [[90.9, 160, 135, 212]]},
        },
        "image_qa",
        "[a.png]find sheep | [90.9,160,135,212]",
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_record_of_a_public_set(tmp_path: Path, name: str) -> None:
    record, task, expected = SETS[name]
    (tmp_path / "r.jsonl").write_text(rows(record, record))
    sample = read(tmp_path / "r.jsonl")[0]
    assert (sample.task, shown(sample, tmp_path)) == (task, expected)
    assert sum(d.recognises([record], tmp_path / "r.jsonl") for d in DIALECTS.values()) == 1


def test_options_may_be_pictures(tmp_path: Path) -> None:
    record = {
        **{"question": "Which?", "options": "['<image 1>', '<image 2>']", "answer": "B"},
        **{"image_1": STRUCT, "image_2": STRUCT, "image_3": None},
    }
    (tmp_path / "r.jsonl").write_text(rows(record, record))
    sample = read(tmp_path / "r.jsonl")[0]
    pictures = [f"[{IN_ROW}image_{n}/bytes]" for n in (1, 2)]
    assert shown(sample, tmp_path).startswith(f"Which?\nA {pictures[0]}\nB {pictures[1]}")
    assert sample.messages[-1].choices == (("A", "image 1"), ("B", "image 2"))


def test_all_right_answers_come_along(tmp_path: Path) -> None:
    for name, answers in {
        "textvqa": TEN,
        "textcaps": ["B", "A"],
        "docvqa": ["1", "2"],
        "refcoco": ["a", "b"],
    }.items():
        (tmp_path / "r.jsonl").write_text(rows(SETS[name][0], SETS[name][0]))
        assert list(read(tmp_path / "r.jsonl")[0].messages[-1].references) == answers


# Beside fields of a public set's name a record is what it is without them.
BESIDE: dict[str, tuple[Values, str, str]] = {
    "a list to be written": (
        {"prompt": "Sort b, a.", "answer": "['a', 'b']"},
        "text",
        "Sort b, a. | ['a', 'b']",
    ),
    "no list to be written": ({"prompt": "Empty?", "answer": "[]"}, "text", "Empty? | []"),
    "where a file was": (
        {"image": "a.png", "question": "Q?", "answer": "b", "file_path": "x/b.png"},
        "image_qa",
        "[a.png]Q? | b",
    ),
    "a number of a comment": (
        {"image": "a.png", "caption": "c", "comment_number": 1},
        "captioning",
        "[a.png]Describe the picture. | c",
    ),
    "a file and its words": (
        {"file_path": "a.png", "text": "c"},
        "captioning",
        "[a.png]Describe the picture. | c",
    ),
    "turns of a sound": (
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "hi", "turns": ["A", "B"]},
        "transcription",
        "[a.wav]Transcribe the speech. | hi",
    ),
    "turns of a question": (
        {"image": "a.png", "question": "Q?", "answer": "b", "turns": ["A", "B"]},
        "image_qa",
        "[a.png]Q? | b",
    ),
    "a prompt for words": (
        {"audio": "a.wav", "sentence": "hi", "prompt": "Write small letters."},
        "audio_qa",
        "[a.wav]Write small letters. | hi",
    ),
    "words beside an answer": (
        {"audio": "a.wav", "task": "transcription", "answer": "hi", "text": "HI"},
        "transcription",
        "[a.wav]Transcribe the speech. | hi",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_fields_of_public_sets_change_no_other_record(tmp_path: Path, name: str) -> None:
    record, task, expected = BESIDE[name]
    (tmp_path / "r.jsonl").write_text(rows(record, record))
    sample = read(tmp_path / "r.jsonl")[0]
    assert (sample.task, shown(sample, tmp_path)) == (task, expected)


REFUSED: dict[str, tuple[Values, str]] = {
    "kto": ({"messages": [Q, A], "label": False}, "marks a bad answer"),
    "kto by trl": ({"prompt": "Q", "completion": "A", "label": False}, "marks a bad answer"),
    "no question": ({"chosen": "A", "rejected": "B"}, "nothing that it answers"),
    "oasst's table": ({"message_tree_id": "1", "parent_id": None, "text": "Q"}, "whole trees"),
    "a label beside": ({"text": "So bad!", "label": 0}, "of no known format"),
    "answers alone": (
        {"question_type": "a", "answers": ["b"], "image_id": 1},
        "of no known format",
    ),
    "web addresses": ({"url": "https://a/b.jpg", "caption": "c"}, "img2dataset"),
    "a web address and words": ({"url": "https://a/b.jpg", "text": "c"}, "img2dataset"),
    "a region": (
        {"sentences": [{"raw": "the lady"}], "file_name": "a.jpg", "bbox": [1], "image_id": 1},
        "none that holds an answer",
    ),
    "boxes that are not there": (
        {"messages": [Q, {**A, "content": "<bbox>"}], "images": ["a.png"], "objects": {"ref": []}},
        "more places <bbox>",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_learnt_is_told(tmp_path: Path, name: str) -> None:
    record, told = REFUSED[name]
    (tmp_path / "r.jsonl").write_text(rows(record, record))
    with pytest.raises(UserError, match=told):
        read(tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", {"name": "x", "data": [{"image": "a.png", "caption": "c"}]}, "| c"),
        ("a.json", {"7": {"image": "a.png", "question": "Q?", "answer": "b"}}, "Q? | b"),
        ("a.json", {"info": {}, "questions": [{"question": "Q?", "answer": "b"}]}, "Q? | b"),
        (
            "a.json",
            {
                "info": {},
                "images": [{"id": 3, "file_name": "a.png"}, {"id": 4, "file_name": "b.png"}],
                "annotations": [{"image_id": 3, "caption": "c"}, {"image_id": 3, "caption": "d"}],
            },
            "Describe the picture. | c",
        ),
    ],
)
def test_records_in_an_object(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(content, indent=1))
    [sample] = read(path)
    assert expected in shown(sample, tmp_path)
    container = container_of(path)
    for start, length, value, told in container.scan_contents(path):
        assert container.content(path, start, length) == told
        assert container.value(told) == value


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"train": [{"a": 1}], "val": [{"a": 2}]}, 'under "train", "val"'),
        (
            {"image": "a.png", "qa": [{"question": "Q?", "answer": "b"}]},
            'lists of objects under "qa"',
        ),
        ({"caption": "c", "width": 3}, 'with the keys "caption", "width"'),
        ({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"bbox": []}]}, "boxes, masks"),
    ],
)
def test_an_object_that_holds_no_records_is_told(tmp_path: Path, content: Any, told: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=told):
        read(tmp_path / "a.json")


def test_a_record_keeps_its_own_id(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"7": {"id": "own", "b": 1}, "8": {"b": 2}}')
    found = CONTAINERS["json object"].scan(tmp_path / "a.json")
    assert [value for _, _, value in found] == [{"id": "own", "b": 1}, {"id": "8", "b": 2}]


def test_captions_in_tables_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('image_name| comment_number| comment\na.jpg| 0| A "dog" .\n')
    (tmp_path / "b.txt").write_text("image,caption\na.jpg,A dog .\n")
    assert shown(read(tmp_path / "a.csv")[0], tmp_path).endswith('| A "dog" .')
    assert shown(read(tmp_path / "b.txt")[0], tmp_path).endswith("| A dog .")


def test_lines_of_a_text_are_read_where_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("To be,\n\nor not.\n")
    assert [s.messages[-1].text for s in read(tmp_path / "a.txt", format="text")] == [
        "To be,",
        "or not.",
    ]
    with pytest.raises(UserError, match='"format": "text"'):
        read(tmp_path / "a.txt")


def test_blank_texts_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows({"text": ""}, {"text": "A"}, {"text": " \n"}))
    assert len(read(tmp_path / "a.jsonl")) == 1


def test_pictures_lie_in_the_folder_of_each_list(tmp_path: Path) -> None:
    for split in ("train", "val"):
        put_image(tmp_path / split / "png" / f"{split}.png")
        record = {"imgname": f"{split}.png", "query": "Q?", "label": "1"}
        (tmp_path / split / f"{split}_human.json").write_text(json.dumps([record]))
    for sample in read(f"{tmp_path}/*/*_human.json"):
        assert all(medium.path.is_file() for medium in sample.media)
    assert folder_within(str(tmp_path), [tmp_path / "a.json"]) == ""


@pytest.mark.parametrize("folder", ["train2017", "images/train"])
def test_pictures_beside_the_folder_of_lists(tmp_path: Path, folder: str) -> None:
    put_image(tmp_path / folder / "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/c.json").write_text('[{"image": "a.png", "caption": "c"}]')
    [medium] = read(tmp_path / "annotations/c.json")[0].media
    assert medium.path == tmp_path / folder / "a.png"


def test_an_entry_of_internvls_meta_file(tmp_path: Path) -> None:
    put_image(tmp_path / "data/coco/a.png")
    record = {"image": "coco/a.png", "conversations": [HUMAN, GPT]}
    (tmp_path / "coco.jsonl").write_text(rows(record))
    entry = {"root": "data/", "annotation": "coco.jsonl", "repeat_time": 1}
    (tmp_path / "meta.json").write_text(json.dumps({"coco": entry, "b": entry}))
    [sample] = read(f"{tmp_path}/meta.json::coco")
    assert sample.media[0].path.is_file()
    assert list(DataPlace.of(tmp_path / "meta.json::coco").own) == ["coco"]
    with pytest.raises(UserError, match="describes 2 data sets"):
        read(tmp_path / "meta.json")
