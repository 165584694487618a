"""Losses by record: what is kept of each, which stand out, and the sums of a step."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import MIX, shorten_answers
from helpers import sft_settings as settings
from rank_helpers import needs_fork, on_ranks, whole

from omnitune.data.packing import Batch, Origin
from omnitune.distributed.opening import open_ranks
from omnitune.models.omni import OmniModel
from omnitune.training import record_losses
from omnitune.training.loop import train
from omnitune.training.record_losses import FIRST, LAST, SEEN, RecordLosses
from omnitune.training.run_hash import Read
from omnitune.training.sft import build_training
from omnitune.training.taught import what_taught


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_answers(monkeypatch, 3)


def reads(*places: int, source: str = "text_only") -> list[Read]:
    return [Read(Origin(0, source, place, place, ()), 9, 3) for place in places]


def fed(losses: RecordLosses, *steps: dict[int, float]) -> RecordLosses:
    """Steps of losses a token by place, each of two tokens."""
    for step, by_place in enumerate(steps, start=1):
        sums = [2 * loss for loss in by_place.values()]
        losses.add(step, reads(*by_place), sums, [2.0] * len(sums))
    return losses


def test_first_and_last_loss_and_those_that_did_not_fall() -> None:
    steps = {0: 4.0, 1: 4.0, 2: 4.0}, {0: 1.0, 1: 5.0}, {0: 1.5, 1: 4.5, 3: 1.0}
    losses = fed(RecordLosses({"text_only": 5}, {}, 3), *steps)
    table = losses.of("text_only")
    assert table[:, SEEN].tolist() == [3, 3, 1, 1, 0]
    assert table[:, FIRST].tolist() == [4, 4, 4, 1, 0]
    assert table[:, LAST].tolist() == [1.5, 4.5, 4, 1, 0]
    assert losses.not_falling("text_only").tolist() == [1]
    assert losses.hardest("text_only", 2)[0] == 1
    assert set(losses.hardest("text_only", 9)) == {0, 1, 2, 3}
    assert losses.course("text_only") == [(0, 4.0), (3, 3.0), (6, pytest.approx(7 / 3))]


def test_a_record_is_compared_with_its_source_at_the_time() -> None:
    """All are hard at first: the one that is hard when the others no longer are stands out."""
    steps = [{0: 8.0, 1: 8.0}] + [{2: 1.0, 3: 1.0}] * 200 + [{4: 3.0}]
    losses = fed(RecordLosses({"text_only": 5}, {}, len(steps)), *steps)
    assert losses.hardest("text_only", 1) == [4]


def test_of_very_many_evenly_spaced_ones_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_losses, "ROWS", 4)
    losses = RecordLosses({"image_text": 5, "text_only": 10}, {}, 1)
    assert losses.stride == 4
    fed(losses, {0: 1.0, 3: 9.0, 4: 2.0, 8: 3.0})
    assert losses.of("text_only")[:, LAST].tolist() == [1, 2, 3]
    assert losses.of("image_text")[:, SEEN].tolist() == [0, 0]
    assert losses.hardest("text_only", 1) == [8]


def test_a_table_that_a_checkpoint_replaced_is_gone_on_with() -> None:
    state: dict[str, Any] = {}
    losses = fed(RecordLosses({"text_only": 2}, state, 9), {0: 1.0})
    state["records"] = state["records"].clone()
    fed(losses, {0: 3.0})
    assert state["records"][0].tolist()[:3] == [2, 1, 3]


def record(rank: int, home: Path, mode: str) -> torch.Tensor:
    """Trains three steps, holding what each was made of against its batches."""
    values: dict[str, Any] = {
        "max_steps": 3,
        "gradient_accumulation": 2,
        "probe_questions": 1,
        "epoch_questions": 1,
        "parallel": {"mode": mode},
    }
    config = settings(home, f"each {mode}", **values)
    seen: list[Any] = []
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        made = build_training(config, ranks=ranks)
        count = made.strategy.count

        def note(step: int, amounts: Any, each: Any) -> Any:
            seen.append((amounts, each))
            return count(step, amounts, each)

        made.strategy.count = note  # type: ignore[method-assign]
        train(made.run)
    for step, (amounts, each) in enumerate(seen):
        sums = [sum(sum(pair[k]) for pair in each) for k in range(2)]
        assert sums == pytest.approx([sum(amounts["loss"]), sum(amounts["supervised"])])
        batches = [made.strategy.stream(2 * step + n) for n in range(2)]
        for batch, (_, weights) in zip(batches, each, strict=True):
            assert isinstance(batch, Batch)
            places = torch.arange(len(weights))[:, None]
            assert weights == (batch.sample_N == places).sum(1).tolist()
    return made.run.state["records"]


@needs_fork
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_samples_losses_add_up_to_those_of_their_sources(home: Path, mode: str) -> None:
    """And are what the model gives for each sample, whatever the number of processes."""
    alone = record(0, home, "auto")
    for shared in whole(on_ranks(2, partial(record, home=home, mode=mode))):
        torch.testing.assert_close(alone, shared, rtol=3e-3, atol=3e-3)


def test_a_resumed_run_keeps_the_losses_of_its_records(home: Path) -> None:
    values: dict[str, Any] = {"max_steps": 6, "save_every": 2, "probe_questions": 1}
    straight = build_training(settings(home, "one go", **values))
    train(straight.run)
    config = settings(home, "two goes", **values)
    broken = build_training(config)
    stream = broken.run.batch_at

    def until(number: int, *part: Any) -> Any:
        if number >= 3:
            raise SystemExit
        return stream(number, *part)

    broken.run.batch_at = until
    with pytest.raises(SystemExit):
        train(broken.run)
    again = build_training(config, resume=True)
    train(again.run)
    for key in ("source_losses", "source_mean"):
        assert again.run.state[key] == straight.run.state[key]
    assert torch.equal(again.run.state["records"], straight.run.state["records"])


def test_records_that_stand_out_are_asked_again(home: Path) -> None:
    made = build_training(settings(home, "taught", max_steps=12, num_epochs=9, probe_questions=1))
    train(made.run)
    assert isinstance(made.model, OmniModel)
    found = what_taught(made.model, made.reader, made.samples, made.strategy.losses)
    assert set(found) == set(MIX)
    for source, entry in found.items():
        assert entry["records"] == entry["followed"] == 4
        assert entry["seen"] == 4
        assert entry["start"] > 0 < entry["end"]
        hardest = entry["hardest"]
        assert [e["loss"] for e in hardest] == sorted((e["loss"] for e in hardest), reverse=True)
        assert len(entry["never_learnt"]) <= entry["not_falling"] <= entry["seen_twice"]
        for e in hardest:
            assert Path(e["file"]).is_file()
            assert e["reference"].startswith("number ")
            assert (e["right"] is None) == (source == "text_only")
            assert e["record"] in range(1, 5)
            assert all(Path(path).is_file() for _, path in e["media"])
