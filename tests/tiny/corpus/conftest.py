"""A miniature corpus, built once for all the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.tiny.corpus.build import FILES, build_corpus

SEED = 3
SCALE = 0.01


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    build_corpus(folder, seed=SEED, scale=SCALE, workers=1)
    return folder


@pytest.fixture(scope="session")
def records(corpus_dir: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        name: json.loads((corpus_dir / path).read_text(encoding="utf-8"))
        for name, path in FILES.items()
    }
