"""An index that leaves out wrong records is that of the others, and says what it left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import omnitune.data.index as indexing
from omnitune.data.reading import DataPlace, read_available, read_source
from omnitune.data.samples import Samples
from omnitune.sample import UserError
from omnitune.sources import Source

WRONG: list[dict[str, Any]] = [{"answer": ""}, {"anser": "typo"}, {"task": "dancing"}]
CODES = ["empty-answer", "unknown-key", "unknown-task"]


def write(path: Path, faults: list[int | None]) -> Source:
    lines = []
    for n, fault in enumerate(faults):
        record = {"question": f"what is {n}?", "answer": f"it is number {n}"}
        lines.append(json.dumps(record | (WRONG[fault] if fault is not None else {})))
    path.write_text("\n".join(lines) + "\n")
    return Source("own", path=str(path), format="native")


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.none(), st.sampled_from(range(3))), min_size=1))
def test_it_is_the_index_of_the_others(
    tmp_path_factory: pytest.TempPathFactory, faults: list[int | None]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    right = [n for n, fault in enumerate(faults) if fault is None]
    source = write(folder / "own.jsonl", faults)
    if not right:
        with pytest.raises(UserError, match="every record"):
            read_source(None, source, leave_out=True)
        return
    held = read_source(None, source, leave_out=True)
    index = held.pieces[0][0].index
    assert [sample.messages[1].text for sample in held] == [f"it is number {n}" for n in right]
    assert [sample.number for sample in held] == list(range(len(right)))
    assert [held.pieces[0][0].place(n).within for n in range(len(right))] == right
    wrong = [n for n, fault in enumerate(faults) if fault is not None]
    assert index.wrong_W2.tolist() == [[0, n] for n in wrong]
    assert index.wrong == [CODES[fault] for fault in faults if fault is not None]
    assert len(index.told) == len(set(index.wrong))
    # What is set aside as validation is one of the others.
    assert all(0 <= n < len(right) for n in index.aside_A.tolist())


def test_a_kept_index_still_says_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(indexing, "KEEP_FROM", 0)
    source = write(tmp_path / "own.jsonl", [None, 0, None, 1, 1])
    place = DataPlace(None, {"own": source}, leave_out_wrong=True)

    def read() -> Samples:
        return read_available(place)["own"]

    first = read()
    monkeypatch.setattr(indexing, "build_index", lambda *a, **k: pytest.fail("indexed again"))
    again = read()
    assert list(again) == list(first)
    index = again.pieces[0][0].index
    assert index.wrong == ["empty-answer", "unknown-key", "unknown-key"]
    monkeypatch.undo()
    with pytest.raises(UserError, match="unknown key"):
        read_source(None, source)  # whoever does not leave out is not given that index


def test_media_of_left_out_records_alone_are_not_shown(tmp_path: Path) -> None:
    records = [{"image": name, "question": "q", "answer": "a"} for name in ("a", "b", "a", "c")]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    [(source, numbers)] = read_source(None, Source("own", path=str(path), format="native")).pieces
    kept = Samples([(source.without([1]).without([2]), numbers)])
    assert [medium.path.name for medium, _ in kept.media()] == ["a", "c"]
    assert kept.pieces[0][0].left_out.tolist() == [1, 2]  # type: ignore[union-attr]
    assert source.showing([0]).tolist() == [0, 2]
