"""Samples of an indexed file: the same as of a plain parse, also when the index is kept."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnitune.data import index as indexing
from omnitune.data import samples as reading_samples
from omnitune.data.index import Index, build_index, difficulties
from omnitune.data.reading import (
    all_task_counts,
    asking,
    join,
    media_of,
    read_available,
    read_source,
    split_of,
)
from omnitune.data.samples import Samples, first_shown
from omnitune.data.schema import Record
from omnitune.data.splits import by_content
from omnitune.media.registry import MEDIA
from omnitune.sample import Sample, UserError
from omnitune.sources import SOURCES
from omnitune.tasks import TASKS

SPLITS = ("train", "train", "validation", "test")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are indexed as large ones are."""
    monkeypatch.setattr(indexing, "KEEP_FROM", 0)


def some_records(source: str, count: int = 40) -> list[dict[str, Any]]:
    """Records of all forms and lengths, with and without a split."""
    draw = random.Random(source)
    found = []
    for n in range(count):
        qa = [{"question": f'"{n}" ü?', "answer": "x" * draw.randint(1, 50)}] * draw.randint(1, 3)
        turns = [{"role": r, "content": f"{n} {{]"} for r in ("user", "assistant") * 2]
        record: dict[str, Any] = {"qa": qa} if n % 3 else {"messages": turns}
        record |= {"split": SPLITS[n % 4]} if n % 5 else {}
        record |= {"id": f"{source}-{n}"} if n % 2 else {}
        if "image" in SOURCES[source].media:
            several = [f"{(n + k) % 7}.png" for k in range(1 + n % 3)]
            record |= {"image": several if n % 4 else several[0]}
            record |= {"kind": ("count", "caption")[n % 2]}
        if "audio" in SOURCES[source].media:
            record |= {"audio": f"{n % 5}.wav", "task": ("transcription", "qa")[n % 2]}
        found.append(record)
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for source in SOURCES:
        path = tmp_path / SOURCES[source].file
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(some_records(source), indent=1), encoding="utf-8")
    return tmp_path


def plainly(data: Path, source: str) -> list[Sample]:
    """The samples as a parse of the whole file gives them."""
    path = data / SOURCES[source].file
    values = json.loads(path.read_text(encoding="utf-8"))
    return [Record(path, source, n, record).sample() for n, record in enumerate(values)]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("source", list(SOURCES))
