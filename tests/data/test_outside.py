"""Nothing outside of a source's folder is opened through its records, unless it is allowed to."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import read_records, write_image, write_wave

from omnitune.data.content import leads_out
from omnitune.data.reading import read_source
from omnitune.data.samples import Samples
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.sources import Source

ASKED = {"question": "what is it?", "answer": "a secret."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source's folder with links of every kind, beside a file that is not its own."""
    write_wave(tmp_path / "secret.wav")
    secret = write_image(tmp_path / "secret.png")
    folder = tmp_path / "data" / "images"
    (folder / "below").mkdir(parents=True)
    write_image(folder / "own.png")
    (folder / "link.png").symlink_to(secret)
    (folder / "climbing.png").symlink_to("../../secret.png")
    (folder / "chain.png").symlink_to("link.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "sound.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "inside.png").symlink_to("own.png")
    (folder / "below" / "back.png").symlink_to("../own.png")
    (folder / "again").symlink_to("below")
    (folder / "nowhere.png").symlink_to(tmp_path / "none.png")
    (folder / "device.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    return folder


def read(folder: Path, name: str, medium: str = "image", **settings: Any) -> Samples:
    path = folder / "records.jsonl"
    path.write_text(json.dumps(ASKED | {medium: name}) + "\n")
    return read_source(None, Source("mine", path=str(path), **settings))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


LINKS = ["link.png", "climbing.png", "chain.png", "up/secret.png", "nowhere.png", "device.png"]


@pytest.mark.parametrize("name", [*LINKS, "up/data/../secret.png", "../../secret.png"])
def test_what_leads_out_is_refused_with_the_mend(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r'leaves the folder .*"allow_outside": true'):
        read(folder, name)


@pytest.mark.parametrize("name", ["sound.wav", "sound.wav::t=0,0.2", "up/secret.wav::t=0,0.2"])
def test_a_stretch_is_no_way_out(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="leaves the folder"):
        read(folder, name, "audio")
    assert read(folder, name, "audio", allow_outside=True)


def test_the_address_of_a_record_elsewhere_is_no_way_out(folder: Path) -> None:
    for name in ("link.png::0+100/image", "up/x.jsonl::0+100/image"):
        with pytest.raises(UserError, match="leaves the folder"):
            read(folder, name)


def test_an_absolute_path_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in (str(tmp_path / "secret.png"), "/etc/passwd", "/dev/zero"):
        with pytest.raises(UserError, match=r'leaves the folder .*"allow_outside": true'):
            read(folder, name)


@pytest.mark.parametrize("scheme", ["http", "https", "file", "s3", "ftp"])
@pytest.mark.parametrize("allow", [True, False])
def test_no_address_of_the_web_is_fetched(folder: Path, scheme: str, allow: bool) -> None:
    with pytest.raises(UserError, match="nothing is fetched for a record"):
        read(folder, f"{scheme}://localhost/secret.png", allow_outside=allow)


@pytest.mark.parametrize("name", ["own.png", "inside.png", "below/back.png", "again/back.png"])
def test_links_within_the_folder_are_followed(folder: Path, name: str) -> None:
    [sample] = read(folder, name)
    assert sample.media[0].path == folder / name


@pytest.mark.parametrize("name", ["link.png", "up/secret.png", "../../secret.png"])
def test_a_source_may_be_allowed_outside(folder: Path, name: str) -> None:
    [sample] = read(folder, name, allow_outside=True)
    MEDIA["image"].check(sample.media[0].path)


@pytest.mark.parametrize("name", ["device.png", "pipe.png"])
def test_no_device_or_pipe_is_opened_even_where_it_is_allowed(folder: Path, name: str) -> None:
    [sample] = read(folder, name, allow_outside=True)
    with pytest.raises(UserError, match="is a pipe, socket or device"):
        MEDIA["image"].check(sample.media[0].path)


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(folder)
    assert read(tmp_path / "other", "own.png")
    assert leads_out(str(tmp_path / "other"), str(tmp_path / "other" / "link.png"))


def test_so_it_is_with_the_data_folder(folder: Path) -> None:
    with pytest.raises(UserError, match="a link that leaves the folder"):
        read_records(folder.parent, "image_text", ASKED | {"image": "link.png"})
