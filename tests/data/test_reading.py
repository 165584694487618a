"""Reading the files of sources: their splits, and what is said where one is missing or wrong."""

import json
import os
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers import read_records as read
from helpers import write_image, write_wave
from helpers import write_source as write

from omnitune.data import faults
from omnitune.data.reading import (
    DataPlace,
    check_media,
    data_files,
    read_available,
    read_source,
    read_sources,
    split_of,
)
from omnitune.data.remarks import remarks
from omnitune.data.sources.finding import Found, find_files
from omnitune.data.splits import by_content
from omnitune.sample import UserError
from omnitune.sources import SOURCES, Source

GOOD = {"question": "a?", "answer": "b"}


def plain(n: int) -> dict[str, str]:
    return {"question": f"what is number {n}?", "answer": str(n)}


def test_missing_split_is_hashed_stably(tmp_path: Path) -> None:
    records = [plain(n) for n in range(6000)]
    before = {s.messages[0].text: s.split for s in read(tmp_path, "text_only", *records)}
    assert set(before.values()) == {"train", "validation"}
    share = list(before.values()).count("validation") / len(records)
    assert 0.04 < share < 0.06  # 3.5 standard deviations
    random.Random(0).shuffle(records)
    records = [dict(reversed(record.items())) for record in records[:3000]]
    after = {s.messages[0].text: s.split for s in read(tmp_path, "text_only", *records)}
    assert after == {question: before[question] for question in after}


def test_given_split_is_kept(tmp_path: Path) -> None:
    records = [plain(n) | {"split": ("train", "test", "odd one")[n % 3]} for n in range(9)]
    samples = read(tmp_path, "text_only", *records)
    assert [s.split for s in samples] == ["train", "test", "odd one"] * 3
    assert [s.id for s in split_of(samples, "test")] == [f"text_only/{n}" for n in (1, 4, 7)]


def test_several_wrong_records_are_told_at_once(tmp_path: Path) -> None:
    bad = [GOOD if n % 3 == 0 else {"answer": n} for n in range(12)]
    with pytest.raises(UserError) as error:
        read(tmp_path, "text_only", *bad)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{tmp_path / SOURCES['text_only'].file}: record 2: ")
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        f"record {n}" for n in (3, 5, 6, 8)
    ]
    assert lines[5:] == ["  and 3 more"]


def test_wrong_records_are_not_counted_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "COUNTED", 8)
    with pytest.raises(UserError, match="and at least 3 more"):
        read(tmp_path, "text_only", *[{"answer": 4}] * 100)


def test_what_is_wrong_with_several_sources_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "text_only", [{"answer": 4}])
    write(tmp_path, "image_text", [GOOD])
    with pytest.raises(UserError) as error:
        read_available(tmp_path)
    assert SOURCES["text_only"].file in str(error.value)
    assert SOURCES["image_text"].file in str(error.value)


def small(count: int, **rest: Any) -> list[dict[str, Any]]:
    """Records without a split, none of which falls to validation by its hash."""
    every = ({"question": f"what is {n}?", "answer": str(n), **rest} for n in range(1000))
    return list(islice((r for r in every if by_content(r) == "train"), count))


def test_one_record_of_a_small_file_is_set_aside(tmp_path: Path) -> None:
    records = small(30)
    samples = read(tmp_path, "text_only", *records)
    [aside] = split_of(samples, "validation")
    assert len(split_of(samples, "train")) == 29
    [remark] = remarks([samples])
    assert f"record {aside.number + 1} (text_only/{aside.number}) was set aside" in remark
    random.Random(0).shuffle(records)
    [same] = split_of(read(tmp_path, "text_only", *records), "validation")
    assert same.messages == aside.messages


@pytest.mark.parametrize(
    "others",
    [
        [GOOD | {"split": "validation"}],
        [GOOD | {"split": "dev"}],
    ],
)
def test_nothing_is_set_aside_where_something_is_held_out_for_it(
    tmp_path: Path, others: list[dict[str, Any]]
) -> None:
    samples = read(tmp_path, "text_only", *small(9), *others)
    assert len(split_of(samples, "train")) == 9
    assert [r for r in remarks([samples]) if "set aside" in r] == []


