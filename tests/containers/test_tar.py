"""Shards: the files of a sample are found together, by name, wherever they lie in folders."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from omnitune.containers.address import complete, parse, read_stored
from omnitune.containers.registry import container_of
from omnitune.sample import UserError

LONG = "a/very/long/name/" * 12


def write(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo, form: int = 2) -> Path:
    with tarfile.open(path, "w", format=form) as shard:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                shard.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            shard.addfile(info, io.BytesIO(member[1]))
    return path


def values(path: Path) -> list[Any]:
    """The samples, each found again at its place, and each of its media at its address."""
    container = container_of(path)
    found = list(container.scan(path))
    for start, length, value in reversed(found):
        assert container.value(container.content(path, start, length)) == value
        for key, part in value.items():
            if isinstance(part, str) and part.startswith("::/"):
                address = parse(complete(part, path, start, length))
                assert address is not None
                assert read_stored(address, "file") == f"{value['__key__']} {key}".encode()
    return [value for _, _, value in found]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples(tmp_path: Path, form: int) -> None:
    long = LONG if form != tarfile.USTAR_FORMAT else ""
    members = [
        ("./x.v1/000.PNG", b"x.v1/000 png"),
        ("./x.v1/000.seg.png", b"x.v1/000 seg.png"),
        ("./x.v1/000.txt", "ü".encode()),
        ("./x.v1/000.json", b'{"a": [1]}'),
        ("./x.v1/.DS_Store", b"?"),
        ("./README", b"?"),
        (f"{long}x/001.cls", b"7"),
        (f"{long}x/001.png", f"{long}x/001 png".encode()),
    ]
    folder = tarfile.TarInfo("./x.v1")
    folder.type = tarfile.DIRTYPE
    assert values(write(tmp_path / "a.tar", folder, *members, form=form)) == [
        {
            "__key__": "x.v1/000",
            "png": "::/png",
            "seg.png": "::/seg.png",
            "txt": "ü",
            "json": {"a": [1]},
        },
        {"__key__": f"{long}x/001", "cls": "7", "png": "::/png"},
    ]


def test_a_json_file_may_hold_a_medium(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ("0.json", b'{"sound": ["QUI="]}'))
    container = container_of(path)
    [(start, length, _)] = container.scan(path)
    assert container.stored(path, start, length, ["json", "sound", "0"]) == "QUI="


def link(kind: bytes) -> tarfile.TarInfo:
    found = tarfile.TarInfo("1.png")
    found.type, found.linkname = kind, "0.png"
    return found


PICTURE = ("0.png", b"0 png")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([PICTURE, ("1.png", b""), ("0.txt", b"")], "sample 0 do not lie next to each other"),
        ([PICTURE, ("0.PNG", b"")], "holds 0.PNG twice"),
        ([PICTURE, link(tarfile.SYMTYPE)], "1.png is a link, and only regular files are read"),
        ([PICTURE, link(tarfile.LNKTYPE)], "1.png is a link"),
        ([PICTURE, link(tarfile.CHRTYPE)], "1.png is no regular file"),
        ([PICTURE, ("1.json", b"{")], "1.json is not valid JSON"),
        ([PICTURE, ("1.txt", b"\xff")], "1.txt is not UTF-8 text"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, members: list[Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        values(write(tmp_path / "a.tar", *members))
    assert str(error.value).startswith(f"{tmp_path / 'a.tar'}: ")
    assert words in str(error.value)


def test_a_shard_that_is_cut_off_or_damaged_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", *((f"{n}.png", bytes(700)) for n in range(4)))
    whole = path.read_bytes()
    cut = [whole[:n] for n in (2000, 2300, 1536 + 100, 3 * 1536 + 600)]
    for content in [*cut, whole[:1600] + b"?" + whole[1601:], whole[:1536] + b"?" * 5000]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.tar: is no whole tar file \(.*, at byte \d+\)"):
            list(container_of(path).scan(path))
    path.write_bytes(whole[: 4 * 1536])  # many programs leave out the zeros at the end
    assert len(list(container_of(path).scan(path))) == 4
