"""The lock file: all that a user's installation takes, pinned as it is tested, with hashes."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LEFT_OUT = {"dev", "bench"}  # extras of those who change omnitune


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Versions by name."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.M)
    return {plain(name): version for name, version in found}


def test_each_package_has_hashes_and_the_file_names_no_index() -> None:
    entries = re.split(r"\n(?=\S)", TEXT.strip())
    assert len(entries) == len(pins(TEXT)) > 50
    for entry in entries:
        assert re.fullmatch(r"[^\n]+(\s+--hash=sha256:[0-9a-f]{64}\s*\\?)+", entry), entry[:200]
    assert "://" not in TEXT
    assert "--index-url" not in TEXT


def test_versions_are_those_that_are_tested() -> None:
    tested, locked = pins((ROOT / "constraints.txt").read_text(encoding="utf-8")), pins(TEXT)
    wrong = {name for name in tested.keys() & locked.keys() if tested[name] != locked[name]}
    assert not wrong, f"{sorted(wrong)}: `make lock` renews requirements.lock"


@pytest.mark.parametrize("extra", ["", "corpus", "data", "media", "onnx", "serve"])
def test_nothing_that_is_asked_for_is_missing(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras.keys() - LEFT_OUT == {"corpus", "data", "media", "onnx", "serve"}
    asked = extras[extra] if extra else project["dependencies"]
    names = {plain(re.match(r"[\w.-]+", each)[0]) for each in asked}  # type: ignore[index]
    assert names <= pins(TEXT).keys(), "`make lock` renews requirements.lock"
    assert "torchvision" not in pins(TEXT)
