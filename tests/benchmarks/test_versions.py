"""What the benchmark compares trains the same: padded rows and every logit, or one packed row."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import mixed_samples, tiny_model, tiny_reader

from benchmarks.sft import shares, step_flops
from benchmarks.trainer import PaddedOmni, collate
from benchmarks.versions import VERSIONS, _EveryLogit, choose
from omnitune.data.packing import pack


def test_all_versions_have_the_same_loss(tmp_path: Path) -> None:
    samples = mixed_samples(tmp_path)
    expected = None
    for kind in ("packed", "every logit", "padded"):
        bench: Any = SimpleNamespace(model=tiny_model())
        items = [tiny_reader(bench.model).item(sample) for sample in samples]
        if kind == "padded":
            loss = PaddedOmni(bench)(**collate(items))["loss"]
        else:
            model = bench.model if kind == "packed" else _EveryLogit(bench)
            sums_G, counts_G = model(pack(items))
            loss = sums_G.sum() / counts_G.sum()
        expected = loss if expected is None else expected
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_useful_work_grows_with_the_tokens(tmp_path: Path) -> None:
    """Six FLOPs for each weight and token, and no padding: two copies of a sample are twice one."""
    model = tiny_model()
    samples = mixed_samples(tmp_path)

    def bench(*numbers: int) -> Any:
        chosen = [samples[n] for n in numbers]
        return SimpleNamespace(
            model=model,
            batch_size=8,
            reader=lambda: tiny_reader(model),
            items=lambda reader, k, share: [reader.item(chosen[k % len(chosen)])],
        )

    short, long, both = (step_flops(bench(*numbers), 1.0, 1) for numbers in ((0,), (3,), (0, 3)))
    assert both[0] == pytest.approx((short[0] + long[0]) / 2)
    assert both[1] == pytest.approx((short[1] + long[1]) / 2)


def test_shares_add_up_to_one() -> None:
    found = shares({"data": 1.0, "forward": 2.0}, encoders=1.0)
    assert found == {"encoders": 0.25, "data": 0.25, "forward": 0.5}
    assert shares({}, encoders=1.0) == {}


def test_versions_are_named_with_or_without_their_blanks() -> None:
    assert choose("|".join(VERSIONS)) == list(VERSIONS)
    assert choose("omnitune|with padded rows") == ["omnitune", "  with padded rows"]
    with pytest.raises(SystemExit, match=r"no 'omnitun'; there are 'Trainer, padded rows', "):
        choose("omnitun|omnitune")
