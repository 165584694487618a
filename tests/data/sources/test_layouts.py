"""What a path leads to: files, split names and folders of media, as people leave them."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image

from omnitune.containers.notes import note
from omnitune.data.sources.base import Dialect
from omnitune.data.sources.file_splits import split_in
from omnitune.data.sources.layouts import Layout, layout_of
from omnitune.data.sources.media_dir import find_media_dir
from omnitune.data.sources.patterns import expand_braces
from omnitune.sample import UserError
from omnitune.sources import Source


def put(folder: Path, *names: str, text: str = '{"a": 1}\n') -> Path:
    """Files below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def lay(path: Path | str) -> Layout:
    return layout_of(Source("mine", path=str(path)))


def names(layout: Layout, folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in layout.files]


def split_names(layout: Layout, folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): name for file, name in layout.splits.items()}


@pytest.fixture(autouse=True)
def _notes() -> None:
    note.cache_clear()  # each is told once in a process


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00010", "train"),
        ("val2014", "validation"),
        ("dev", "validation"),
        ("test-clean", "test"),
        ("llava_Training_v2", "train"),
        ("train_and_val", ""),
        ("latest", ""),
        ("devices", ""),
    ],
)
def test_names_of_splits(name: str, split: str) -> None:
    assert split_in(name) == split


def test_a_file_is_itself_whatever_it_is_called(tmp_path: Path) -> None:
    put(tmp_path, "test.jsonl")
    assert lay(tmp_path / "test.jsonl") == Layout([tmp_path / "test.jsonl"])


def test_braces() -> None:
    assert list(expand_braces("a-{08..11}.tar")) == [f"a-{n}.tar" for n in ("08", "09", "10", "11")]
    assert list(expand_braces("{a,b}/{1..2}")) == ["a/1", "a/2", "b/1", "b/2"]
    assert list(expand_braces("a{b}")) == ["a{b}"]
    with pytest.raises(UserError, match="stands for 4,000,000 files"):
        expand_braces("{0..1999}{0..1999}")


def test_patterns(tmp_path: Path) -> None:
    put(tmp_path, "x-000.jsonl", "x-001.jsonl", "val/y.jsonl", "train/y.jsonl")
    assert names(lay(tmp_path / "x-{000..001}.jsonl"), tmp_path) == ["x-000.jsonl", "x-001.jsonl"]
    assert names(lay(tmp_path / "x-*.jsonl"), tmp_path) == ["x-000.jsonl", "x-001.jsonl"]
    with pytest.raises(UserError, match=r"2 of its files are missing, the first is .*x-002\.jsonl"):
        lay(tmp_path / "x-{000..003}.jsonl")
    with pytest.raises(UserError, match="no such file"):
        lay(tmp_path / "z-*.jsonl")


def test_a_typo_is_shown_the_nearest_name(tmp_path: Path) -> None:
    put(tmp_path, "data/captions.jsonl")
    with pytest.raises(UserError, match=r"did you mean .*data/captions\.jsonl, which is there"):
        lay(tmp_path / "data" / "caption.jsonl")
    with pytest.raises(UserError, match=r"did you mean .*/data, which is there"):
        lay(tmp_path / "dat" / "caption.jsonl")


def test_a_repository_of_parquet_files(tmp_path: Path) -> None:
    files = ["data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet"]
    put(tmp_path, *files, "README.md", "dataset_infos.json")
    layout = lay(tmp_path)
    assert names(layout, tmp_path) == files
    assert split_names(layout, tmp_path) == dict(zip(files, ["test", "train"], strict=True))


def test_where_all_is_for_training_some_is_held_out(tmp_path: Path) -> None:
    put(tmp_path, "train-0.parquet", "train-1.parquet")
    assert lay(tmp_path).splits == {}


def test_shards_come_before_what_describes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "00000.tar", "00000.parquet", "00000_stats.json", "00001.tar.gz")
    assert names(lay(tmp_path), tmp_path) == ["00000.tar", "00001.tar.gz"]
    assert "its tar files are read, and others are not (1 parquet, 1 json)" in (
        capsys.readouterr().err
    )


def test_llama_factory(tmp_path: Path) -> None:
    put(tmp_path, "one.json", "two.json", text="[]")
    info: dict[str, Any] = {
        "one": {"file_name": "one.json", "formatting": "sharegpt"},
        "two": {"file_name": "two.json"},
        "far": {"hf_hub_url": "a/b"},
        "gone": {"file_name": "gone.json"},
    }
    file = tmp_path / "dataset_info.json"
    file.write_text(json.dumps(info))
    layout = lay(f"{file}::one")
    assert names(layout, tmp_path) == ["one.json"]
    assert isinstance(layout.dialect, Dialect)
    for path in (tmp_path, file):
        with pytest.raises(UserError, match=r"describes 4 data sets \(one, two, far, gone\)"):
            lay(path)
    for name, words in (
        ("ome", "did you mean one?"),
        ("far", 'has no "file_name"'),
        ("gone", "no such file or folder, but"),
    ):
        with pytest.raises(UserError) as error:
            lay(f"{file}::{name}")
        assert words in str(error.value)
    file.write_text(json.dumps({"two": info["two"]}))
    assert names(lay(tmp_path), tmp_path) == ["two.json"]


