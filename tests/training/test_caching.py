"""Whether media are encoded once: decided by rule, kept on resuming, and no matter for losses."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ENCODERS, tiny_model, tiny_tokenizer
from helpers import sft_settings as settings

from omnitune.data.loader import SampleReader
from omnitune.data.template import ChatRenderer
from omnitune.sample import UserError
from omnitune.storage import write_json
from omnitune.training.caching import choose_cached, encode_media
from omnitune.training.output_dir import CACHE_NOTE
from omnitune.training.sft import build_run, read_samples

FREE = 10**6


@pytest.mark.parametrize(
    ("passes", "rows", "chosen"),
    [
        ({"image": 5.0, "audio": 1.5}, 10, ["image", "audio"]),
        ({"image": 1.0, "audio": 5.0}, 10, ["audio"]),  # each picture is met once
        ({"image": 0.3}, 10, []),
        ({"image": 5.0}, FREE, []),  # more than the disk has
    ],
)
def test_rows_are_kept_if_they_fit_and_are_met_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passes: dict[str, float],
    rows: int,
    chosen: list[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=FREE))
    slots = dict.fromkeys(passes, rows)
    assert choose_cached(tiny_model(), passes, slots, tmp_path / "none")[0] == chosen


def test_rows_that_are_there_take_no_more_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    model, rows = tiny_model(), 10
    store = tmp_path / "image-of-an-encoder"
    store.mkdir()
    (store / "rows-f16.bin").write_bytes(bytes(2 * model.modalities["image"].feature_dim * rows))
    for slots, chosen in ((rows, ["image"]), (rows + 1, [])):
        assert choose_cached(model, {"image": 5.0}, {"image": slots}, tmp_path)[0] == chosen


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_same_losses_with_and_without_the_cache(home: Path, cache: str) -> None:
    config = settings(home, cache, feature_cache=cache)
    samples = read_samples(config)
    model = tiny_model()
    model.freeze_encoders()
    features = encode_media(config, model, [s for found in samples.values() for s in found], {})
    assert set(features) == (set() if cache == "off" else set(ENCODERS))
    reader = SampleReader(
        ChatRenderer(tiny_tokenizer()), model.modalities, features, config.max_tokens
    )
    run = build_run(config, model, reader, samples)
    loss, count = model(run.batch_at(0))
    direct = SampleReader(ChatRenderer(tiny_tokenizer()), model.modalities)
    expected, _ = model(build_run(config, model, direct, samples).batch_at(0))
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=5e-2)
    assert count.sum() > 0


def test_cache_is_decided_once_for_a_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(home, "decided", num_epochs=1)
    samples = [s for found in read_samples(config).values() for s in found]
    model = tiny_model()
    assert encode_media(config, model, samples, {}) == {}
    assert "feature cache: off (no medium is met twice" in capsys.readouterr().out
    write_json(config.out / CACHE_NOTE, {"modalities": ["image"]})
    assert set(encode_media(config, model, samples, {}, resume=True)) == {"image"}
    assert "feature cache: image (as the run began)" in capsys.readouterr().out
    write_json(config.out / CACHE_NOTE, {"modalities": []})
    longer = config.model_copy(update={"num_epochs": 2})
    assert encode_media(longer, model, samples, {}, resume=True) == {}
    assert set(encode_media(longer, model, samples, {})) == set(ENCODERS)  # of an earlier run


def test_cache_of_encoders_that_move_is_refused(home: Path) -> None:
    config = settings(home, freeze_encoders=False, feature_cache="on")
    with pytest.raises(UserError, match="feature_cache is on, but the encoders are trained"):
        encode_media(config, tiny_model(), [], {})
    auto = settings(home, freeze_encoders=False)
    assert encode_media(auto, tiny_model(), [], {}) == {}
