"""Ranks share the indexing and the encoding: what one process finds, and nothing twice."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sft_settings, tiny_model, write_image
from rank_helpers import needs_fork, on_ranks, whole

import omnitune.data.index as indexing
from omnitune.config.parallel import ParallelSettings
from omnitune.data import parts
from omnitune.data.audit.extents import measure_media
from omnitune.data.audit.truncation import kept_extents
from omnitune.data.feature_cache import FEATURES_FOLDER, FeatureStore
from omnitune.data.reading import DataPlace, media_of, read_sources
from omnitune.distributed.opening import open_ranks
from omnitune.sample import UserError
from omnitune.sources import Source
from omnitune.training.caching import encode_media
from omnitune.training.sources import read_samples
from omnitune.training.together import index_together, measure_together

pytestmark = needs_fork


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are shared out as large ones are."""
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(indexing, "KEEP_FROM", 0)
    monkeypatch.setattr(parts, "PART", 200)


def records(folder: Path, wrong: int | None = None) -> DataPlace:
    """Two sources; one record of the second may be wrong."""
    own = {}
    for name, count in (("first", 30), ("second", 17)):
        found: list[dict[str, Any]] = [
            {"image": f"{n % 7}.png", "question": f"{name} {n}?", "answer": "yes " * (n % 5 + 1)}
            for n in range(count)
        ]
        if name == "second" and wrong is not None:
            found[wrong]["anser"] = "typo"
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, found)))
        own[name] = Source(name, path=str(path))
    return DataPlace(None, own)


def index_on(rank: int, data: DataPlace) -> Any:
    """The indices, and how many records the rank has checked; or what it says."""
    found, checked = parts.read_records, 0

    def counted(part: Any, files: Any, some: Any, *rest: Any) -> None:
        nonlocal checked
        some = list(some)
        checked += len(some)
        found(part, files, some, *rest)

    parts.read_records = counted
    given = dict.fromkeys(data.own, "")
    try:
        with open_ranks(ParallelSettings(), torch.device("cpu")) as ranks:
            index_together(data, given, {}, ranks)
            with ranks.in_turn():
                samples = read_sources(data, given)
    except UserError as error:
        return type(error).__name__, str(error)
    return checked, {name: arrays(held) for name, held in samples.items()}


def arrays(samples: Any) -> dict[str, Any]:
    index = samples.pieces[0][0].index
    values = {name: value for name, value in vars(index).items() if name != "name"}
    return {name: np.array(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}


@pytest.mark.parametrize("count", [2, 4])
def test_the_index_of_ranks_is_that_of_one(tmp_path: Path, count: int) -> None:
    data = records(tmp_path)
    alone = read_sources(data, dict.fromkeys(data.own, ""))
    expected = {name: arrays(held) for name, held in alone.items()}
    shutil.rmtree(tmp_path / "cache")
    own = DataPlace(None, data.own)
    ends = whole(on_ranks(count, partial(index_on, data=own)))
    assert sum(checked for checked, _ in ends) == 47
    assert all(checked < 30 for checked, _ in ends)
    for _, found in ends:
        for name in expected:
            for key, value in expected[name].items():
                np.testing.assert_array_equal(found[name][key], value, err_msg=key)


def test_what_is_wrong_in_a_share_ends_all_with_the_usual_sentence(tmp_path: Path) -> None:
    data = records(tmp_path, wrong=14)
    with pytest.raises(UserError) as usual:
        read_sources(data, dict.fromkeys(data.own, ""))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (kind, said), *others = whole(on_ranks(2, partial(index_on, data=data)))
    assert (kind, said) == ("UserError", str(usual.value))
    assert "second.jsonl: record 15" in said
    assert [kind for kind, _ in others] == ["OfFirstRank"]


def measure_on(rank: int, data: DataPlace) -> Any:
    """How many media the rank has looked at, and what is kept of all."""
    encoder, given, looked = tiny_model().modalities["image"], dict.fromkeys(data.own, ""), []
    measure = encoder.measure
    encoder.measure = lambda path: looked.append(path) or measure(path)  # type: ignore
    with open_ranks(ParallelSettings(), torch.device("cpu")) as ranks:
        with ranks.in_turn():
            samples = read_sources(data, given)
        measure_together(samples, {"image": encoder}, False, ranks)
        files = [kept_extents(held.pieces[0][0], {"image": encoder}) for held in samples.values()]
        ranks.share(None)
    return len(looked), [np.load(file) for file in files if file]


def test_each_medium_is_looked_at_by_one_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnitune.data.audit.truncation.MANY_MEDIA", 3)
    monkeypatch.setattr("omnitune.training.together.TOGETHER", 2)
    data = records(tmp_path)
    for n in range(7):
        write_image(tmp_path / f"{n}.png", seed=n, size=20 + n)
    ends = whole(on_ranks(2, partial(measure_on, data=data)))
    assert sorted(count for count, _ in ends) == [6, 8]
    samples = read_sources(data, dict.fromkeys(data.own, ""))
    encoder = tiny_model().modalities["image"]
    for held, *found in zip(samples.values(), *(kept for _, kept in ends), strict=True):
        expected = measure_media(held.pieces[0][0], {"image": encoder}, False)
        for one in found:
            np.testing.assert_array_equal(one, expected)


def encode_on(rank: int, home: Path) -> int:
    """How many media the rank has encoded."""
    config = sft_settings(home, feature_cache="on", freeze_encoders=True)
    torch.manual_seed(0)
    model, count = tiny_model(), 0
    model.freeze_encoders()
    add = FeatureStore._add

    def counted(self: FeatureStore, paths: list[Path], features: Any) -> None:
        nonlocal count
        count += len(paths)
        add(self, paths, features)

    FeatureStore._add = counted  # type: ignore[method-assign]
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        with ranks.in_turn():
            samples = read_samples(config)
        [held] = [read for name, read in samples.items() if name == "image_text"]
        encode_media(config, model, held, {}, ranks=ranks)
    return count


def test_each_medium_is_encoded_by_one_rank(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnitune.data.samples.TOGETHER", 1)
    own = Path(shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("*/.*")))
    counts = whole(on_ranks(2, partial(encode_on, home=own)))
    config = sft_settings(own, freeze_encoders=True)
    torch.manual_seed(0)
    model = tiny_model()
    model.freeze_encoders()
    held = read_samples(config)["image_text"]
    paths = [medium.path for medium, _ in media_of(held)]
    assert sum(counts) == len({path.read_bytes() for path in paths})
    assert min(counts) > 0
    made = [
        FeatureStore(model.modalities["image"], model.encoders["image"].eval(), root)
        for root in (own / "data" / FEATURES_FOLDER, None)
    ]
    assert made[0].missing(paths) == []
    for path in paths:
        torch.testing.assert_close(made[0](path), made[1](path), atol=1e-3, rtol=1e-3)