def test_saved_to_disk(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    some = Dataset.from_list([{"question": "a?", "answer": "b"}] * 4)
    some.save_to_disk(str(tmp_path / "one"), num_shards=2)
    layout = lay(tmp_path / "one")
    assert len(layout.files) == 2
    assert layout.container is not None
    [(_, _, value), _] = layout.container.scan(layout.files[0])
    assert value == {"question": "a?", "answer": "b"}
    DatasetDict(train=some, val=some).save_to_disk(str(tmp_path / "two"))
    assert sorted(lay(tmp_path / "two").splits.values()) == ["train", "validation"]
    (tmp_path / "two" / "val" / "state.json").unlink()
    with pytest.raises(UserError, match="two/val: is missing or not whole"):
        lay(tmp_path / "two")


def test_a_folder_with_metadata(tmp_path: Path) -> None:
    put(tmp_path, "train/metadata.csv", "test/metadata.csv", text="file_name,text\n")
    layout = lay(tmp_path)
    assert layout.dialect == "folder"
    assert split_names(layout, tmp_path) == {
        "test/metadata.csv": "test",
        "train/metadata.csv": "train",
    }
    put(tmp_path / "plain", "metadata.jsonl", "data.json")
    assert names(lay(tmp_path / "plain"), tmp_path / "plain") == ["metadata.jsonl"]


def test_common_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "client_id\tpath\tsentence\n1\ta.mp3\tHello.\n"
    put(tmp_path, "train.tsv", "test.tsv", "validated.tsv", text=rows)
    put(tmp_path, "dev.tsv", text="client_id\tpath\tsentence\n")
    put(tmp_path, "clips/a.mp3")
    layout = lay(tmp_path)
    assert split_names(layout, tmp_path) == {"train.tsv": "train", "test.tsv": "test"}
    told = capsys.readouterr().err
    assert "dev.tsv: has no rows and is passed over" in told
    assert "train.tsv, test.tsv is read; dev.tsv, validated.tsv is passed over" in told
    (tmp_path / "train.tsv").unlink()
    (tmp_path / "test.tsv").unlink()
    assert names(lay(tmp_path), tmp_path) == ["validated.tsv"]


def test_librispeech(tmp_path: Path) -> None:
    files = ["dev-clean/1/2/1-2.trans.txt", "train-clean-100/3/4/3-4.trans.txt"]
    put(tmp_path / "LibriSpeech", *files, text="1-2-0000 HELLO")
    layout = lay(tmp_path)
    assert (layout.dialect, layout.container and layout.container.name) == ("librispeech", "lines")
    assert list(layout.splits.values()) == ["validation", "train"]
    alone = lay(tmp_path / "LibriSpeech" / "dev-clean")
    assert list(alone.splits.values()) == ["validation"]


def test_media_without_a_list(tmp_path: Path) -> None:
    put(tmp_path / "digits", "recordings/1_a.wav", "recordings/2_a.wav", "NOTE.md")
    layout = lay(tmp_path / "digits")
    assert names(layout, tmp_path) == ["digits/recordings"]
    assert layout.media_dir == str(tmp_path / "digits" / "recordings")
    assert layout.container is not None
    values = [value for _, _, value in layout.container.scan(layout.files[0])]
    assert values == [{"file": "1_a.wav", "label": ""}, {"file": "2_a.wav", "label": ""}]
    put(tmp_path / "cloth", "train/good/a.png", "test/good/a.png", "test/bad/.hidden.png")
    layout = lay(tmp_path / "cloth")
    assert split_names(layout, tmp_path / "cloth") == {"train": "train", "test": "test"}
    assert layout.container is not None
    values = [value for _, _, value in layout.container.scan(layout.files[0])]
    assert values[0] == {"file": "test/good/a.png", "label": "good"}
    assert len(values) == 2


def test_a_text_beside_media(tmp_path: Path) -> None:
    put(tmp_path, "sounds/a.wav", "README.md")
    put(tmp_path, "words.txt", text="; comment\na: Hello there.\n")
    put(tmp_path, "LICENSE.txt", text="All of this is free.\n")
    layout = lay(tmp_path)
    assert names(layout, tmp_path) == ["words.txt"]
    put(tmp_path, "more.txt", text="b: Good bye.\n")
    with pytest.raises(UserError, match=r"several lists \(more.txt, words.txt\); name one"):
        lay(tmp_path)


def test_a_folder_of_nothing_is_named(tmp_path: Path) -> None:
    put(tmp_path, "config.json")
    put(tmp_path, "notes.txt", text="Nothing is here.")
    with pytest.raises(UserError, match=r"holds no file of records \(.*\.json, .*and no media"):
        lay(tmp_path)


def test_a_data_set_of_the_hub_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for given in ("nobody/nothing", "nobody/nothing@main:train", "hf://datasets/nobody/nothing"):
        with pytest.raises(UserError) as error:
            lay(given)
        assert str(error.value).startswith(f"{given}: no such file or folder, and the Hugging Face")
        assert "hf download --repo-type dataset nobody/nothing" in str(error.value)
        assert "\n" not in str(error.value)


def test_media_are_looked_for_above_and_in_the_usual_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "lists" / "en").mkdir(parents=True)
    write_image(tmp_path / "images" / "a.png")
    file = tmp_path / "lists" / "en" / "list.json"
    found = find_media_dir(file, [file.parent / "gone.png", file.parent / "a.png"], "mine")
    assert found == str(tmp_path / "images")
    assert f"they are taken from {tmp_path / 'images'}" in capsys.readouterr().err
    inside = file.parent / "images" / "a.png"
    assert find_media_dir(file, [inside], "mine") == str(tmp_path)
    assert find_media_dir(file, [file.parent / "gone.png"], "mine") == ""
    (tmp_path / "lists" / "en" / "some" / "folder").mkdir(parents=True)
    write_image(tmp_path / "lists" / "en" / "some" / "folder" / "b.png")
    found = find_media_dir(file, [file.parent / "b.png"], "mine")
    assert found == str(tmp_path / "lists" / "en" / "some" / "folder")
    assert find_media_dir(tmp_path / "images" / "x.json", [tmp_path / "images" / "a.png"], "") == ""
