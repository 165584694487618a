"""Answers to a whole file of records: complete, resumed, and in any format."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave

from omnitune import load_model
from omnitune.cli import main
from omnitune.models.loading import save_omni


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
    assert sorted(lines) == sorted(["what is it?", "what is said?", "0?", "1?", "2?", "hello"])
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
    assert out.read_bytes().startswith(b"".join(lines[:2]))
    assert sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())
    done = out.stat().st_mtime_ns, out.read_bytes()
    assert run(folder, out) == 0
    assert (out.stat().st_mtime_ns, out.read_bytes()) == done


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
    failed, answered = sorted(read(out), key=lambda line: "answer" in line)
    assert "gone.png: no such image file" in failed["error"]
    assert answered["question"] == "hello"
    write_image(tmp_path / "gone.png")
    assert run(folder, out, data=str(data)) == 0
    assert sorted(line["question"] for line in read(out)) == ["hello", "what?"]


def test_other_formats(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "a.jsonl", data="lines.jsonl") == 0
    assert [line["question"] for line in read(tmp_path / "a.jsonl")] == ["hi"]


def test_mistakes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path / "a.jsonl", "--split", "nothing") == 2
    assert "no samples in the split 'nothing'; there: test, train" in capsys.readouterr().err
    assert run(folder, tmp_path) == 2
    assert "is a folder; give --out a file" in capsys.readouterr().err
    assert run(folder, tmp_path / "a.jsonl", data="gone.json") == 2
