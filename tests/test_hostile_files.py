"""Files made to do harm: code in files of weights, small files that claim to be large ones."""

import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from omnitune.containers import compressed
from omnitune.data.template_folder import read_renderer
from omnitune.media.registry import MEDIA
from omnitune.models import families
from omnitune.models.exported import load_exported, load_exported_omni
from omnitune.models.loading import load_omni, read_part
from omnitune.sample import UserError
from omnitune.storage import MANIFEST, read_checkpoint, read_manifest, write_checkpoint
from omnitune.training import estimate, sharded_checkpoint

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 32,
}


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a thinker": ("thinker.pt", lambda path: read_part(path, "thinker")),
    "an encoder": ("vision.pt", lambda path: read_part(path, "image_encoder")),
    "what a plan looks at": ("thinker.pt", lambda path: estimate._peek(path, "thinker")),
    "a model": ("omni.pt", lambda path: load_omni(path.parent)),
    "a divided checkpoint": ("run.pt", lambda path: sharded_checkpoint.read(path.parent)),
}


@pytest.mark.parametrize("what", READERS)
def test_no_code_in_any_file_of_weights_is_run(tmp_path: Path, what: str) -> None:
    name, read = READERS[what]
    torch.save({"kind": name, "trap": Trap(tmp_path / "sprung")}, tmp_path / name)
    with pytest.raises(UserError, match=name):
        read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_no_code_in_the_weights_of_a_folder_is_run(tmp_path: Path) -> None:
    """In the library's older format."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    torch.save({"trap": Trap(tmp_path / "sprung")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError):
        families.load(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["llama", "unheard_of"])
def test_no_code_that_a_folder_brings_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """And nobody is asked whether it should be."""
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForMultimodalLM", "AutoProcessor")
    names = dict.fromkeys(classes, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    asked = CONFIG | {"model_type": kind, "auto_map": names, "tokenizer_class": "Evil"}
    for file in ("config.json", "tokenizer_config.json", "processor_config.json"):
        (tmp_path / file).write_text(json.dumps(asked | {"processor_class": "Evil"}))
    sprung = tmp_path / "sprung"
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(sprung)!r})\nclass Evil: ...\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    for read in (families.settings_of, read_renderer, load_exported_omni, load_exported):
        with suppress(Exception):  # or it is read without its code
            read(tmp_path)
    assert not sprung.exists()


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def holding_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda: torch.zeros(1).expand(10**13), "claims 10,000,000,000,000 numbers"),
        (lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**12,)), "claims"),
        (lambda: torch.zeros(10**12, device="meta"), "claims"),
        (lambda: nested(200), "deeper than 64"),
        (holding_itself, "deeper than 64"),
    ],
    ids=["a view of one number", "sparse", "without numbers", "deep", "holds itself"],
)
def test_a_checkpoint_that_claims_too_much_is_refused(
    tmp_path: Path, value: Callable[[], Any], told: str
) -> None:
    torch.save({"model": {"layer": value()}}, tmp_path / "part.pt")
    assert (tmp_path / "part.pt").stat().st_size < 1e5
    with pytest.raises(UserError, match=told):
        read_checkpoint(tmp_path / "part.pt")


def test_views_and_shared_weights_are_no_claims(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    values = {"one": whole, "same": whole, "turned": whole.T, "row": torch.ones(1).expand(3, 4)}
    write_checkpoint(tmp_path / "part.pt", values)
    found = read_checkpoint(tmp_path / "part.pt")
    assert all(torch.equal(found[name], values[name]) for name in values)


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"layer": torch.zeros(1 << 22)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 1e5
    with pytest.raises(UserError, match=r"bomb\.pt: would become 17 MB"):
        read_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff", b"[]"])
def test_a_manifest_made_to_do_harm_is_as_none(tmp_path: Path, content: bytes) -> None:
    write_checkpoint(tmp_path / "part.pt", {"step": 1})
    (tmp_path / MANIFEST).write_bytes(content)
    assert read_manifest(tmp_path) == {}
    assert read_checkpoint(tmp_path / "part.pt") == {"step": 1}
    write_checkpoint(tmp_path / "part.pt", {"step": 2})
    assert read_manifest(tmp_path).keys() == {"part.pt"}


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "part.pt", {"step": 1})
    (tmp_path / MANIFEST).unlink()
    for name in (MANIFEST, "pipe.pt"):
        os.mkfifo(tmp_path / name)
    assert read_checkpoint(tmp_path / "part.pt") == {"step": 1}
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "pipe.pt")


def piece(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "pixels"])
def test_a_picture_that_unpacks_to_much_is_refused(tmp_path: Path, kind: str) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (32, 32)).save(plain, "png")
    begin, rest = plain.getvalue()[:8], plain.getvalue()[33:]
    head, packed = plain.getvalue()[8:33], zlib.compress(bytes(1 << 24))
    added = {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0"}.get(kind)
    if added is None:
        head = piece(b"IHDR", struct.pack(">II", 60_000, 60_000) + head[16:21])
    else:
        head += piece(kind.encode(), added + packed)
    path = tmp_path / "bomb.png"
    path.write_bytes(begin + head + rest)
    for read in (MEDIA["image"].check, MEDIA["image"].fingerprint):
        with pytest.raises(UserError, match=r"bomb\.png"):
            read(path)


def test_a_list_that_unpacks_to_a_full_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "FREE", 1 << 20)
    path, copy = tmp_path / "records.jsonl.gz", tmp_path / "copy"
    path.write_bytes(gzip.compress(bytes(1 << 23)))
    (packed,) = (each for each in compressed.COMPRESSIONS if each.title == "gzip")
    container = compressed.CompressedContainer(packed, lambda _: pytest.fail("read"), [".jsonl"])
    with pytest.raises(UserError, match=r"records\.jsonl\.gz: unpacks to more than 250 times"):
        container.write(path, copy)
    assert copy.stat().st_size < 1 << 22


def test_zstandard_is_unpacked_in_pieces(tmp_path: Path) -> None:
    """A kilobyte of it may be thirty megabytes; a megabyte would be thirty gigabytes."""
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "zeros.zst"
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    path.write_bytes(b"".join(packer.compress(bytes(1 << 20)) for _ in range(99)) + packer.flush())
    assert path.stat().st_size < 1e4

    class Counting:
        largest = total = 0

        def write(self, data: bytes) -> None:
            self.largest, self.total = max(self.largest, len(data)), self.total + len(data)

    seen: Any = Counting()
    compressed._unpack_zstd(path, seen)
    assert seen.total == 99 << 20
    assert seen.largest <= 40 << 20
