"""Answers that are decoded together are those that each would have alone."""

import random
from collections.abc import Sequence

import pytest
import torch
from helpers import mixed_samples, tiny_model, tiny_reader

from omnitune.data.packing import Item
from omnitune.generation import generate
from omnitune.models.omni import OmniModel
from omnitune.serving.decoding import LENGTH, STOP, Row, RunningBatch, Sampling

LENGTHS = (12, 3, 1, 7, 20, 0, 9, 5, 16, 2)


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture(scope="module")
def prompts(model: OmniModel, tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    reader = tiny_reader(model)
    samples = mixed_samples(tmp_path_factory.mktemp("media"))
    short = [reader.prompt(sample.id, sample.messages[:1]) for sample in samples]
    return [*short, reader.prompt("talk", samples[0].messages[:3])]


def decode(batch: RunningBatch, arrivals: Sequence[tuple[int, Row]]) -> dict[Row, list[int]]:
    """Runs until all have ended; each row joins at its step, some beside others."""
    tokens: dict[Row, list[int]] = {row: [] for _, row in arrivals}
    step = 0
    while batch.rows or any(at >= step for at, _ in arrivals):
        if new := [row for at, row in arrivals if at == step]:
            batch.join(new)
        for row, drawn in batch.draw() if batch.rows else ():
            if drawn is not None:
                tokens[row].append(drawn.token)
        batch.advance()
        step += 1
    return tokens


@pytest.mark.parametrize("seed", range(8))
def test_who_joins_when_changes_no_answer(model: OmniModel, prompts: list[Item], seed: int) -> None:
    draw = random.Random(seed)
    ends = {5, 17} if seed % 2 else set[int]()
    rows = [Row(draw.choice(prompts), Sampling(draw.choice(LENGTHS))) for _ in range(12)]
    found = decode(RunningBatch(model, ends), [(draw.randrange(9), row) for row in rows])
    for row in rows:
        limit = row.sampling.max_new_tokens
        [expected] = generate(model, [row.item], ends, limit)
        assert found[row] == expected
        assert row.finish == (LENGTH if len(expected) == limit else STOP)


def test_draws_are_an_answers_own(model: OmniModel, prompts: list[Item]) -> None:
    def sampled(item: Item, seed: int) -> Row:
        return Row(item, Sampling(10, temperature=1.5, top_p=0.9, seed=seed))

    alone = [decode(RunningBatch(model, ()), [(0, sampled(i, 7))]) for i in prompts]
    rows = [sampled(item, 7) for item in prompts]
    greedy = [Row(item, Sampling(15)) for item in prompts]
    together = decode(RunningBatch(model, ()), list(enumerate([*rows, *greedy])))
    assert [together[row] for row in rows] == [t for found in alone for t in found.values()]
    others = decode(RunningBatch(model, ()), [(0, sampled(item, 8)) for item in prompts])
    assert list(others.values()) != [together[row] for row in rows]


def test_little_temperature_or_top_p_is_greedy(model: OmniModel, prompts: list[Item]) -> None:
    for settings in ({"temperature": 1e-4}, {"temperature": 2.0, "top_p": 1e-6}):
        rows = [Row(item, Sampling(10, seed=0, **settings)) for item in prompts]
        found = decode(RunningBatch(model, ()), [(0, row) for row in rows])
        assert list(found.values()) == generate(model, prompts, (), 10)


def test_draws_follow_the_probabilities(model: OmniModel, prompts: list[Item]) -> None:
    """Of the first token: how often each comes, beside what the model gives it."""
    rows = [Row(prompts[0], Sampling(1, temperature=1.0, seed=n)) for n in range(4000)]
    batch = RunningBatch(model, ())
    batch.join(rows)
    shares_V = batch._logits_BV[0].softmax(-1)
    tokens = torch.tensor([drawn.token for _, drawn in batch.draw() if drawn])
    found_V = torch.bincount(tokens, minlength=len(shares_V)) / len(rows)
    assert (found_V - shares_V).abs().max() < 0.03


def test_top_p_draws_from_no_more(model: OmniModel, prompts: list[Item]) -> None:
    rows = [Row(prompts[0], Sampling(1, temperature=1.0, top_p=0.5, seed=n)) for n in range(300)]
    batch = RunningBatch(model, ())
    batch.join(rows)
    shares, order = batch._logits_BV[0].softmax(-1).sort(descending=True)
    nucleus = order[: int((shares.cumsum(0) < 0.5).sum()) + 1].tolist()
    assert {drawn.token for _, drawn in batch.draw() if drawn} == set(nucleus)


def test_a_shared_prompt_is_read_once(model: OmniModel, prompts: list[Item]) -> None:
    read: list[int] = []
    handle = model.thinker.get_decoder().register_forward_hook(
        lambda module, args, kwargs, out: read.append(kwargs["inputs_embeds"].shape[0]),
        with_kwargs=True,
    )
    try:
        RunningBatch(model, ()).join([Row(prompts[1], Sampling(3)) for _ in range(4)])
    finally:
        handle.remove()
    assert read == [1]


def test_logprobs_are_those_of_the_distribution(model: OmniModel, prompts: list[Item]) -> None:
    batch = RunningBatch(model, ())
    rows = [Row(prompts[0], Sampling(3, top_logprobs=5)), Row(prompts[1], Sampling(3))]
    batch.join(rows)
    logs_V = batch._logits_BV[0].log_softmax(-1)
    (_, told), (_, plain) = batch.draw()
    assert told
    assert plain
    assert plain.others == ()
    assert told.logprob == pytest.approx(float(logs_V[told.token]))
    assert told.others[0] == (told.token, pytest.approx(told.logprob))
    assert [value for _, value in told.others] == sorted(
        (value for _, value in told.others), reverse=True
    )


def test_padding_goes_with_the_row_that_needed_it(model: OmniModel, prompts: list[Item]) -> None:
    long, short = sorted(prompts, key=lambda p: -len(p.rendered.tokens))[:: len(prompts) - 1]
    rows = [Row(long, Sampling(2)), Row(short, Sampling(9))]
    batch = RunningBatch(model, ())
    decode_steps = 4
    batch.join(rows)
    for _ in range(decode_steps):
        batch.draw()
        batch.advance()
    assert batch._cache.get_seq_length() == len(short.rendered.tokens) + decode_steps


def test_nothing_is_left_of_ended_answers(model: OmniModel, prompts: list[Item]) -> None:
    batch = RunningBatch(model, ())
    batch.join([Row(prompts[0], Sampling(1))])
    batch.draw()
    batch.advance()
    assert not batch.rows
    assert batch._cache.get_seq_length() == 0
