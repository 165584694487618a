"""Media that lie in the records of other people's files: each is found, and can be opened."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnitune.data.reading import check_media, read_source
from omnitune.sample import Media
from omnitune.sources import Source

Values = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


def opened(path: Path) -> list[str]:
    """What the first sample shows, media as the keys of their addresses; all can be opened."""
    samples = read_source(None, Source("mine", path=str(path)))
    check_media(samples)
    parts = [part for message in samples[0].messages for part in message.parts]
    return [
        f"[{str(part.path).partition('::')[2].partition('/')[2]}]"
        if isinstance(part, Media)
        else part.text
        for part in parts
    ]


def asked(part: Values) -> Values:
    content = [part, {"type": "text", "text": "q"}]
    return {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]
    }


def data_uri(png: bytes) -> Values:
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    return asked({"type": "image_url", "image_url": {"url": url}})


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_a_data_uri_in_a_line(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(data_uri(png)) + "\n")
    assert opened(path) == ["[messages/0/content/0/image_url/url]", "q", "a"]


def test_a_data_uri_in_the_json_of_a_shard(tmp_path: Path, png: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.json", json.dumps(data_uri(png)).encode())])
    assert opened(path) == ["[json/messages/0/content/0/image_url/url]", "q", "a"]


def test_a_member_goes_before_the_path_that_its_json_names(tmp_path: Path, png: bytes) -> None:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    told = json.dumps({"image": "coco/1.png", "conversations": turns}).encode()
    path = write_tar(tmp_path / "a.tar", [("x/1.json", told), ("x/1.png", png)])
    assert opened(path) == ["[png]", "q", "a"]


def test_structs_of_bytes_in_parquet(tmp_path: Path, png: bytes) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    struct = {"bytes": png, "path": None}
    pair = {"user": "q", "assistant": "a", "source": "x"}
    for name, columns, shown in (
        ("rows", {"image": [struct], "caption": ["a"]}, ["[image/bytes]", "Describe the picture."]),
        ("texts", {"images": [[struct]], "texts": [[pair]]}, ["[images/0/bytes]", "q"]),
        ("trl", {**_column(asked({"type": "image"})), "images": [[struct]]}, ["[images/0/bytes]"]),
    ):
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(pa.table(columns), path)
        assert opened(path)[: len(shown)] == shown
        assert opened(path)[-1] == "a"


def _column(record: Values) -> dict[str, list[Any]]:
    """A record as a table of one row; Arrow wants one type of content."""
    for message in record["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    return {key: [value] for key, value in record.items()}
