"""Which generated answers are right, how bad the wrong ones are, and which are shown."""

import json
import math
from pathlib import Path

from made_up import write_lines

from omnitune.evaluation.scoring import Prediction
from omnitune.reporting.gallery import (
    Example,
    choose_gallery,
    choose_pictures,
    error_reason,
    is_right,
    read_gallery,
    severity,
)
from omnitune.sample import Media


def test_what_is_right() -> None:
    assert is_right(Prediction("", "image_qa", "", "two", "2."))
    assert not is_right(Prediction("", "image_qa", "", "two", "two red"))
    assert is_right(Prediction("", "transcription", "", "It's Mr. Smith", "it is mister smith"))
    assert not is_right(Prediction("", "transcription", "", "a cat", "a bat"))


def exhibits(task: str, right: int, wrong: int, kind: str = "") -> list[Example]:
    return [
        Example(
            Prediction(f"{task}{kind}{n}", task, kind, "x", "y"),
            right=n < right,
            media=(Media("image", Path(f"{n // 2}.png")),),
        )
        for n in range(right + wrong)
    ]


def test_gallery_shows_both_and_every_task() -> None:
    many = exhibits("image_qa", 500, 100) + exhibits("audio_qa", 50, 10)
    chosen = choose_gallery(many, 24)
    assert [e.right for e in chosen] == [False] * 12 + [True] * 12
    assert sum(e.prediction.task == "audio_qa" for e in chosen) == 12
    assert chosen == choose_gallery(many, 24)
    assert sum(e.right for e in choose_gallery(exhibits("image_qa", 50, 2), 24)) == 22
    assert sum(e.right for e in choose_gallery(exhibits("image_qa", 2, 50), 24)) == 2


def test_grid_shows_different_pictures_and_kinds() -> None:
    many = exhibits("image_qa", 30, 30, "count") + exhibits("caption", 10, 10)
    other = exhibits("image_qa", 8, 0, "color")
    chosen = choose_pictures(many + other, 8)
    assert len({e.media[0].path for e in chosen}) == len(chosen) == 8
    assert {e.prediction.kind for e in chosen} == {"count", "color"}


def mistake(task: str, reference: str, answer: str, loss: float | None = None) -> Example:
    return Example(Prediction(answer, task, "", reference, answer, loss), right=False)


def test_worst_mistakes_come_first() -> None:
    said = [mistake("transcription", "my aunt cooked", answer) for answer in ("my", "my aunt")]
    sure = [mistake("image_qa", "red", f"blue {loss}", loss) for loss in (0.1, 9.0, None, 3.0)]
    chosen = choose_gallery([*said[::-1], *sure])
    assert [e.prediction.reference_loss for e in chosen if e in sure] == [9.0, 3.0, 0.1, None]
    assert [e for e in chosen if e in said] == said
    assert {e.prediction.task for e in chosen[:2]} == {"image_qa", "transcription"}


def test_a_mistake_says_what_makes_it_bad() -> None:
    heard = Prediction("", "transcription", "", "the cat sat", "the mat")
    assert severity(heard) == 2
    assert error_reason(heard) == "2 word errors in 3 words"
    seen = Prediction("", "image_qa", "", "red", "blue", reference_loss=-math.log(0.25))
    assert "25 % likely" in error_reason(seen)
    assert "< 0.01 % likely" in error_reason(Prediction("", "image_qa", "", "red", "blue", 50.0))
    assert error_reason(Prediction("", "image_qa", "", "red", "blue")) == ""


def test_losses_are_read_if_they_are_there(tmp_path: Path) -> None:
    line = {"id": "i", "task": "image_qa", "kind": "", "reference": "a", "answer": "b"}
    lines = [
        {**line, "reference_loss": 1.5, "split": "mine"},
        line,
        {**line, "reference_loss": "x"},
    ]
    write_lines(tmp_path / "predictions.jsonl", lines)
    found, _ = read_gallery(tmp_path / "predictions.jsonl", tmp_path)
    assert [e.prediction.reference_loss for e in found] == [1.5, None, None]
    assert [e.split for e in found] == ["mine", "", ""]


def test_records_that_share_an_id_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    turns = [[("user", f"say it, {n}."), ("assistant", "hi.")] for n in range(3)]
    records = [
        {"id": "same", "messages": [{"role": r, "content": c} for r, c in two], "split": "test"}
        for two in turns
    ]
    (tmp_path / "text/conversations.json").write_text(json.dumps(records))
    line = {"id": "same", "task": "text", "kind": "text", "reference": "hi.", "answer": "hi."}
    told = [line | {"source": "text_only", "number": n} for n in (2, 0, 1, 3)]
    write_lines(tmp_path / "predictions.jsonl", [*told, line, told[0] | {"reference": "ho."}])
    found, _ = read_gallery(tmp_path / "predictions.jsonl", tmp_path)
    asked = [e.question for e in found]
    assert asked == ["say it, 2.", "say it, 0.", "say it, 1.", "", "", ""]
