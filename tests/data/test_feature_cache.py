"""Frozen features: what is kept equals what would be encoded, and cannot go stale."""

import os
from pathlib import Path

import pytest
import torch
from helpers import tiny_model, write_image, write_wave
from torch import Tensor, nn

from omnitune import storage
from omnitune.data import feature_cache as features
from omnitune.data.feature_cache import FeatureStore, encoder_key
from omnitune.media.base import open_file
from omnitune.media.segments import with_time
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("media")
    seconds = (0.3, 1.2, 0.31, 0.7)
    return {
        "image": [write_image(folder / f"{n}.png", seed=n) for n in range(4)],
        "audio": [write_wave(folder / f"{n}.wav", s, seed=n) for n, s in enumerate(seconds)],
    }


def store_of(model: OmniModel, name: str, root: Path | None) -> FeatureStore:
    return FeatureStore(model.modalities[name], model.encoders[name], root)


def directly(model: OmniModel, name: str, path: Path) -> Tensor:
    return model.encode(name, [model.modalities[name].read(path)])[0]


class Counting(nn.Module):
    """An encoder that counts how often it is asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *arguments: object, **named: object) -> object:
        self.calls += 1
        return self.inner(*arguments, **named)


@pytest.mark.parametrize("name", ["image", "audio"])
@pytest.mark.parametrize("kept", [True, False])
def test_cached_equals_direct(
    model: OmniModel, media: dict[str, list[Path]], tmp_path: Path, name: str, kept: bool
) -> None:
    store = store_of(model, name, tmp_path if kept else None)
    paths = media[name]
    store.prepare(paths[1:])  # one batch, clips padded to the longest
    for path in paths:  # the first one is encoded when it is asked for
        expected = directly(model, name, path)
        found = store(path)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected.detach(), atol=4e-3, rtol=2e-3)
    assert not torch.allclose(store(paths[0])[0], store(paths[1])[0], atol=1e-2)


@pytest.mark.parametrize("name", ["image", "audio"])
def test_store_survives_reopening(
    model: OmniModel, media: dict[str, list[Path]], tmp_path: Path, name: str
) -> None:
    first = store_of(model, name, tmp_path)
    first.prepare(media[name][:2])
    first.prepare(media[name])
    rows = [first(path) for path in media[name]]
    again = store_of(model, name, tmp_path)
    assert again.missing(media[name]) == []
    again.encoder = Counting(model.encoders[name])
    again.prepare(media[name])
    for path, expected in zip(media[name], rows, strict=True):
        assert torch.equal(again(path), expected)
    assert again.encoder.calls == 0
    assert len(list(first.folder.glob("rows-*"))) == 1


def test_each_content_is_encoded_once(
    model: OmniModel, media: dict[str, list[Path]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(media["image"][0].read_bytes())
    store = store_of(model, "image", None)
    assert store.missing([media["image"][0], copy, media["image"][0]]) == [media["image"][0]]
    done: list[int] = []
    store.prepare([copy, *media["image"], copy], done.append)
    assert sum(done) == 4
    assert torch.equal(store(copy), store(media["image"][0]))


def test_changed_file_is_another_entry(model: OmniModel, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", seed=1)
    before = store_of(model, "image", tmp_path)(path)
    write_image(path, seed=2)
    store = store_of(model, "image", tmp_path)
    assert store.missing([path]) == [path]
    torch.testing.assert_close(
        store(path), directly(model, "image", path).detach(), atol=4e-3, rtol=2e-3
    )
    assert not torch.allclose(store(path), before, atol=1e-2)


@pytest.mark.parametrize("name", ["image", "audio"])
def test_changed_encoder_is_another_store(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    modality, encoder = model.modalities[name], model.encoders[name]
    keys = [encoder_key(modality, encoder)]
    assert encoder_key(tiny_model().modalities[name], tiny_model().encoders[name]) == keys[0]
    folder = store_of(model, name, tmp_path).folder
    for parameter in encoder.parameters():  # one weight in any place is enough
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        keys.append(encoder_key(modality, encoder))
    for buffer in encoder.buffers():
        if buffer.is_floating_point() and buffer.numel() and _saved(encoder, buffer):
            buffer.view(-1)[0] += 1
            keys.append(encoder_key(modality, encoder))
    modality.config = modality.config | {"max_seconds": 5}
    keys.append(encoder_key(modality, encoder))
    # Other rows of the same file under the same encoder.
    monkeypatch.setattr(type(modality.medium), "reader_version", 99)
    keys.append(encoder_key(modality, encoder))
    assert len(set(keys)) == len(keys)
    assert store_of(model, name, tmp_path).folder != folder


def _saved(encoder: nn.Module, buffer: Tensor) -> bool:
    return any(tensor.data_ptr() == buffer.data_ptr() for tensor in encoder.state_dict().values())


def test_file_that_cannot_be_read_spoils_no_other(
    model: OmniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Media that were encoded before the error are right, or encoded again."""
    monkeypatch.setattr(features, "ENCODE_BATCH", 1)  # a window is 16 of them
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(17)]
    paths[16].write_bytes(b"no picture")
    store = store_of(model, "image", tmp_path / "store")
    with pytest.raises(UserError, match=r"16\.png"):
        store.prepare(paths)
    for path in paths[:16:5]:
        torch.testing.assert_close(
            store(path), directly(model, "image", path).detach(), atol=4e-3, rtol=2e-3
        )


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are taken for unchanged however young they are."""
    monkeypatch.setattr(storage, "SETTLED", 0.0)


@pytest.mark.usefixtures("settled")
def test_unchanged_media_are_not_read_again(
    model: OmniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    first = store_of(model, "image", tmp_path / "store")
    first.prepare(paths)
    rows = [first(path) for path in paths]
    again = store_of(model, "image", tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
        assert again.missing(paths) == []
        assert all(torch.equal(again(p), r) for p, r in zip(paths, rows, strict=True))
    os.utime(paths[1], (1e9, 1e9))  # touched, not changed
    moved = paths[2].rename(tmp_path / "moved.png")
    last = store_of(model, "image", tmp_path / "store")
    assert last.missing([paths[1], moved]) == []
    assert torch.equal(last(moved), rows[2])


def test_interrupted_encoding_goes_on(
    model: OmniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "ENCODE_BATCH", 2)
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(6)]
    store = store_of(model, "image", tmp_path / "store")
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.prepare(paths, stop)
    again = store_of(model, "image", tmp_path / "store")
    assert len(again.missing(paths)) == 2
    with (again.folder / "rows-f16.bin").open("ab") as file:
        file.write(b"torn")  # by a process that was killed
    again.prepare(paths)
    for path in paths:
        torch.testing.assert_close(
            again(path), directly(model, "image", path).detach(), atol=4e-3, rtol=2e-3
        )


@pytest.mark.parametrize("lost", ["rows-f16.bin", "places.bin"])
def test_half_deleted_store_is_made_anew(
    model: OmniModel, media: dict[str, list[Path]], tmp_path: Path, lost: str
) -> None:
    paths = media["image"]
    store_of(model, "image", tmp_path).prepare(paths)
    (store_of(model, "image", tmp_path).folder / lost).unlink()
    store = store_of(model, "image", tmp_path)
    assert store.missing(paths) == paths
    torch.testing.assert_close(
        store(paths[0]), directly(model, "image", paths[0]).detach(), atol=4e-3, rtol=2e-3
    )


def test_folder_that_cannot_be_written(
    model: OmniModel,
    media: dict[str, list[Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "store").write_text("a file stands in the way")
    store = store_of(model, "image", tmp_path / "store")
    store.prepare(media["image"])
    assert store.missing(media["image"]) == []
    for path in media["image"]:
        torch.testing.assert_close(
            store(path), directly(model, "image", path).detach(), atol=4e-3, rtol=2e-3
        )
    assert capsys.readouterr().out.count("features cannot be kept") == 1


def test_medium_that_is_gone_is_named(model: OmniModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: no such image file"):
        store_of(model, "image", tmp_path)(tmp_path / "gone.png")


def test_all_media_of_a_file_are_noted(model: OmniModel, tmp_path: Path) -> None:
    assert not store_of(model, "image", tmp_path).holds("a" * 32)
    store_of(model, "image", tmp_path).hold("a" * 32)
    assert store_of(model, "image", tmp_path).holds("a" * 32)
    assert not store_of(model, "image", tmp_path).holds("b" * 32)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("kept", [True, False])
def test_stretches_of_a_sound_have_rows_of_their_own(
    model: OmniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    path = write_wave(tmp_path / "a.wav", 2.0)
    stretches = [with_time(path, n / 2, n / 2 + 0.5) for n in range(4)]
    store = store_of(model, "audio", tmp_path / "store" if kept else None)
    read = []
    monkeypatch.setattr(features, "open_file", lambda *a: read.append(a) or open_file(*a))
    store.prepare([path, *stretches])
    assert len(read) == 1  # the whole is read once for all of them
    for one in (path, *stretches):
        torch.testing.assert_close(store(one), directly(model, "audio", one), atol=4e-3, rtol=2e-3)
    if kept:
        again = store_of(model, "audio", tmp_path / "store")
        assert again.missing([path, *stretches]) == []
        assert again.missing([with_time(path, 0, 0.6)]) != []
