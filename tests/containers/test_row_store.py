"""Row groups of Parquet in random order: decoded once, equal bytes, bounded, shared, checked."""

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnitune.containers import cache, notes, parquet, row_store
from omnitune.containers.parquet import ParquetContainer
from omnitune.sample import UserError

MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS, GROUP = 30, 10


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    notes.note.cache_clear()
    return tmp_path / "cache" / row_store.FOLDER


def shard(path: Path, size: int = 2000, seed: int = 0) -> list[bytes]:
    draw = random.Random(seed)
    held = [draw.randbytes(size + n) for n in range(ROWS)]
    images = pa.array([{"bytes": b, "path": f"{n}.png"} for n, b in enumerate(held)], MEDIUM)
    table = pa.table({"n": list(range(ROWS)), "image": images, "sound": held})
    pq.write_table(table, path, row_group_size=GROUP)
    return held


def read(path: Path, order: list[int], column: str = "image") -> list[bytes]:
    container = ParquetContainer()
    return [container.stored(path, n // GROUP, n % GROUP, [column, "bytes"]) for n in order]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix not in cache.BESIDE]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is decoded, once for each time."""
    found: list[Any] = []
    for name in ("iter_batches", "read_row_group"):
        method = getattr(pq.ParquetFile, name)

        def watched(file: pq.ParquetFile, *given: Any, method: Any = method, **more: Any) -> Any:
            found.append((given, more))
            return method(file, *given, **more)

        monkeypatch.setattr(pq.ParquetFile, name, watched)
    return found


def test_rows_in_random_order_are_equal_and_each_group_is_decoded_once(
    tmp_path: Path, decoded: list[Any], folder: Path
) -> None:
    path = tmp_path / "a.parquet"
    held = shard(path)
    order = random.Random(1).choices(range(ROWS), k=200)
    for column in ("image", "sound"):
        assert read(path, order, column) == [held[n] for n in order]
    assert len(decoded) == 2 * ROWS / GROUP
    read(path, order)  # another process would find them too
    assert len(decoded) == len(files(folder)) == 2 * ROWS / GROUP


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_type_comes_back_as_it_is_decoded(tmp_path: Path, data: st.DataObject) -> None:
    binary = st.binary(max_size=9)
    medium = st.fixed_dictionaries({"bytes": st.none() | binary, "path": st.none() | st.text()})
    kinds: list[tuple[Any, Any]] = [
        (pa.binary(), binary),
        (MEDIUM, medium),
        (pa.list_(MEDIUM), st.lists(medium, max_size=3)),
        (pa.list_(pa.binary()), st.lists(binary, max_size=3)),
        (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", "y"])),
        (pa.string(), st.text()),
    ]
    kind, values = data.draw(st.sampled_from(kinds))
    rows = data.draw(st.lists(st.none() | values, min_size=1, max_size=7))
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
    try:
        pq.write_table(pa.table({"x": pa.array(rows, kind)}), path, row_group_size=3)
    except (UnicodeEncodeError, pa.ArrowException):
        return
    container = ParquetContainer()
    for n in data.draw(st.permutations(range(len(rows)))):
        assert container.stored(path, n // 3, n % 3, ["x"]) == rows[n]


def test_the_folder_stays_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, decoded: list[Any]
) -> None:
    """Files in use stay where there is no room; a file that nobody used goes for another."""
    path = tmp_path / "a.parquet"
    held = shard(path)
    monkeypatch.setenv("OMNITUNE_CACHE_GB", str(50_000 / 1e9))  # two groups of three
    order = [0, 10, 20, 21, 1, 11]
    assert read(path, order) == [held[n] for n in order]
    assert sum(file.stat().st_size for file in files(folder)) <= 50_000
    assert len(files(folder)) == 2
    for file in files(folder):
        os.utime(file, (0, file.stat().st_mtime))
    before = files(folder)
    assert read(path, [20]) == [held[20]]
    assert len(files(folder)) == 2
    assert files(folder) != before
    monkeypatch.setenv("OMNITUNE_CACHE_GB", "much")
    with pytest.raises(UserError, match="OMNITUNE_CACHE_GB is 'much', expected a number of GB"):
        read(path, [0])


@pytest.mark.parametrize("trouble", ["full", "read-only", "no room is left"])
def test_without_room_on_the_disk_groups_are_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    trouble: str,
) -> None:
    path = tmp_path / "a.parquet"
    held = shard(path)
    if trouble == "full":

        def fail(*given: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(row_store, "_write_rows", fail)
    elif trouble == "read-only":
        folder.parent.write_text("a file in place of the folder")
    else:
        monkeypatch.setattr(row_store, "LEFT_FREE", 1 << 62)
    order = [3, 17, 4]
    assert read(path, order) == [held[n] for n in order]
    assert files(folder) == []
    assert not list(folder.rglob("*.tmp"))
    said = capsys.readouterr().err
    assert said.count("no more rows are kept") == 1
    assert "OMNITUNE_CACHE" in said


def _read_in_a_process(path: Path, seed: int, pipe: Any) -> None:
    decodings = []
    iterate = pq.ParquetFile.iter_batches

    def watched(*given: Any, **more: Any) -> Any:
        decodings.append(1)
        time.sleep(0.05)  # so that they meet
        return iterate(*given, **more)

    pq.ParquetFile.iter_batches = watched
    order = random.Random(seed).choices(range(ROWS), k=60)
    pipe.send((order, read(path, order), len(decodings)))
    os._exit(0)


def test_two_processes_at_once_share_what_each_decodes(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.parquet"
    held = shard(path)
    context = multiprocessing.get_context("fork")
    pipes = []
    for seed in range(2):
        ours, theirs = context.Pipe(False)
        context.Process(target=_read_in_a_process, args=(path, seed, theirs)).start()
        pipes.append(ours)
    found = [pipe.recv() for pipe in pipes]
    for order, rows, _ in found:
        assert rows == [held[n] for n in order]
    assert sum(count for _, _, count in found) == len(files(folder)) == ROWS / GROUP


def test_damage_anywhere_is_noticed_and_mended(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.parquet"
    held = shard(path, size=40)
    read(path, [0])
    [file] = files(folder)
    whole = file.read_bytes()
    draw = random.Random(0)
    damaged = [whole[:n] for n in (0, 3, 20, 300, len(whole) // 2, len(whole) - 1)]
    for at in draw.sample(range(len(whole)), 20):
        damaged.append(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
    for content in damaged:
        file.write_bytes(content)
        assert read(path, list(range(GROUP))) == held[:GROUP]
        assert file.read_bytes() == whole
    assert "a file of the cache is damaged" in capsys.readouterr().err


def test_a_changed_file_is_decoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    held = shard(path)
    assert read(path, [5]) == [held[5]]
    os.utime(path, (1, 1))
    assert read(path, [5]) == [held[5]]
    other = shard(path, seed=1)
    assert read(path, [5]) == [other[5]] != [held[5]]


def test_rows_and_columns_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    shard(path)
    container = ParquetContainer()
    for _ in range(2):  # before and after the group lies in the cache
        for group, row, column in ((3, 0, "image"), (0, GROUP, "image"), (0, 0, "other")):
            with pytest.raises(LookupError):
                container.stored(path, group, row, [column, "bytes"])
        container.stored(path, 0, 0, ["image", "bytes"])


def test_a_file_that_lies_about_its_rows_ends_in_a_sentence_or_its_rows(
    tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "a.parquet"
    held = shard(path)
    whole = bytearray(path.read_bytes())
    whole[40:1000] = bytes(960)
    path.write_bytes(whole)
    try:
        found = read(path, [0])
    except UserError as error:
        found = [str(error).encode()]
    assert found == [held[0]] or b"not whole" in found[0]
    assert not list(folder.rglob("*.tmp"))


def test_a_damaged_file_is_no_fault_of_the_cache(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = tmp_path / "bad.parquet", tmp_path / "good.parquet"
    held = shard(good)
    shard(bad)
    content = bytearray(bad.read_bytes())
    content[4:2000] = bytes(1996)
    bad.write_bytes(content)
    container = ParquetContainer()
    with pytest.raises(UserError, match=r"bad\.parquet: is not Parquet, or not whole"):
        container.stored(bad, 0, 0, ["n"])
    assert container.stored(good, 0, 1, ["image", "bytes"]) == held[1]
    assert len(files(folder)) == 1
    assert "no more rows are kept" not in capsys.readouterr().err


def test_what_killed_processes_left_goes(tmp_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    old, new = folder / "a.1-1.tmp", folder / "b.1-1.tmp"
    for file in (old, new):
        file.write_text("half")
    os.utime(old, (0, 0))
    assert cache.trim(folder, 0) == 0
    assert not old.exists()
    assert new.exists()


def test_memory_does_not_hold_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group passes through in pieces, as far as its pages allow."""
    path = tmp_path / "a.parquet"
    images = pa.array([os.urandom(1 << 16)] * 320)
    pq.write_table(pa.table({"image": images}), path, use_dictionary=False, write_batch_size=8)
    monkeypatch.setattr(parquet, "AT_ONCE", 1 << 20)
    del images
    before, most = pa.total_allocated_bytes(), [0]
    write = row_store._write_rows

    def watched(file: Any, rows: int, batches: Any) -> None:
        def passed() -> Any:
            for batch in batches:
                most[0] = max(most[0], pa.total_allocated_bytes() - before)
                yield batch

        write(file, rows, passed())

    monkeypatch.setattr(row_store, "_write_rows", watched)
    assert len(ParquetContainer().stored(path, 0, 300, ["image", "bytes"])) == 1 << 16
    assert 0 < most[0] < 8 << 20
