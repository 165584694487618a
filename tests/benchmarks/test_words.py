"""The account of a thinker in words: every kind is asked, no row of digits that was trained on."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import words
from omnitune.evaluation.scoring import Question
from omnitune.tiny.corpus.basics import partition


def test_rows_are_held_out_and_added_up() -> None:
    for length in (2, 3):
        rows = words.rows_of_digits(length)
        assert 0 < len(rows) < 2 * 0.3 * 10**length
        for row in rows:
            (told,) = row.context_parts
            digits = told.words.split()[2:]
            assert len(digits) == length
            assert partition(told.words) != "train"
            answers = {row.messages[1].text for row in rows if row.context_parts == (told,)}
            assert answers == {" ".join(digits), str(sum(map(int, digits)))}


def test_every_kind_is_asked_shown_and_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every second reference given for an answer is half of them right."""

    def answer(model: object, reader: object, asked: list[Question]) -> list[SimpleNamespace]:
        return [SimpleNamespace(answer=q.reference * (n % 2)) for n, q in enumerate(asked)]

    monkeypatch.setattr(words, "answer", answer)
    monkeypatch.setattr(words, "LENGTHS", (2,))
    path, thinker = tmp_path / "found.json", home / "thinker.pt"
    assert words.main([str(thinker), "--data", str(home / "data"), "--json", str(path)]) == 0
    found = json.loads(path.read_text())["words"][str(thinker)]
    assert found == {"digits of 2": [0, 22], "image_qa": [1, 2], "sums of 2": [22, 22]}
    printed = capsys.readouterr().out
    assert "sums of 2" in printed
    assert "100.0%" in printed


@pytest.mark.parametrize(
    ("thinker", "options", "said"),
    [
        ("missing.pt", [], "missing.pt: no such checkpoint"),
        ("image.pt", [], "is a checkpoint of kind 'image', expected 'thinker'"),
        ("thinker.pt", ["--split", "tset"], "no questions about pictures in the split 'tset'"),
        ("thinker.pt", ["--data", "nowhere"], "nowhere: no such data folder"),
    ],
)
def test_a_mistake_is_one_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], thinker: str, options: list[str], said: str
) -> None:
    assert words.main([str(home / thinker), "--data", str(home / "data"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_thinker_answers(home: Path) -> None:
    found = words.right_by_kind(home / "thinker.pt", words.rows_of_digits(2)[:4])
    assert found == {"digits of 2": (0, 2), "sums of 2": (0, 2)}