def test_nothing_is_set_aside_of_what_names_its_split_or_is_alone(tmp_path: Path) -> None:
    for records in (small(9, split="train"), small(1), [*small(1), GOOD | {"split": "test"}]):
        samples = read(tmp_path, "text_only", *records)
        assert not split_of(samples, "validation")
        assert remarks([samples]) == []


def test_names_like_slips_are_remarked_on(tmp_path: Path) -> None:
    names = ("train", "validation", "val", "test", "test_composition", "trian", "mine", "Dev")
    samples = read(tmp_path, "text_only", *(GOOD | {"split": name} for name in names))
    told = "\n".join(remarks([samples]))
    for slip, meant in (("val", "validation"), ("Dev", "validation"), ("trian", "train")):
        assert f'the split "{slip}" is held out under a name of its own; if "{meant}"' in told
    assert told.count("\n") == 2
    with pytest.raises(UserError, match='splits "mine" and "Mine" differ by case alone'):
        read(tmp_path, "text_only", *(GOOD | {"split": s} for s in ("train", "mine", "Mine")))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, "text_only", "")
    path.write_text(json.dumps([GOOD] * 3), encoding="utf-8-sig")
    assert [s.messages[0].text for s in read_source(tmp_path, "text_only")] == ["a?"] * 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "empty list"),
        ("{}", "holds a JSON object"),
        ('[{"answer": 1},', "not valid JSON"),
        ("", "is empty"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path, "text_only", content)
    with pytest.raises(UserError) as error:
        read_source(tmp_path, "text_only")
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"audio_qa\.json: no such file.*audio_text"):
        read_source(tmp_path, "audio_text")
    with pytest.raises(UserError, match="no such data folder"):
        read_available(tmp_path / "none")
    with pytest.raises(UserError, match="holds no file of records"):
        read_available(tmp_path)
    (tmp_path / "there.json").write_text("[]")
    with pytest.raises(UserError, match=r"no such file or folder; did you mean .*there\.json"):
        read_available(tmp_path / "thre.json")
    (tmp_path / "there.json").unlink()
    (tmp_path / "llava.json").write_text("[]")
    with pytest.raises(UserError, match=r"llava\.json: is empty; the source .* needs records"):
        read_available(tmp_path)
    os.mkfifo(write(tmp_path, "image_text", "").with_name("captions.json"))
    with pytest.raises(UserError, match="is no regular file"):
        read_source(tmp_path, "captions")
    path = tmp_path / SOURCES["audio_text"].file
    path.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_source(tmp_path, "audio_text")


def test_available_sources_only(tmp_path: Path) -> None:
    write(tmp_path, "text_only", [GOOD])
    write(tmp_path, "image_text", [GOOD | {"image": "a.png"}])
    found = read_available(tmp_path)
    assert list(found) == [s for s in SOURCES if s in ("text_only", "image_text")]
    assert [s.source for samples in found.values() for s in samples] == list(found)


def test_check_media_names_the_sample(tmp_path: Path) -> None:
    good, bad = GOOD | {"image": "good.png"}, GOOD | {"image": "bad.png", "id": "the-third"}
    samples = read(tmp_path, "image_text", good, good, bad)
    write_image(tmp_path / "images" / "good.png")
    check_media(samples[:2])
    with pytest.raises(UserError, match=r"sample the-third \(image_text\): .*bad\.png: no such"):
        check_media(samples)
    write_wave(tmp_path / "images" / "bad.wav").rename(tmp_path / "images" / "bad.png")
    with pytest.raises(UserError, match=r"the-third.*is not an image"):
        check_media(samples)


def test_a_source_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "a?", "answer": "b"}\n{"question": "c?", "answer": "d"}\n')
    looked_up: list[Source] = []

    def find(source: Source) -> Found:
        looked_up.append(source)
        return find_files(source)

    monkeypatch.setattr("omnitune.data.reading.find_files", find)
    place = DataPlace(None, {"own": Source("own", path=str(path))})
    assert list(data_files(place, ["own"])) == ["own"]
    [samples] = read_sources(place, {"own": ""}, {"own": "de"}).values()
    assert [source.name for source in looked_up] == ["own"]
    assert {sample.language for sample in samples} == {"de"}
