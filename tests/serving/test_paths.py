"""Paths in what is typed: alone they are files, in a sentence they are words."""

import os
from pathlib import Path

import pytest
from helpers import write_image, write_wave

from omnitune.sample import Media
from omnitune.serving.paths import as_medium, dropped_files, mentioned, path_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder and home: a picture, one with blanks and a quote, a sound, others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "my cat's (1).png")
    write_wave(tmp_path / "q.wav")
    write_image(tmp_path / "hello.png").rename(tmp_path / "hello")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "pictures.d").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("a.png")
    return tmp_path


CAT = "my cat's (1).png"
KINDS = ("image", "audio")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("a.png", ["a.png"]),
        ("  'a.png' ", ["a.png"]),
        ("~/a.png", ["a.png"]),
        ('"~/a.png"', ["a.png"]),
        ("./hello", ["hello"]),
        (CAT, [CAT]),
        (f'"{CAT}"', [CAT]),
        (r"my\ cat\'s\ \(1\).png", [CAT]),
        (r"a.png my\ cat\'s\ \(1\).png 'q.wav'", ["a.png", CAT, "q.wav"]),
        ("'a.png' 'q.wav' ", ["a.png", "q.wav"]),
        ("'a.png'\n\"q.wav\"\n", ["a.png", "q.wav"]),
        ("file://{folder}/my%20cat%27s%20%281%29.png", [CAT]),
        ("file://{folder}/a.png file://localhost{folder}/q.wav", ["a.png", "q.wav"]),
        ("file:{folder}/a.png", ["a.png"]),
        ("{folder}/a.png", ["a.png"]),
        ("link.png", ["link.png"]),
        ("notes.txt", ["notes.txt"]),
    ],
)
def test_a_line_of_paths(folder: Path, line: str, names: list[str]) -> None:
    found = dropped_files(line.replace("{folder}", str(folder)))
    assert [path.name for path in found] == names
    assert all(path.is_file() for path in found)


@pytest.mark.parametrize(
    "line",
    [
        "",
        ".",
        "...",
        "~",
        "/",
        "hello",
        "hello hello",
        "what is in a.png?",
        "what is in a.png",
        "a.png is a picture",
        "a.png 'q.wav",
        "a.png, q.wav",
        "none.png",
        "a.png none.png",
        "pictures.d",
        "pipe.png",
        "/dev/zero",
        "/image a.png",
        "a.png\0",
        "x" * 5_000 + ".png",
        "file://elsewhere/a.png",
        "file://[a.png",
        "\udce9.png",
        "don't",
    ],
)
def test_a_line_of_words(folder: Path, line: str) -> None:
    assert dropped_files(line) == []


def test_the_kind_is_told_by_the_content(folder: Path) -> None:
    (folder / "a.png").rename(folder / "really.wav")
    assert as_medium(Path("really.wav"), KINDS) == Media("image", Path("really.wav"))
    assert as_medium(Path("q.wav"), KINDS) == Media("audio", Path("q.wav"))
    assert as_medium(Path("q.wav"), ["image"]) is None
    assert as_medium(Path("notes.txt"), KINDS) is None


def test_files_that_a_sentence_names(folder: Path) -> None:
    text = "is (a.png) like q.wav, none.png, notes.txt, hello or 'a.png'?"
    assert mentioned(text, KINDS) == [Media("image", Path("a.png")), Media("audio", Path("q.wav"))]
    assert mentioned(text, ["audio"]) == [Media("audio", Path("q.wav"))]
    assert mentioned("hello, what is 1.5 plus 2.5?", KINDS) == []


def test_a_name_with_a_backslash_is_itself_first(folder: Path) -> None:
    (folder / r"odd\ name.png").touch()
    assert path_of(r"odd\ name.png").name == r"odd\ name.png"
    assert path_of(r"new\ name.png").name == "new name.png"
