"""Files that are never half written, and damage that does not load silently."""

import json
import os
from pathlib import Path

import pytest
import torch

from omnitune import storage
from omnitune.sample import UserError
from omnitune.storage import (
    MANIFEST,
    edit_manifest,
    file_state,
    read_checkpoint,
    sha256,
    write_checkpoint,
    write_json,
    write_json_lines,
)

VALUES = {"weights": torch.arange(1000.0), "step": 3, "notes": {"a": [1, "b", None, True]}}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "part.pt"
    write_checkpoint(path, VALUES)
    found = read_checkpoint(path)
    assert torch.equal(found.pop("weights"), VALUES["weights"])
    assert found == {"step": 3, "notes": VALUES["notes"]}
    assert {p.name for p in path.parent.iterdir()} == {"part.pt", MANIFEST}


def test_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "part.pt"
    write_checkpoint(path, VALUES)
    whole = path.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"part\.pt: is damaged"):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert read_checkpoint(path)["step"] == 3


def test_cut_file_is_damaged_with_and_without_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "part.pt"
    write_checkpoint(path, VALUES)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("manifest", [None, "", "junk", "[]", "{}"])
def test_a_flipped_bit_is_noticed_without_a_manifest(tmp_path: Path, manifest: str | None) -> None:
    path = tmp_path / "part.pt"
    write_checkpoint(path, VALUES)
    (tmp_path / MANIFEST).unlink()
    if manifest is not None:
        (tmp_path / MANIFEST).write_text(manifest)
    assert read_checkpoint(path)["step"] == 3
    whole = path.read_bytes()
    place = whole.index(VALUES["weights"].numpy().tobytes()) + 1234  # type: ignore[attr-defined]
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(UserError, match=r"part\.pt: is damaged \(the checksum of its"):
        read_checkpoint(path)


def test_a_crash_between_file_and_manifest_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "part.pt"
    write_checkpoint(path, VALUES)
    edit = storage.edit_manifest

    def crash(folder: Path, name: str, digest: str | None) -> None:
        if digest is not None:
            raise KeyboardInterrupt
        edit(folder, name, digest)

    monkeypatch.setattr(storage, "edit_manifest", crash)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, VALUES | {"step": 4})
    assert read_checkpoint(path)["step"] == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "part.pt"
    write_checkpoint(path, {"model": {"layer": [torch.ones(3), torch.tensor([1.0, value])]}})
    with pytest.raises(UserError, match=r"part\.pt: its model\.layer holds values that are not"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x04K\x01."])
def test_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "part.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"part\.pt"):
        read_checkpoint(path)


def test_checkpoint_that_holds_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "part.pt"
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds a list"):
        read_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "part.pt"
    torch.save({"trap": Trap()}, path)
    with pytest.raises(UserError):
        read_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_checkpoint_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint; make it with `omnitune corpus`"):
        read_checkpoint(tmp_path / "part.pt", "omnitune corpus")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part.pt"
    write_checkpoint(path, VALUES)

    def fill_the_disk(values: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    monkeypatch.setattr(storage.torch, "save", fill_the_disk)
    with pytest.raises(UserError, match=r"part\.pt: cannot be written \(No space left"):
        write_checkpoint(path, {"step": 4})
    assert read_checkpoint(path)["step"] == 3


@pytest.mark.parametrize("write", [write_json, write_json_lines])
def test_failed_json_leaves_the_old_file(tmp_path: Path, write: object) -> None:
    path = tmp_path / "values.json"
    write(path, [{"a": 1}])  # type: ignore[operator]
    before = path.read_text()
    with pytest.raises(TypeError):
        write(path, [{"a": 1}, {"b": object()}])  # type: ignore[operator]
    assert path.read_text() == before


def test_manifest_is_edited_entry_by_entry(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        write_checkpoint(tmp_path / name, {"name": name})
    edit_manifest(tmp_path, "a.pt", None)
    edit_manifest(tmp_path, "never.pt", None)
    assert set(json.loads((tmp_path / MANIFEST).read_text())) == {"b.pt"}
    assert read_checkpoint(tmp_path / "b.pt")["name"] == "b.pt"


@pytest.mark.parametrize("manifest", [b"", b'{"part.pt"', b"\xff\xfe", b"[]"])
def test_damaged_manifest_does_not_stop_a_save(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(manifest)
    write_checkpoint(tmp_path / "part.pt", {"step": 5})
    assert read_checkpoint(tmp_path / "part.pt")["step"] == 5


def test_json_lines_are_one_value_a_line(tmp_path: Path) -> None:
    rows = [{"answer": "two\nlines"}, {"answer": "é 😀"}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_digest_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that lies still it is found once; of one just written every time."""
    path = tmp_path / "file"
    path.write_text("one")
    first = sha256(path)
    path.write_text("two")  # within one tick of the clock, of the same size
    assert file_state(path) == ""
    assert sha256(path) != first
    monkeypatch.setattr(storage, "SETTLED", 0.0)
    assert file_state(path) != ""
    second = sha256(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *a: pytest.fail("read again"))
        assert sha256(path) == second
    path.write_text("three")
    assert len({first, second, sha256(path)}) == 3


@pytest.mark.parametrize("write", [write_json, write_checkpoint])
def test_interrupted_write_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "file", {"step": 1})  # type: ignore[operator]
    assert not list(tmp_path.iterdir())
