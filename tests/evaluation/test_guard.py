"""The text guard: no news from the same thinker, a warning from a damaged one."""

import copy

import pytest
import torch
from helpers import SENTENCES, conversation, tiny_model, tiny_reader

from omnitune.evaluation.guard import language_lost, text_guard, text_losses
from omnitune.evaluation.scoring import token_scoreboard

TEXTS = [
    conversation(f"t{n}", f"repeat {n}.", SENTENCES[n % 4], "again?", f"number {n}.")
    for n in range(12)
]


def test_the_same_thinker_has_lost_nothing() -> None:
    model = tiny_model()
    reader = tiny_reader(model)
    losses = text_losses(model, reader, TEXTS)
    guard = text_guard(losses, losses, TEXTS)
    plain = token_scoreboard(model, [reader.item(text) for text in TEXTS])
    assert guard["loss"] == guard["start"] == pytest.approx(plain["loss"], rel=1e-5)
    assert (guard["interval"], guard["records"]) == ([0, 0], len(TEXTS))
    assert language_lost(guard) == []


def test_a_damaged_thinker_is_warned_of() -> None:
    model = tiny_model()
    reader = tiny_reader(model)
    start = text_losses(model, reader, TEXTS)
    damaged = copy.deepcopy(model)
    with torch.no_grad():
        damaged.thinker.get_output_embeddings().weight.mul_(3)
    now = text_losses(damaged, reader, TEXTS)
    worse = text_guard(now, start, TEXTS)
    assert worse["loss"] > worse["start"]
    [message] = language_lost(worse)
    assert f"{worse['loss']:.3f}" in message
    assert f"{worse['start']:.3f}" in message
    better = text_guard(start, now, TEXTS)
    assert language_lost(better) == []


def test_noise_is_no_loss() -> None:
    now = [[5.0 + (-1) ** n, 4] for n in range(12)]
    start = [[5.0, 4] for _ in range(12)]
    assert language_lost(text_guard(now, start, TEXTS)) == []
    assert language_lost(text_guard([[6.0, 4]], [[5.0, 4]], TEXTS[:1])) == []  # of one, who knows


def test_autocast_around_it_changes_nothing() -> None:
    model = tiny_model()
    reader = tiny_reader(model)
    plain = text_losses(model, reader, TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert text_losses(model, reader, TEXTS) == plain
