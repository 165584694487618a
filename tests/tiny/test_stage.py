"""What the pretraining stages share: the thinker's tokenizer, and captions as answers."""

import json
from pathlib import Path

import pytest
from helpers import tiny_tokenizer

from omnitune.sample import UserError
from omnitune.storage import write_json
from omnitune.tiny.stage import load_tokenizer


def test_a_tokenizer_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", json.loads(tiny_tokenizer().to_str()))
    assert load_tokenizer(tmp_path / "tokenizer.json").to_str() == tiny_tokenizer().to_str()


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.json: no such tokenizer; `omnitune parts"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad.json: holds no tokenizer"):
        load_tokenizer(tmp_path / "bad.json")
