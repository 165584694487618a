"""Examples to try: right, of different tasks, with media that are there; none of broken files."""

from pathlib import Path
from typing import Any

import pytest

from omnitune.data.reading import read_available
from omnitune.evaluation.scoring import Prediction, questions_of
from omnitune.reporting import examples
from omnitune.reporting.examples import (
    EXAMPLES_FILE,
    choose_examples,
    read_examples,
    write_examples,
)
from omnitune.reporting.gallery import Example
from omnitune.sample import Media
from omnitune.storage import write_json_lines


def exhibit(task: str, number: int, right: bool = True, question: str = "what?") -> Example:
    prediction = Prediction(f"{task}-{number}", task, f"kind {number % 2}", "yes", "yes")
    media = (Media("image", Path(f"{task}-{number}.png")),)
    return Example(prediction, right, question, media=media)


def test_one_of_each_task_the_largest_first() -> None:
    exhibits = [exhibit("big", n) for n in range(9)] + [exhibit("small", n) for n in range(2)]
    exhibits += [exhibit("middle", n) for n in range(5)]
    exhibits += [exhibit("wrong", n, right=False) for n in range(20)]
    exhibits += [exhibit("long", n, question="why? " * 50) for n in range(20)]
    exhibits += [Example(exhibits[0].prediction, True, "where are the media?")] * 30
    tasks = [e.media[0].path.name.partition("-")[0] for e in choose_examples(exhibits)]
    assert tasks == ["big", "middle", "small"]


def test_one_task_gives_different_kinds_and_media() -> None:
    exhibits = [exhibit("qa", n) for n in range(6)] + [exhibit("qa", 0, question="why?")] * 9
    chosen = choose_examples(exhibits)
    numbers = [int(e.media[0].path.stem[-1]) for e in chosen]
    assert len(set(numbers)) == 3
    assert {n % 2 for n in numbers[:2]} == {0, 1}


def test_a_written_question_goes_before_a_spoken_one() -> None:
    exhibits = [exhibit("qa", n, question="") for n in range(9)] + [exhibit("qa", 9)]
    assert [e.question for e in choose_examples(exhibits)] == ["what?", "", ""]


def test_kept_with_the_run_and_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "project" / "checkpoints" / "run"
    run.mkdir(parents=True)
    media = Path("data/a.png")
    shown = Example(exhibit("qa", 0).prediction, True, "what?", media=(Media("image", media),))
    write_examples(run, [shown])
    assert read_examples(run, Path("data")) == []  # it is nowhere
    (tmp_path / "project" / "data").mkdir()
    (tmp_path / "project" / media).touch()
    [found] = read_examples(run, Path("data"))
    assert found.media == (Media("image", tmp_path / "project" / media),)
    monkeypatch.chdir(tmp_path / "project")
    assert read_examples(run, Path("data"))[0].media == (Media("image", media),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "{}",
        "[1, null, [], {}]",
        '[{"question": 1, "media": []}]',
        '[{"question": "what?", "media": [["smell", "a.png"]]}]',
        '[{"question": "what?", "media": [["image", 3]]}]',
        '[{"question": "what?", "media": "ab"}]',
        '[{"question": "what?", "media": [["image", "a\\u0000b"]]}]',
        "\udce9",
    ],
)
def test_a_damaged_file_gives_none(tmp_path: Path, text: str) -> None:
    (tmp_path / EXAMPLES_FILE).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert read_examples(tmp_path, tmp_path) == []


def predictions(home: Path, right: bool = True) -> list[dict[str, Any]]:
    rows = []
    for samples in read_available(home / "data").values():
        for sample in samples:
            for q in questions_of(sample):
                if sample.split == "test" and sample.media:
                    answer = q.reference if right else "wrong"
                    row = {"id": q.id, "task": q.task, "kind": q.kind, "split": sample.split}
                    rows.append(row | {"reference": q.reference, "answer": answer})
    return rows


def test_a_run_without_examples_is_searched(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_json_lines(path, predictions(home, right=False))
    assert read_examples(tmp_path, home / "data") == []
    write_json_lines(path, ["half a line", *predictions(home)])
    found = read_examples(tmp_path, home / "data")
    assert len(found) == 3
    assert {e.media[0].modality for e in found} == {"image", "audio"}
    assert read_examples(tmp_path, tmp_path / "nowhere") == []


def test_long_files_are_not_read_whole(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "predictions.jsonl"
    write_json_lines(path, predictions(home) * 200)
    monkeypatch.setattr(examples, "WHOLE_ANSWERS", 100)
    monkeypatch.setattr(examples, "PLACE", 400)
    lines = list(examples._some_lines(path))
    assert 0 < len(lines) <= 2 * examples.PLACES
    assert {line["task"] for line in lines} == {"image_qa", "transcription"}
    monkeypatch.setattr(examples, "QUICK_DATA", 10)
    assert read_examples(tmp_path, home / "data") == []
