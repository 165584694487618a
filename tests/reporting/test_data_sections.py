"""What a report says of a run's data: the receipt, the hash, and the records that stand out."""

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnitune.reporting.data_sections import (
    left_out_section,
    receipt_rows,
    receipt_section,
    taught_section,
)
from omnitune.reporting.page import Section, render_page

HOSTILE = "<script>alert(1)</script>"


def counts(samples: int, tokens: int, share: float) -> dict[str, Any]:
    got = {"samples": samples, "tokens": tokens, "supervised": tokens // 10}
    return {"asked": 0.5} | {
        key: {"asked": value, "got": value, "share": share} for key, value in got.items()
    }


RECEIPT = {"total": {"text_only": counts(1200, 40000, 0.4), "image_text": counts(1800, 60000, 0.6)}}
PROOF = {"hash": "0123456789abcdef" * 2, "steps": 375, "left_out": [7], "weights": []}


def record(number: int, right: bool | None, picture: Path, **rest: Any) -> dict[str, Any]:
    values = {
        "place": number - 1,
        "record": number,
        "id": f"r{number}",
        "file": "data/mine.json",
        "seen": 3,
        "first": 2.5,
        "last": 2.75,
        "loss": 3.25,
        "task": "image_qa",
        "kind": "count",
        "question": "how many?",
        "reference": "four",
        "media": [["image", str(picture)]],
        "answer": None if right is None else HOSTILE,
        "right": right,
    }
    return values | rest


@pytest.fixture
def taught(tmp_path: Path) -> dict[str, Any]:
    picture = tmp_path / "one.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    return {
        "image_text": {
            "start": 4.5,
            "end": 0.5,
            "records": 2000,
            "followed": 1000,
            "seen": 900,
            "seen_twice": 800,
            "not_falling": 12,
            "hardest": [record(5, True, picture), record(17, False, picture)],
            "never_learnt": [record(17, False, picture)],
        },
        "text_only": {
            "start": 1.5,
            "end": 0.25,
            "records": 10,
            "followed": 10,
            "seen": 10,
            "seen_twice": 10,
            "not_falling": 0,
            "hardest": [record(3, None, picture)],
            "never_learnt": [],
        },
    }


def show(section: Section | None) -> str:
    assert section is not None
    html = render_page("report", "run", [section])
    return re.sub(r"\n|<wbr>", "", html[html.index("<section") :])


def test_receipt_shows_counts_shares_and_the_hash() -> None:
    html = show(receipt_section({"receipt": RECEIPT, "run_hash": PROOF}, Path("my runs/one")))
    for words in ("1,200", "60,000", "4,000", PROOF["hash"], "375", "updates left out"):
        assert str(words) in html, words
    assert "omnitune replay --ckpt_dir &#39;my runs/one&#39;" in html
    assert "<details>" not in html
    phases = {"1": RECEIPT["total"], "2": {"text_only": counts(7, 70, 1.0)}}
    html = show(receipt_section({"receipt": RECEIPT | {"phases": phases}}, Path("run")))
    assert "<summary>phase 1</summary>" in html
    assert html.count("<details>") == 2


def test_records_that_stand_out_have_file_number_and_medium(taught: dict[str, Any]) -> None:
    html = show(taught_section({"taught": taught}))
    for words in ("4.500", "0.250", "2,000 (1,000 followed)", "12", "data/mine.json, record 17"):
        assert words in html, words
    assert "<summary>image_text: never learnt</summary>" in html
    assert "<summary>text_only: hardest records</summary>" in html
    assert html.count("<article") == 1  # of the same record one, and none that is answered rightly
    assert "loss 3.250, seen 3 times" in html
    assert "data:image/png" in html
    assert HOSTILE not in html


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"receipt": 3, "taught": [], "run_hash": None},
        {"receipt": {"total": {"text_only": None}}, "taught": {"text_only": {"start": 1}}},
        {"receipt": {"total": [1]}, "taught": {"text_only": 7}},
    ],
)
def test_runs_that_kept_none_of_it_have_no_section(odd: dict[str, Any]) -> None:
    assert receipt_section(odd, Path("run")) is None
    assert taught_section(odd) is None


def test_odd_values_are_left_out(taught: dict[str, Any]) -> None:
    entry = {"start": 1.0, "end": 0.5, "hardest": [3, {"right": False, "media": [1, ["image"]]}]}
    html = show(taught_section({"taught": {"text_only": entry}}))
    assert "1.000" in html
    assert receipt_rows({"text_only": {"asked": 0.5}})[0][:3] == ["text_only", 0.5, "–"]


def test_what_was_left_out_is_told_by_reason() -> None:
    assert left_out_section({}) is None
    told = {"missing-media": f"{HOSTILE}: no such image file"}
    sources = {
        "image_text": {"records": 200, "reasons": {"missing-media": 3}},
        "text_only": {"records": 10, "reasons": {}},
    }
    results = {"bad_samples": {"left_out": 3, "sources": sources, "examples": told}}
    section = left_out_section(results)
    assert section is not None
    page = render_page("report", "run", [section])
    assert HOSTILE not in page
    for words in ("missing-media", "1.5 %", "Left out"):
        assert words in page
    clean = {"bad_samples": {"left_out": 0, "sources": {}, "examples": {}}}
    section = left_out_section(clean)
    assert section is not None
    assert "No record was left out" in section.note
    assert left_out_section({"bad_samples": "half a file"}) is None
