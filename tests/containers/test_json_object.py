"""Lists in a JSON object are read item by item."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.containers.json_list import Window
from omnitune.containers.registry import container_of


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items the lists have that memory holds at once."""
    found: list[int] = []
    value = Window.value

    def watched(window: Window) -> Any:
        given = value(window)
        found.append(len(given) if isinstance(given, list) else 0)
        return given

    monkeypatch.setattr(Window, "value", watched)
    return found


@pytest.mark.parametrize("key", ["data", "annotations"])
def test_memory_holds_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: list[int], key: str
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    pictures = [{"id": n, "file_name": f"{n}.png"} for n in range(9)]
    captions = [{"image_id": n, "caption": "c"} for n in range(9)]
    content = {
        "data": {"info": {}, "data": [{"question": "Q?", "answer": str(n)} for n in range(9)]},
        "annotations": {"info": {}, "images": pictures, "annotations": captions},
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content[key]))
    assert len(list(container_of(path).scan(path))) == 9
    assert max(largest) == 0


def test_pictures_without_captions_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    pictures = [{"id": n, "file_name": f"{n}.png"} for n in range(3)]
    content = {"images": pictures, "annotations": [{"image_id": 1, "caption": "c"}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert len(list(container_of(path).scan(path))) == 1
    assert "2 of its pictures have no caption" in capsys.readouterr().err
