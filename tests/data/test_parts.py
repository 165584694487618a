"""Files that are read in parts, by several processes, give the index of one that reads all."""

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import omnitune.data.forks as forking
import omnitune.data.index as indexing
import omnitune.data.parts as parts
from omnitune.data.forks import forked
from omnitune.data.index import Index, build_index
from omnitune.data.parts import SILENT
from omnitune.data.reading import indexing_of, locate_source, read_source
from omnitune.sample import UserError
from omnitune.sources import Source

# What a line may be: right in several ways, wrong, no JSON, nothing.
LINES = (
    '{"question": "who?", "answer": "me, #"}',
    '{"image": "#.png", "question": "what?", "answer": "it is #", "split": "train"}',
    '{"image": ["1.png", "#.png"], "question": "which?", "answer": "#", "split": "test"}',
    '{"image": "#.png", "answer": "a question is drawn"}',
    '{"qa": [{"question": "#?", "answer": "yes"}, {"question": "#?", "answer": "no"}]}',
    '{"question": "#?", "answer": "a", "task": "text", "difficulty": 0.5}',
)
FAULTS = ('{"question": "#?", "answer": ""}', '{"answer": "a", "anser": "#"}', "[#", '"#"', "")
SMALL = {"KEEP_FROM": 0, "BAR_FROM": 0}


def write(folder: Path, files: list[list[str]]) -> Source:
    folder.mkdir(exist_ok=True)
    for number, lines in enumerate(files):
        told = [line.replace("#", str(k % 4)) for k, line in enumerate(lines)]
        (folder / f"{number}.jsonl").write_text("\n".join(told), encoding="utf-8")
    return Source("own", path=str(folder), format="native", prompts=("one", "two words"))


def same(one: Index, other: Index) -> None:
    for name in vars(one):
        a, b = getattr(one, name), getattr(other, name)
        assert np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b, name


def end(function: Any) -> Any:
    """What a function returns, or the sentence that it ends in."""
    try:
        return function()
    except UserError as error:
        return str(error)


lines = st.lists(st.sampled_from(LINES), max_size=8)
wrong = st.lists(st.sampled_from(LINES * 3 + FAULTS), max_size=8)


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(files=st.lists(st.one_of(lines, wrong), min_size=1, max_size=3), leave_out=st.booleans())
def test_however_the_files_are_cut(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], leave_out: bool
) -> None:
    source = write(tmp_path_factory.mktemp("data"), files)
    try:
        located = locate_source(None, source)
    except UserError:
        return  # there is no record
    one = indexing_of(located, leave_out)
    lenient = SILENT if leave_out else None
    whole = end(lambda: build_index(one.files, one.folder.name, one.parse, lenient=lenient))
    for size in (1, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "PART", size)
            found = end(lambda: one.of_parts(map(one.read, one.pieces())))
        if isinstance(whole, str):
            assert found == whole
        else:
            same(found, whole)


def test_several_processes_give_the_index_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    for name, value in SMALL.items():
        monkeypatch.setattr(indexing, name, value)
    monkeypatch.setattr(parts, "PART", 300)
    source = write(tmp_path / "data", [list(LINES) * 5, list(LINES)])
    monkeypatch.setattr(forking, "usable_cores", lambda: 1)
    one = indexing_of(locate_source(None, source), False)
    whole = build_index(one.files, one.folder.name, one.parse)
    monkeypatch.setattr(forking, "usable_cores", lambda: 3)
    same(read_source(None, source).pieces[0][0].index, whole)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("wanted", [RuntimeError, UserError])
def test_what_goes_wrong_in_a_process_is_raised_here(
    wanted: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "usable_cores", lambda: 2)

    def work(number: int) -> int:
        signal.raise_signal(signal.SIGUSR1)  # to the whole group: the other process's affair
        if number == 3:
            raise wanted("three")
        return number**2

    found = forked(work, range(8))
    assert [next(found) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(wanted, match="three"):
        next(found)
    assert not multiprocessing.active_children()


def test_row_groups_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"question": f"{n}?", "answer": "yes " * (n % 3 + 1)} for n in range(23)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own.parquet", row_group_size=5)
    one = indexing_of(locate_source(None, Source("own", path=str(tmp_path / "own.parquet"))), False)
    monkeypatch.setattr(parts, "PART", 1)
    pieces = one.pieces()
    assert [piece.stretch.records for piece in pieces] == [0, 5, 10, 15, 20]
    same(one.of_parts(map(one.read, pieces)), build_index(one.files, one.folder.name, one.parse))


def test_a_broken_line_costs_itself_only(tmp_path: Path) -> None:
    records = [{"question": f"{n}?", "answer": f"{n}"} for n in range(6)]
    told = [json.dumps(record) for record in records]
    told[0] = told[3] = '{"question": "cut'
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(told))
    source = Source("own", path=str(path))
    with pytest.raises(UserError, match="line 1"):
        read_source(None, source)
    held = read_source(None, source, leave_out=True)
    assert [sample.messages[1].text for sample in held] == ["1", "2", "4", "5"]
    index = held.pieces[0][0].index
    assert (index.wrong, index.wrong_W2.tolist()) == (["broken-line"] * 2, [[0, 0], [0, 3]])
    assert "line 1" in index.told[0]