def test_indexed_samples_equal_a_plain_parse(
    data: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plainly(data, source)
    new = read_source(data, source)
    monkeypatch.setattr(indexing, "build_index", lambda *a: pytest.fail("indexed again"))
    for samples in (new, read_source(data, source)):
        assert list(samples) == [samples[n] for n in range(len(samples))] == expected
        assert (samples[-1], samples[3:9:2]) == (expected[-1], expected[3:9:2])
        with pytest.raises(IndexError):
            samples[len(expected)]
        for split in (*SPLITS, "other"):
            chosen = split_of(samples, split)
            assert list(chosen) == [s for s in expected if s.split == split]
            assert list(all_task_counts(chosen)) == [s.task_counts() for s in chosen]
            for judge in ("text".__eq__, "image_qa".__eq__):
                assert asking(chosen, judge).tolist() == asking(list(chosen), judge).tolist()
        assert samples.splits == {s.split for s in expected}
        assert list(media_of(samples)) == list(first_shown(expected))
        held_out = split_of(samples, "test")
        assert list(media_of(held_out)) == list(first_shown(list(held_out)))


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("source", list(SOURCES))
def test_difficulty_is_as_given_or_a_rank_by_effort(
    data: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / SOURCES[source].file
    values = json.loads(path.read_text(encoding="utf-8"))
    given = {n: n / 100 for n in range(0, 40, 4)}
    for n, difficulty in given.items():
        values[n]["difficulty"] = difficulty
    path.write_text(json.dumps(values), encoding="utf-8")
    new = read_source(data, source)
    monkeypatch.setattr(indexing, "build_index", lambda *a: pytest.fail("indexed again"))
    again = read_source(data, source)
    assert np.array_equal(new.difficulties(), again.difficulties())
    found = dict(enumerate(new.difficulties().tolist()))
    assert {n: found[n] for n in given} == pytest.approx(given)
    ranked = sorted(found.keys() - given.keys(), key=lambda n: found[n])
    efforts = [new[n].length_score() for n in ranked]
    assert efforts == sorted(efforts)
    assert efforts[0] < efforts[-1]
    expected = [(n + 1) / len(ranked) for n in range(len(ranked))]
    assert [found[n] for n in ranked] == pytest.approx(expected)
    train = split_of(new, "train")
    assert train.difficulties().tolist() == [found[n] for n, s in enumerate(new) if s in train]


def test_equals_are_not_ranked_in_the_files_order() -> None:
    found = difficulties(np.full(200, np.nan), np.ones(200))
    assert sorted(found) == pytest.approx([(n + 1) / 200 for n in range(200)])
    assert 0.3 < found[:100].mean() < 0.7


def test_outline_is_what_alone_gives(data: Path) -> None:
    for sample in join(read_available(data).values()):
        answers = [[m for m in s.messages if m.role == "assistant"] for s in sample.split_turns()]
        expected = [(s.task, len(a)) for s, a in zip(sample.split_turns(), answers, strict=True)]
        assert sample.task_counts() == expected


def test_joined_sources_follow_each_other(data: Path) -> None:
    found = read_available(data)
    expected = [s for samples in found.values() for s in samples]
    joined = join(found.values())
    assert list(joined) == expected == [joined[n] for n in range(len(joined))]
    tests = split_of(joined, "test")
    assert [s.id for s in tests] == [s.id for s in expected if s.split == "test"]
    assert join([]) == join([]) or len(join([])) == 0


@pytest.mark.usefixtures("kept")
def test_changed_file_is_indexed_anew(data: Path) -> None:
    path = data / SOURCES["text_only"].file
    before = read_source(data, "text_only")
    others = json.loads(path.read_text())[::-1]
    path.write_text(json.dumps(others, indent=1))
    assert path.stat().st_size  # of the same size or not
    assert [s.messages for s in read_source(data, "text_only")] == [
        s.messages for s in plainly(data, "text_only")
    ]
    assert len(list((data / ".index").glob("text_only-*"))) == 1
    path.write_text("[]")
    with pytest.raises(UserError, match="record 3 is not where it was"):
        before[2]


@pytest.mark.parametrize("keep_from", [0, 1 << 30])
def test_records_that_change_places_are_noticed(
    data: Path, monkeypatch: pytest.MonkeyPatch, keep_from: int
) -> None:
    """Of equal length, so that each still lies where one was: but of another split."""
    monkeypatch.setattr(indexing, "KEEP_FROM", keep_from)
    path = data / SOURCES["text_only"].file
    pairs = [{"question": f"{n:03d}?", "answer": f"{n:03d}"} for n in range(20)]
    some = [pair | {"split": ("train", "extra")[n // 10]} for n, pair in enumerate(pairs)]
    path.write_text(json.dumps(some))
    train = split_of(read_source(data, "text_only"), "train")
    met = train[3]
    path.write_text(json.dumps(some[10:] + some[:10]))
    with pytest.raises(UserError, match=r"record 8 is not where it was: the file was changed"):
        train[7]
    assert train[3] == met
    path.write_text(json.dumps(some))
    assert train[7].messages[1].text == "007"


def test_a_file_that_changes_while_it_is_indexed_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / SOURCES["text_only"].file

    def changing(*given: Any, **more: Any) -> Index:
        found = build_index(*given, **more)
        path.write_text("[]")
        return found

    monkeypatch.setattr(indexing, "build_index", changing)
    with pytest.raises(UserError, match="was changed while it was read"):
        read_source(data, "text_only")


@pytest.mark.usefixtures("kept")
def test_what_is_set_aside_is_so_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data / SOURCES["text_only"].file
    some = ({"question": f"{n}?", "answer": "x"} for n in range(100))
    path.write_text(json.dumps([r for r in some if by_content(r) == "train"][:20]))
    new = read_source(data, "text_only")
    monkeypatch.setattr(indexing, "build_index", lambda *a: pytest.fail("indexed again"))
    again = read_source(data, "text_only")
    for samples in (new, again):
        assert [s.split for s in samples].count("validation") == 1
        assert [s.split for s in split_of(samples, "validation")] == ["validation"]
        assert {s.split for s in split_of(samples, "train")} == {"train"}
    assert list(new) == list(again)


@pytest.mark.usefixtures("kept")
def test_a_task_registered_later_is_in_the_index(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(all_task_counts(read_source(data, "image_text")))
    count = replace(TASKS["image_qa"], name="count", headline="", is_default=False)
    monkeypatch.setitem(TASKS, "count", count)
    after = list(all_task_counts(read_source(data, "image_text")))
    assert after == [s.task_counts() for s in plainly(data, "image_text")] != before


@pytest.mark.usefixtures("kept")
def test_a_source_or_medium_registered_anew_is_checked_anew(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / SOURCES["text_only"].file
    path.write_text(json.dumps([{"question": "<thermal>?", "answer": "a", "note": 1}] * 2))
    source = replace(SOURCES["text_only"], keys=("note",))
    monkeypatch.setitem(SOURCES, "text_only", source)
    assert len(read_source(data, "text_only")) == 2
    monkeypatch.setitem(SOURCES, "text_only", replace(source, keys=()))
    with pytest.raises(UserError, match='unknown key "note"'):
        read_source(data, "text_only")
    monkeypatch.setitem(SOURCES, "text_only", source)
    assert len(read_source(data, "text_only")) == 2
    thermal = type("Thermal", (type(MEDIA["image"]),), {"name": "thermal"})
    monkeypatch.setitem(MEDIA, "thermal", thermal())
    with pytest.raises(UserError, match="holds <thermal>"):
        read_source(data, "text_only")


@pytest.mark.usefixtures("kept")
def test_damaged_index_is_made_anew(data: Path) -> None:
    read_source(data, "text_only")
    (folder,) = (data / ".index").iterdir()
    (folder / "place_N4.npy").write_bytes(b"")
    assert list(read_source(data, "text_only")) == plainly(data, "text_only")
    assert list(read_source(data, "text_only")) == plainly(data, "text_only")


@pytest.mark.usefixtures("kept")
def test_folder_that_cannot_be_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / ".index").write_text("a file stands in the way")
    assert list(read_source(data, "text_only")) == plainly(data, "text_only")
    assert "the index cannot be kept" in capsys.readouterr().out


def test_small_file_leaves_no_index(data: Path) -> None:
    read_available(data)
    assert not (data / ".index").exists()


@pytest.mark.usefixtures("kept")
def test_wrong_record_leaves_no_index(data: Path) -> None:
    path = data / SOURCES["text_only"].file
    path.write_text(json.dumps([*some_records("text_only"), {"answer": 4}]))
    for _ in range(2):
        with pytest.raises(UserError, match="record 41: "):
            read_source(data, "text_only")


def test_records_know_the_media_that_they_show(data: Path) -> None:
    for samples in read_available(data).values():
        [(source, _)] = samples.pieces
        index, media = source.index, [medium for medium, _ in samples.media()]
        for number, sample in enumerate(samples):
            shown = index.shown_R[index.show_N[number] : index.show_N[number + 1]]
            assert tuple(media[place] for place in shown) == sample.media


def test_what_is_left_out_is_in_no_split(data: Path) -> None:
    [(source, numbers)] = read_source(data, "text_only").pieces
    fewer = Samples([(source.without([0, 5, 7]), numbers)])
    for split in SPLITS:
        expected = [s for n, s in enumerate(fewer) if s.split == split and n not in (0, 5, 7)]
        assert list(split_of(fewer, split)) == expected
    assert len(fewer) == len(numbers)


@pytest.mark.usefixtures("kept")
def test_very_many_media_have_a_key(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = join(read_available(data).values())
    assert samples.media_key is None
    monkeypatch.setattr(reading_samples, "MANY_MEDIA", 3)
    assert samples.media_key
    assert split_of(samples, "test").media_key is None
