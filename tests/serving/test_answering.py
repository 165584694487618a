"""Answers to a whole file of records: complete, resumed, and in any format."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave

from omnitune import load_model
from omnitune.cli import main
from omnitune.models.loading import save_omni
from omnitune.serving.scheduler import Scheduler


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and records in a list, as LLaVA has them, and as lines."""
    folder = tmp_path_factory.mktemp("home")
    save_omni(folder / "omni.pt", tiny_model(max_positions=256), tiny_renderer())
    write_image(folder / "a.png")
    write_wave(folder / "a.wav")
    records: list[dict[str, Any]] = [
        {"image": "a.png", "question": "what is it?", "answer": "a thing", "split": "test"},
        {"audio": "a.wav", "question": "what is said?", "answer": "a word"},
        {"image": "a.png", "qa": [{"question": f"{n}?", "answer": str(n)} for n in range(3)]},
        {"question": "hello", "answer": "yes"},
    ]
    (folder / "list.json").write_text(json.dumps(records))
    lines = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}]}
    ]
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def run(folder: Path, out: Path, *more: str, data: str = "list.json") -> int:
    options = ["--ckpt-dir", str(folder), "--data", str(folder / data), "--out", str(out)]
    return main(["answer", *options, "--max-new-tokens", "9", "--device", "cpu", *more])


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_question_is_answered_as_in_a_chat(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "answers.jsonl"
    assert run(folder, out, "--max-batch", "2") == 0
    lines = {line["question"]: line for line in read(out)}
    assert list(lines) == ["what is it?", "what is said?", "0?", "1?", "2?", "hello"]
    model = load_model(folder, "cpu")
    for question, line in lines.items():
        media = {kind: Path(path) for kind, path in line["media"]}
        assert line["answer"] == model.chat(question, max_new_tokens=9, **media)
        assert line["tokens"] <= 9
    assert lines["hello"]["reference"] == "yes"
    assert lines["what is it?"]["media"] == [["image", str(folder / "a.png")]]


def test_it_goes_on_where_the_file_ends(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    assert run(folder, out) == 0
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert run(folder, out) == 0
    assert out.read_bytes() == whole
    done = out.stat().st_mtime_ns, out.read_bytes()
    assert run(folder, out) == 0
    assert (out.stat().st_mtime_ns, out.read_bytes()) == done


def test_what_is_stopped_loses_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    assert run(folder, whole) == 0
    turn, turns = Scheduler.turn, iter([True] * 12)

    def stopped(self: Scheduler) -> None:
        if not next(turns, False):
            raise KeyboardInterrupt
        turn(self)

    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "turn", stopped)
        assert run(folder, out, "--max-batch", "1") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    begun = out.read_bytes()
    assert 0 < len(begun) < len(whole.read_bytes())
    assert whole.read_bytes().startswith(begun)
    assert run(folder, out) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_one_command_at_a_time(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    with out.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(folder, out) == 2
    assert "another command writes answers into it now" in capsys.readouterr().err
    assert run(folder, out) == 0


def test_data_that_change_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    data.write_text('{"question": "1?"}\n')
    assert run(folder, out, data=str(data)) == 0
    data.write_text('{"question": "1?"}\n{"question": "2?"}\n')
    assert run(folder, out, data=str(data)) == 0
    assert [line["question"] for line in read(out)] == ["1?", "2?"]
    data.write_text('{"question": "other?"}\n')
    assert run(folder, out, data=str(data)) == 2
    assert "answers another question than q asks now in its record 1" in capsys.readouterr().err


def test_a_broken_line_ends_alone(folder: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    data.write_text('{"question": "1?"}\n{broken\n{"question": "3?"}\n')
    assert run(folder, out, data=str(data)) == 1
    first, wrong, last = read(out)
    assert "not valid JSON" in wrong["error"]
    assert (first["question"], last["question"], last["number"]) == ("1?", "3?", 2)


def test_a_file_of_something_else_is_no_answers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text("hello\n")
    assert run(folder, out) == 2
    assert "is no file that omnitune wrote answers to" in capsys.readouterr().err
    assert out.read_text() == "hello\n"


def test_a_wrong_record_ends_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "1?"}, {"image": 3, "question": "2?"}, {"question": "3?", "answer": "c"}]
    data, out = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    assert run(folder, out, data=str(data)) == 1
    assert "1 record could not be answered" in capsys.readouterr().err
    first, wrong, last = read(out)
    assert 'q.jsonl: record 2: "image" is 3' in wrong["error"]
    assert "reference" not in first
    assert last["reference"] == "c"
    rows[1] = {"question": "2?"}
    data.write_text("\n".join(map(json.dumps, rows)))
    assert run(folder, out, data=str(data)) == 0
    assert [line["question"] for line in read(out)] == ["1?", "2?", "3?"]
    assert [line["id"] for line in read(out)] == ["q/0", "q/1", "q/2"]


def test_media_that_the_model_lacks_are_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_omni(tmp_path / "omni.pt", tiny_model(media=["image"]), tiny_renderer())
    out = tmp_path / "a.jsonl"
    assert run(folder, out, "--ckpt-dir", str(tmp_path)) == 0
    assert "what is said?" not in [line["question"] for line in read(out)]
    assert "no encoder for audio" in capsys.readouterr().err


def test_answers_of_something_else_are_not_mixed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    assert run(folder, out, "--split", "test") == 0
    assert len(read(out)) == 1
    assert run(folder, out) == 2
    assert "made with another split; give another --out, or --overwrite" in capsys.readouterr().err
    assert run(folder, out, "--overwrite") == 0
    assert len(read(out)) == 6


def test_a_broken_medium_ends_alone(folder: Path, tmp_path: Path) -> None:
    records = [
        {"image": str(folder / "gone.png"), "question": "what?", "answer": "a"},
        {"question": "hello", "answer": "yes"},
    ]
    data = tmp_path / "broken.json"
    data.write_text(json.dumps([records[0] | {"image": "gone.png"}, records[1]]))
    out = tmp_path / "a.jsonl"
    assert run(folder, out, data=str(data)) == 1
    failed, answered = read(out)
    assert "gone.png: no such image file" in failed["error"]
    assert answered["question"] == "hello"
    write_image(tmp_path / "gone.png")
    assert run(folder, out, data=str(data)) == 0
    assert [line["question"] for line in read(out)] == ["what?", "hello"]


def test_a_record_that_asks_nothing(folder: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    data.write_text('{"response": "yes"}\n')
    assert run(folder, out, data=str(data)) == 1
    assert "asks nothing; give a --prompt" in read(out)[0]["error"]
    assert run(folder, out, "--prompt", "is it?", "--overwrite", data=str(data)) == 0
    assert read(out)[0]["question"] == "is it?"


def test_other_formats(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "a.jsonl", data="lines.jsonl") == 0
    assert [line["question"] for line in read(tmp_path / "a.jsonl")] == ["hi"]


def test_mistakes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path / "a.jsonl", "--split", "nothing") == 2
    assert "no samples in the split 'nothing'; there: test, train" in capsys.readouterr().err
    data = folder / "lines.jsonl"
    before = data.read_bytes()
    assert run(folder, data, "--overwrite", data=str(data)) == 2
    assert "holds the questions; give --out another file" in capsys.readouterr().err
    assert data.read_bytes() == before
    assert run(folder, tmp_path) == 2
    assert "is a folder; give --out a file" in capsys.readouterr().err
    assert run(folder, tmp_path / "a.jsonl", data="gone.json") == 2
