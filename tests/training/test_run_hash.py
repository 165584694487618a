"""The run hash: the same for what was read alike, another for anything else."""

from pathlib import Path
from typing import Any

import pytest
from helpers import MIX, shorten_answers
from helpers import sft_settings as settings

from omnitune.data.packing import Batch, Item, Origin
from omnitune.data.reading import split_of
from omnitune.data.template import Rendered
from omnitune.sources import SOURCES
from omnitune.training.loop import train
from omnitune.training.run_hash import RunHash, checksum_of, step_hashes
from omnitune.training.sft import TrainingSetup, build_training


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_answers(monkeypatch, 3)


def setup(home: Path, name: str, **rest: Any) -> TrainingSetup:
    values = {"max_steps": 6, "num_epochs": 9, "log_every": 2, "probe_questions": 1}
    return build_training(settings(home, name, **{**values, "epoch_questions": 1, **rest}))


def hash_of(made: TrainingSetup, steps: int = 6) -> str:
    """The hash of what a run would read."""
    chain, stream = made.strategy.hash, made.strategy.stream
    for step in range(1, steps + 1):
        for n in range((step - 1) * chain.per_step, step * chain.per_step):
            chain.note(n, stream.read_batch(n))
        chain.end_step(step)
    return chain.value


def test_it_is_of_what_is_read_and_of_nothing_else(home: Path) -> None:
    plain = hash_of(setup(home, "plain"))
    others = {
        "seed": {"seed": 1},
        "mix": {"data_mix": MIX | {"text_only": 0.9}},
        "pack": {"batch_size": 1, "gradient_accumulation": 4},
    }
    found = {name: hash_of(setup(home, name, **rest)) for name, rest in others.items()}
    assert len({plain, *found.values()}) == len(others) + 1
    assert hash_of(setup(home, "rate", learning_rate=1e-5, log_every=3)) == plain


def item(tokens: list[int], origin: Origin, shared: int = 0, **rest: Any) -> Item:
    values = {"supervised": [False, True, True][: len(tokens)], "added": []} | rest
    return Item("x", Rendered(tokens, **values), [], shared=shared, origin=origin)


def test_every_piece_counts() -> None:
    """Also where one piece ends and the next begins."""
    plain = Origin(3, "text_only", 1, 1, (0, 2))
    step = [[item([1, 2, 3], plain)], [item([4, 5], plain)]]
    others = [
        [step[1], step[0]],
        [step[0]],
        [[step[0][0], step[1][0]]],
        [[item([1, 2, 9], plain)], step[1]],
        [[item([1, 2], plain)], [item([3, 4, 5], plain)]],
        [[item([1, 2, 3], plain, supervised=[False, False, True])], step[1]],
        [[item([1, 2, 3], plain, added=[(7, 1)])], step[1]],
        [[item([1, 2, 3], plain, shared=1)], step[1]],
        [[item([1, 2, 3], plain._replace(asked=(2, 0)))], step[1]],
        [[item([1, 2, 3], plain._replace(asked=()))], step[1]],
        [[item([1, 2, 3], plain._replace(number=2))], step[1]],
        [[item([1, 2, 3], plain._replace(source="image_text"))], step[1]],
        [[item([1, 2, 3], plain._replace(k=4))], step[1]],
    ]

    def value(samples: list[list[Item]]) -> str:
        chain = RunHash({"text_only": [], "image_text": []}, {}, 1)
        chain.note(0, samples)
        chain.end_step(1)
        return chain.value

    assert len({value(samples) for samples in [step, *others]}) == 1 + len(others)
    assert value(step) == value([[item([1, 2, 3], plain)], [item([4, 5], plain)]])


def test_training_leaves_the_hash_of_its_batches(home: Path) -> None:
    made = setup(home, "trained")
    train(made.run)
    again = setup(home, "again")
    assert hash_of(again) == made.strategy.hash.value == made.run.state["run_hash"]


