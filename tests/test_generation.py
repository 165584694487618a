"""Decoding: batched, cached and streamed, it says what a plain forward pass would."""

from pathlib import Path

import pytest
import torch
from helpers import mixed_samples, tiny_model, tiny_reader

from omnitune.data.packing import Item, pack
from omnitune.generation import generate, left_pad, stream
from omnitune.models.omni import OmniModel
from omnitune.sample import Message, Text
from omnitune.tiny.pseudo_features import PseudoFeatures

LENGTH = 12
NEVER: tuple[int, ...] = ()  # no token ends an answer


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture(scope="module")
def prompts(model: OmniModel, tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Of unlike length: media of both modalities, a long text, slots of several words each."""
    reader = tiny_reader(model)
    samples = mixed_samples(tmp_path_factory.mktemp("media"))
    short = [reader.prompt(sample.id, sample.messages[:1]) for sample in samples]
    glimpse = Message(
        "user", (PseudoFeatures("image", ("", "red circle", "blue square")), Text("what?"))
    )
    return [*short, reader.prompt("talk", samples[0].messages[:3]), reader.prompt("g", [glimpse])]


@torch.no_grad()
def from_scratch(model: OmniModel, prompt: Item, end: int, length: int) -> list[int]:
    """Greedy answer without a cache: the whole sequence anew for every token."""
    batch = pack([prompt])
    embeds = model.embed_batch(batch)
    answer: list[int] = []
    while len(answer) < length:
        hidden = model.thinker.get_decoder()(
            inputs_embeds=embeds[None], use_cache=False, is_causal=True
        ).last_hidden_state
        token = int(model.thinker.get_output_embeddings()(hidden[0, -1]).argmax())
        if token == end:
            break
        answer.append(token)
        embeds = torch.cat([embeds, model.thinker.get_input_embeddings()(torch.tensor([token]))])
    return answer


@pytest.fixture(scope="module")
def references(model: OmniModel, prompts: list[Item]) -> list[list[int]]:
    return [from_scratch(model, prompt, NEVER, LENGTH) for prompt in prompts]


def test_every_word_of_a_slot_is_heard(model: OmniModel) -> None:
    reader = tiny_reader(model)
    seen = []
    for words in ("red circle", "red square"):
        message = Message("user", (PseudoFeatures("image", (words,)), Text("what?")))
        embeds_BPE, _ = left_pad(model, [reader.prompt("g", [message])])
        seen.append(embeds_BPE)
    assert not torch.equal(*seen)


def test_cached_equals_recomputed(
    model: OmniModel, prompts: list[Item], references: list[list[int]]
) -> None:
    for prompt, reference in zip(prompts, references, strict=True):
        assert generate(model, [prompt], NEVER, LENGTH) == [reference]
    assert len({tuple(reference) for reference in references}) == len(prompts)
    assert max(len(set(reference)) for reference in references) > 3  # no mere repetition


@pytest.mark.parametrize("batch_size", [1, 2, 4, 32])
def test_batched_equals_one_by_one(
    model: OmniModel, prompts: list[Item], references: list[list[int]], batch_size: int
) -> None:
    lengths = {len(prompt.rendered.tokens) for prompt in prompts}
    assert len(lengths) == len(prompts)
    assert generate(model, prompts, NEVER, LENGTH, batch_size) == references
    backwards = generate(model, prompts[::-1], NEVER, LENGTH, batch_size)
    assert backwards == references[::-1]


def test_finished_rows_stop_and_the_others_go_on(
    model: OmniModel, prompts: list[Item], references: list[list[int]]
) -> None:
    """With a token as end that some answers hold, at unlike places."""
    places = {
        token: [r.index(token) if token in r else LENGTH for r in references]
        for token in {t for r in references for t in r}
    }
    end = max(places, key=lambda token: len(set(places[token])))
    assert len(set(places[end])) > 1
    expected = [r[:place] for r, place in zip(references, places[end], strict=True)]
    assert generate(model, prompts, {end}, LENGTH) == expected
    lengths: list[int] = [0] * len(prompts)
    for number, step in enumerate(stream(model, prompts, {end}, LENGTH)):
        for row, token in step:
            assert token == expected[row][number]
            lengths[row] += 1
    assert lengths == places[end]


def test_answer_that_ends_at_once_is_empty(
    model: OmniModel, prompts: list[Item], references: list[list[int]]
) -> None:
    assert list(stream(model, prompts[:1], {references[0][0]}, LENGTH)) == []
    assert generate(model, prompts[:1], {references[0][0]}, LENGTH) == [[]]


@pytest.mark.parametrize("length", [0, 1, 5])
def test_longest_answer(
    model: OmniModel, prompts: list[Item], references: list[list[int]], length: int
) -> None:
    answers = generate(model, prompts, NEVER, length)
    assert answers == [reference[:length] for reference in references]


def test_longest_answer_of_each(
    model: OmniModel, prompts: list[Item], references: list[list[int]]
) -> None:
    lengths = [n % 4 for n in range(len(prompts))]
    answers = generate(model, prompts, NEVER, lengths)
    expected = [reference[:n] for reference, n in zip(references, lengths, strict=True)]
    assert answers == expected


def test_no_more_forward_passes_than_needed(
    model: OmniModel, prompts: list[Item], references: list[list[int]]
) -> None:
    """One for each token that is asked for, the end included."""
    calls: list[int] = []
    handle = model.thinker.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    try:
        next(stream(model, prompts[:1], NEVER, 100))
        assert len(calls) == 1
        calls.clear()
        end = references[0][3]
        assert len(generate(model, prompts[:1], {end}, 100)[0]) == references[0].index(end)
        assert len(calls) == references[0].index(end) + 1
    finally:
        handle.remove()


def test_tokens_are_streamed_one_at_a_time(
    model: OmniModel, prompts: list[Item], references: list[list[int]]
) -> None:
    steps = list(stream(model, prompts, NEVER, LENGTH))
    assert len(steps) == LENGTH
    assert all([row for row, _ in step] == list(range(len(prompts))) for step in steps)
    assert [[step[row][1] for step in steps] for row in range(len(prompts))] == references


def test_nothing_asked_nothing_answered(model: OmniModel) -> None:
    assert generate(model, [], NEVER, LENGTH) == []


def test_no_graph_is_kept(model: OmniModel, prompts: list[Item]) -> None:
    assert any(p.requires_grad for p in model.parameters())
    before = [p.grad for p in model.parameters()]
    generate(model, prompts, NEVER, 2)
    assert before == [p.grad for p in model.parameters()]
    assert torch.is_grad_enabled()


def test_answer_depends_on_the_medium(
    model: OmniModel, prompts: list[Item], references: list[list[int]], tmp_path: Path
) -> None:
    noise = torch.Generator().manual_seed(0)
    for number in (1, 2):
        prompt = prompts[number]
        media = [5 * torch.randn(x.shape, generator=noise) for x in prompt.media]
        other = Item(prompt.id, prompt.rendered, media, 0, prompt.raw)
        assert generate(model, [other], NEVER, LENGTH) != [references[number]]
