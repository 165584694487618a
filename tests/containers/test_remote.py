"""Remote files: fetched once, beside each other, and nothing that is not asked for."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from helpers import write_image

from omnitune.containers import remote
from omnitune.containers.cache import cache_folder, trim
from omnitune.containers.remote import address_at, address_of, ensure, fetch_ahead, place_of
from omnitune.data.reading import DataPlace, read_available
from omnitune.data.sources.layouts import layout_of
from omnitune.media.base import open_file
from omnitune.sample import UserError
from omnitune.sources import Source

RECORDS = [{"image": f"images/{n}.png", "question": "?", "answer": f"{n}"} for n in range(3)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


class Web:
    """A server of a folder, and how often each file of it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, Counter[str]()
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked[self.path] += 1
                if self.path.endswith("busy.txt") and asked[self.path] < 3:
                    self.send_error(503)
                    return
                super().do_GET()

            def log_message(self, *given: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    folder = tmp_path / "served"
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "data" / "list.jsonl").write_text(LINES)
    for n in range(3):
        write_image(folder / "data" / "images" / f"{n}.png", seed=n)
    found = Web(folder)
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(
    "address",
    ["https://host:80/a/b c.jsonl", "s3://bucket/a%b.tar", "hf://datasets/a/b/c.parquet"],
)
def test_an_address_is_known_again_from_its_place(address: str) -> None:
    assert address_of(address) == address_of(Path(address)) == address
    assert address_at(place_of(address)) == address


@pytest.mark.parametrize("text", ["a/b.jsonl", "C:/a.jsonl", "/a/b", "what://a/b", "s3:"])
def test_other_paths_are_no_addresses(text: str, tmp_path: Path) -> None:
    assert address_of(text) == address_at(Path(text)) == address_at(tmp_path / text) == ""


def test_a_place_never_leaves_the_folder() -> None:
    with pytest.raises(UserError, match=r"expected an address without \. and \.\."):
        place_of("https://host/../../x")
    folder = cache_folder("remote")
    assert address_at(folder / "https" / "host" / ".." / ".." / ".." / "x") == ""
    assert address_at(folder / "https" / "a" / ".." / "b" / "x") == "https://b/x"
    assert address_at(folder / "file" / "etc" / "passwd") == ""


def test_a_remote_list_with_its_media(web: Web) -> None:
    data = DataPlace.of(Path(f"{web.address}/data/list.jsonl"))
    [samples] = read_available(data).values()
    assert [sample.messages[-1].text for sample in samples] == ["0", "1", "2"]
    assert list(web.asked) == ["/data/list.jsonl"]
    paths = [medium.path for sample in samples for medium in sample.media]
    for _ in range(2):
        with open_file(paths[0], "image file") as file:
            assert file.read() == (web.folder / "data" / "images" / "0.png").read_bytes()
    for waiting in fetch_ahead([*paths, *paths]):
        waiting.result()
    assert all(path.exists() for path in paths)
    assert set(web.asked.values()) == {1}
    place_of(f"{web.address}/data/list.jsonl").unlink()  # trimmed while it is in use
    samples.pieces[0][0].sample.cache_clear()
    assert samples[1].messages[-1].text == "1"


def test_a_file_has_the_same_time_whenever_it_is_fetched(web: Web) -> None:
    path = place_of(f"{web.address}/data/list.jsonl")
    before = ensure(path).stat().st_mtime_ns
    path.unlink()
    assert ensure(path).stat().st_mtime_ns == before


def test_what_cannot_be_had_is_named(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{web.address}/data/none.jsonl"
    with pytest.raises(UserError) as error:
        layout_of(Source("mine", path=address))
    assert str(error.value).startswith(f"{address}: cannot be fetched (HTTP Error 404")
    assert web.asked["/data/none.jsonl"] == 1
    assert not [path for path in cache_folder("remote").rglob("*") if path.is_file()]
    (web.folder / "busy.txt").write_text("now")
    assert ensure(place_of(f"{web.address}/busy.txt")).read_text() == "now"
    with pytest.raises(UserError, match="need another package"):
        layout_of(Source("mine", path="gcs://bucket/a.jsonl"))


def test_folders_and_patterns_of_a_file_system() -> None:
    files = fsspec.filesystem("memory")
    for name in ("train-0.jsonl", "train-1.jsonl", "test-0.jsonl", "images/0.png"):
        files.pipe(f"/mine/{name}", LINES.encode())
    try:
        found = layout_of(Source("mine", path="memory://mine"))
        names = [path.name for path in found.files]
        assert names == ["test-0.jsonl", "train-0.jsonl", "train-1.jsonl"]
        assert sorted(found.splits.values()) == ["test", "train", "train"]
        for pattern in ("memory://mine/train-*.jsonl", "memory://mine/train-{0..1}.jsonl"):
            assert [p.name for p in layout_of(Source("mine", path=pattern)).files] == names[1:]
        assert not place_of("memory://mine/images/0.png").exists()
        with pytest.raises(UserError, match="no file of records is there"):
            layout_of(Source("mine", path="memory://mine/dev-*.jsonl"))
    finally:
        files.rm("/mine", recursive=True)


def test_the_cache_is_bounded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TRIM_EVERY", 1)
    monkeypatch.setenv("OMNITUNE_CACHE_GB", "1e-9")
    paths = [place_of(f"{web.address}/data/images/{n}.png") for n in range(3)]
    for path in paths:
        ensure(path)
    assert [path.exists() for path in paths] == [False, False, True]
    trim(cache_folder("remote"), 0)
    assert not paths[2].exists()