def test_a_changed_record_is_another_hash(home: Path) -> None:
    """Also where its tokens are the same, as a space does not show."""
    before = hash_of(setup(home, "record"))
    path = home / "data" / SOURCES["text_only"].file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"split": "train"', '"split":  "train"'), encoding="utf-8")
    try:
        assert hash_of(setup(home, "record")) != before
    finally:
        path.write_text(text, encoding="utf-8")
    assert hash_of(setup(home, "record")) == before


def test_batches_that_were_only_looked_at_do_not_count(home: Path) -> None:
    made = setup(home, "looked at")
    expected = hash_of(setup(home, "not looked at"))
    for number in (0, 5, 1, 900):
        made.run.batch_at(number)
    for step in range(1, 7):
        made.run.batch_at(step - 1)
        made.strategy.hash.end_step(step)
    assert made.strategy.hash.value == expected


def test_receipt_is_the_count_over_the_batches(home: Path) -> None:
    phases = [{"until": 0.5, "data_mix": {"image_text": 1}}, {}]
    made = setup(home, "receipt", phases=phases, gradient_accumulation=2)
    train(made.run)
    names, size = made.run.groups, len(made.run.groups)
    counts: dict[str, list[Any]] = {"1": [], "2": []}
    for number in range(12):
        batch = made.strategy.stream(number)
        assert isinstance(batch, Batch)
        supervised = [int((batch.group_N == g).sum()) for g in range(size)]
        samples, tokens = (row.int().tolist() for row in batch.shown_2G)
        counts["1" if number < 6 else "2"].append([*samples, *tokens, *supervised])
    receipt = made.strategy.receipt
    for phase, rows in counts.items():
        sums = [sum(column) for column in zip(*rows, strict=True)]
        for g, name in enumerate(names):
            row = receipt["phases"][phase].get(name)
            got = [row[key]["got"] if row else 0 for key in ("samples", "tokens", "supervised")]
            assert got == [sums[g], sums[size + g], sums[2 * size + g]]
    assert receipt["phases"]["1"]["image_text"]["samples"] == {
        "asked": 6 * made.strategy.stream.batch_size,
        "got": 6 * made.strategy.stream.batch_size,
        "share": 1.0,
    }
    for source, row in receipt["total"].items():
        for key in ("samples", "tokens", "supervised"):
            rows = [phase[source] for phase in receipt["phases"].values() if source in phase]
            assert row[key]["got"] == sum(r[key]["got"] for r in rows)


def test_a_step_that_is_left_out_is_hashed_and_not_counted(home: Path) -> None:
    made = setup(home, "left out")
    made.strategy.hash.note(0, made.strategy.stream.read_batch(0))
    made.strategy.count(1, None)
    assert made.run.state["left_out"] == [1]
    assert "receipt" not in made.run.state
    assert made.strategy.proof(1)["left_out"] == [1]
    assert made.strategy.hash.value == hash_of(setup(home, "left in"), 1)


def test_a_run_that_began_without_a_hash_gets_none(home: Path) -> None:
    """What was read before is not known."""
    made = setup(home, "older")
    for number in range(3):
        made.strategy.hash.note(number, made.strategy.stream.read_batch(number))
    assert made.strategy.hash.end_step(3)
    assert made.strategy.hash.value == ""
    assert made.strategy.proof(3) == {}


def test_checksums_are_those_of_the_index(home: Path) -> None:
    made = setup(home, "checksums")
    found = split_of(made.samples["text_only"], "train")
    [(file, numbers)] = found.pieces
    expected = [int(file.index.print_N[int(n)]) for n in numbers]
    assert [checksum_of(found, place) for place in range(len(found))] == expected
    assert checksum_of([], 0) == 0


def test_hashes_of_steps_are_read_off_the_log() -> None:
    state: dict[str, Any] = {}
    chain = RunHash({}, state, 1)
    values, entries = {}, []
    for step in range(1, 6):
        chain.note(step - 1, [])
        chain.end_step(step)
        values[step] = chain.value[:8]
        if step in (2, 5):
            entries.append({"step": step, **chain.notes()})
    assert step_hashes(entries) == values
    assert step_hashes([{"step": 3}, {"step_hashes": 4}]) == {}
    assert len(set(values.values())) == 5
