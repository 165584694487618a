"""Whether the features of frozen encoders are worth keeping."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import conversation, tiny_model, write_image

from omnitune.data.feature_cache import FeatureStore
from omnitune.evaluation import caching
from omnitune.evaluation.caching import Estimate, estimate
from omnitune.sample import Media, Sample

PAYS = Estimate(media=10, once=1.0, each_time=5.0, size=1000, free=10_000)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Sample]:
    """Six samples, each with a picture of its own."""
    return [
        conversation(
            str(n), "?", "!", media=(Media("image", write_image(tmp_path / f"{n}.png", seed=n)),)
        )
        for n in range(6)
    ]


def test_it_pays_where_it_is_faster_and_fits() -> None:
    assert PAYS.pays
    assert "each is encoded once" in str(PAYS)
    slower = replace(PAYS, once=6.0)
    assert not slower.pays
    assert "nothing is kept" in str(slower)
    large = replace(PAYS, size=6000)
    assert not large.pays
    assert "the disk has" in str(large)


def test_size_is_that_of_all_media(
    tmp_path: Path, pictures: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "TRIED", 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    model = tiny_model()
    root = tmp_path / "features"
    assert estimate(model, pictures, root, uses={"audio": 5}) is None
    found = estimate(model, pictures, root, uses={"image": 5})
    assert found is not None
    assert (found.media, found.free) == (6, 10**9)
    store = FeatureStore(model.modalities["image"], model.encoders["image"], root)
    paths = [sample.media[0].path for sample in pictures]
    assert len(store.missing(paths)) == 3  # what was tried is kept
    store.prepare(paths)
    assert found.size == sum(file.stat().st_size for file in root.rglob("rows-*"))
    assert estimate(model, pictures, root, uses={"image": 5}) is None


def test_few_media_are_not_tried(tmp_path: Path, pictures: list[Sample]) -> None:
    assert estimate(tiny_model(), pictures, tmp_path / "features", uses={"image": 5}) is None
