"""Examples to try: right, of different tasks, with media that are there; none of broken files."""

from dataclasses import replace
from pathlib import Path

import pytest

from omnitune.evaluation.scoring import Prediction
from omnitune.reporting.examples import (
    EXAMPLES_FILE,
    choose_examples,
    read_examples,
    write_examples,
)
from omnitune.reporting.gallery import Example
from omnitune.sample import Media


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
    assert read_examples(run) == []  # it is nowhere
    (tmp_path / "project" / "data").mkdir()
    (tmp_path / "project" / media).touch()
    [found] = read_examples(run)
    assert found.media == (Media("image", tmp_path / "project" / media),)
    monkeypatch.chdir(tmp_path / "project")
    assert read_examples(run)[0].media == (Media("image", media),)
    stretch = Path("data/a.png::t=1,2")  # of that file
    write_examples(run, [replace(shown, media=(Media("audio", stretch),))])
    assert read_examples(run)[0].media == (Media("audio", stretch),)


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
    assert read_examples(tmp_path) == []
