"""Parts and data sets of a Hub, through the library's own client against a true server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image
from hub_server import Hub, Repository, commit_of
from huggingface_hub import HfFileSystem, constants
from miniatures import save_thinker_folder

from omnitune.containers.remote import ensure, fetch_all, find
from omnitune.data.sources.hub_sets import layout_of_set, set_name
from omnitune.hub import check_weights, find_part
from omnitune.sample import UserError

NAME = "me/thinker"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two states of one repository, with what others also put into theirs."""
    made = {}
    for n, name in enumerate(("main", "v1")):
        made[name] = save_thinker_folder(tmp_path_factory.mktemp(name), seed=n)
    for surplus in (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "tf_model.h5",
        "onnx/model.onnx",
        "onnx/config.json",
        "original/model.safetensors",
        "modeling.py",
        "picture.png",
    ):
        (made["main"] / surplus).parent.mkdir(exist_ok=True)
        (made["main"] / surplus).write_bytes(b"surplus")
    return made


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(models={NAME: Repository(dict(folders))}) as running:
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


PROGRAM = """
import sys, urllib.request
from pathlib import Path
from omnitune.models.loading import load_thinker
first, _ = load_thinker(Path(sys.argv[1]))
urllib.request.urlopen(sys.argv[2] + "/stop").close()
again, _ = load_thinker(Path(sys.argv[1]))
a, b = (sum(float(p.double().sum()) for p in m.parameters()) for m in (first, again))
assert a == b
print("the same")
"""


@pytest.mark.slow
def test_a_thinker_is_fetched_once_and_then_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, as a user has it: the address is in the environment."""
    hub.models[NAME].revisions["v1"].joinpath("other.png").write_bytes(b"surplus")
    cache = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "home" / "hub")}
    shown = {"TQDM_POSITION": "-1"}  # bars as on a terminal
    values = cache | shown | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"{NAME}@v1", hub.url],
        env=os.environ | values,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "the same\n", done.stderr
    assert done.stderr.count(f"fetching {NAME} from the Hugging Face Hub") == 1
    assert "100%" in done.stderr  # progress is shown
    assert hub.fetched.count("model.safetensors") == 1
    assert "other.png" not in hub.fetched


def test_only_what_is_needed_is_fetched(hub: Hub) -> None:
    folder = find_part(NAME)
    held = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= held
    assert set(hub.fetched) == held
    assert all(name.endswith((".json", ".jinja")) for name in held - {"model.safetensors"})
    asked = len(hub.asked)
    assert find_part(NAME) == folder
    assert len(hub.asked) == asked  # the Hub is not asked again


def test_older_weights_are_fetched_where_there_are_no_others(hub: Hub, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("config.json", "pytorch_model.bin", "training_args.bin"):
        (old / name).write_text("{}")
    hub.models["me/old"] = Repository({"main": old})
    folder = find_part("me/old")
    assert {path.name for path in folder.iterdir()} == {"config.json", "pytorch_model.bin"}
    (folder / "pytorch_model.bin").unlink()  # as if it had broken off behind config.json
    assert [path.name for path in check_weights(find_part("me/old"))] == ["pytorch_model.bin"]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, folders: dict[str, Path]) -> None:
    commit = commit_of(folders["v1"])
    for revision in ("v1", commit):
        assert find_part(f"{NAME}@{revision}").name == commit
    assert find_part(f"{NAME}@main").name == find_part(NAME).name == commit_of(folders["main"])


@pytest.mark.parametrize(
    ("given", "refused", "said"),
    [
        ("me/nothing", None, "no repository of this name that is open to you; .*hf auth login"),
        (f"{NAME}@v9", None, f"{NAME} has no revision 'v9' .*; give a branch, a tag or"),
        (NAME, (403, "GatedRepo"), "accepted its terms; accept them on its page .*hf auth login"),
        (NAME, (401, "GatedRepo"), "accepted its terms"),
        (NAME, (403, ""), "open to you"),
        (NAME, (500, ""), r"a fault of its own \(status 500\); try again later"),
    ],
)
def test_a_refusal_is_one_sentence_with_what_to_do(
    hub: Hub, given: str, refused: tuple[int, str] | None, said: str
) -> None:
    hub.models[NAME].refusal = refused
    with pytest.raises(UserError, match=said) as caught:
        find_part(given)
    assert str(caught.value).startswith(f"{given}: ")
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_a_server_that_is_gone(hub: Hub) -> None:
    hub.stop()
    with pytest.raises(UserError, match=f"check the name and the network .*hf download {NAME}"):
        find_part(NAME)


def test_a_connection_that_breaks_once_goes_on(
    hub: Hub, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is smaller is not kept
    hub.cut_at = [20_000]
    found = find_part(NAME) / "model.safetensors"
    assert found.read_bytes() == (folders["main"] / "model.safetensors").read_bytes()
    assert not hub.cut_at
    assert "bytes=20000-" in {sent for _, _, sent in hub.asked}


def test_what_broke_off_is_fetched_by_the_next_call(hub: Hub, folders: dict[str, Path]) -> None:
    hub.cut_at = [20_000] + [0] * 50
    with pytest.raises(UserError, match=r"try again \(files that have arrived whole are kept\)"):
        find_part(NAME)
    hub.cut_at, hub.asked = [], []
    found = find_part(NAME) / "model.safetensors"
    assert found.read_bytes() == (folders["main"] / "model.safetensors").read_bytes()
    assert hub.fetched == ["model.safetensors"]


# Data sets


@pytest.fixture
def data_set(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    folder = tmp_path / "set"
    (folder / "pictures").mkdir(parents=True)
    write_image(folder / "pictures" / "a.png")
    record: dict[str, Any] = {"image": "pictures/a.png", "question": "which?", "answer": "red"}
    (folder / "train.jsonl").write_text(json.dumps(record) + "\n")
    (folder / "load.py").write_text("raise SystemExit")
    hub.datasets["me/set"] = Repository({"main": folder})
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "own"))
    return hub.datasets["me/set"]


def test_a_data_set_by_its_id(hub: Hub, data_set: Repository) -> None:
    asked = set_name("me/set:train")
    assert asked is not None
    layout = layout_of_set("me/set:train", asked, "mine")
    assert [path.name for path in layout.files] == ["train.jsonl"]
    assert set(hub.fetched) == {"train.jsonl", "pictures/a.png"}
    hub.stop()
    assert layout_of_set("me/set:train", asked, "mine").files == layout.files


def test_a_data_set_that_is_refused(hub: Hub, data_set: Repository) -> None:
    data_set.refusal = (403, "GatedRepo")
    for given, said in (("me/set", "accepted its terms"), ("me/none", "no data set of this name")):
        asked = set_name(given)
        assert asked is not None
        with pytest.raises(UserError, match=f"^{given}: .*{said}"):
            layout_of_set(given, asked, "mine")


def test_files_of_a_data_set_by_their_address(hub: Hub, data_set: Repository) -> None:
    HfFileSystem.clear_instance_cache()  # one of an earlier test would ask its own server
    address = "hf://datasets/me/set"
    assert f"{address}/train.jsonl" in find(address, lambda path: path.suffix == ".jsonl")
    [path] = fetch_all([f"{address}/train.jsonl"])
    assert "which?" in path.read_text()
    assert ensure(path.parent / "pictures" / "a.png").stat().st_size > 100
