"""Packing: shifted labels, isolated samples, and slots that hold their own medium's rows."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import conversation, tiny_reader, tiny_tokenizer

from omnitune.data.packing import Item, of_like_length, pack, share_prefix
from omnitune.data.template import ChatRenderer
from omnitune.models.omni import OmniModel
from omnitune.sample import Message, Sample, Text, UserError
from omnitune.tiny.pseudo_features import PseudoFeatures


@pytest.fixture(scope="module")
def items(model: OmniModel, samples: list[Sample]) -> list[Item]:
    return [tiny_reader(model).item(sample) for sample in samples]


def nll(model: OmniModel, items: list[Item]) -> list[torch.Tensor]:
    """Of each item, in one packed row: its supervised tokens' losses."""
    grouped = [replace(item, group=n) for n, item in enumerate(items)]
    batch = pack(grouped, len(items))
    scores = model.token_scores(batch).nll_N
    return [scores[batch.group_N == n] for n in range(len(items))]


def test_labels_are_shifted_by_one(items: list[Item]) -> None:
    batch = pack(items)
    assert torch.equal(batch.labels_N, batch.tokens_T[batch.predict_N + 1])
    tokens, supervised = [], []
    for item in items:
        tokens += item.rendered.tokens
        supervised += item.rendered.supervised
    assert batch.tokens_T.tolist() == tokens
    expected = [n - 1 for n, learnt in enumerate(supervised) if learnt]
    assert batch.predict_N.tolist() == expected
    assert batch.num_targets == sum(supervised)


def test_first_prediction_of_an_answer_stands_on_the_opened_turn(items: list[Item]) -> None:
    batch = pack(items)
    opened = ChatRenderer(tiny_tokenizer()).id_of("<|assistant|>")
    first = [int(batch.predict_N[batch.turn_N == n][0]) for n in batch.turn_N.unique()]
    assert [int(batch.tokens_T[place]) for place in first] == [opened] * 6


def test_positions_start_anew_in_each_sample(items: list[Item]) -> None:
    batch = pack(items)
    expected = [n for item in items for n in range(len(item.rendered.tokens))]
    assert batch.positions_T.tolist() == expected


def test_groups_and_turns_are_numbered(items: list[Item]) -> None:
    batch = pack([replace(item, group=n % 2) for n, item in enumerate(items)], 2)
    sizes = [sum(item.rendered.supervised) for item in items]
    assert batch.group_N.tolist() == [n % 2 for n, size in enumerate(sizes) for _ in range(size)]
    lengths = [past - first for item in items for _, first, past in item.rendered.turns]
    assert batch.turn_N.tolist() == [n for n, size in enumerate(lengths) for _ in range(size)]


def test_pretraining_supervises_every_token_but_the_first(items: list[Item]) -> None:
    batch = pack(items, prompt_weight=0.25)
    assert len(batch.labels_N) == sum(len(item.rendered.tokens) - 1 for item in items)
    answers = sum(sum(item.rendered.supervised) for item in items)
    others = len(batch.labels_N) - answers
    assert batch.num_targets == pytest.approx(answers + 0.25 * others)
    assert int((batch.weight_N == 1).sum()) == answers
    starts = {n for n, place in enumerate(batch.positions_T.tolist()) if place == 0}
    assert not starts & {n + 1 for n in batch.predict_N.tolist()}


def test_an_answer_of_weight_0_is_no_target_in_pretraining_either(model: OmniModel) -> None:
    talk = conversation("talk", "hello", "the sky", "and?", "the river.")
    asked, answer, *rest = talk.messages
    masked = replace(talk, messages=(asked, replace(answer, weight=0), *rest))
    reader = tiny_reader(model)
    whole, item = reader.item(talk), reader.item(masked)
    [(first, past)] = item.rendered.masked
    before, batch = pack([whole, whole], 1, 0.25), pack([whole, item], 1, 0.25)
    assert len(before.labels_N) - len(batch.labels_N) == past - first
    assert before.num_targets - batch.num_targets == past - first
    assert len(pack([item], 1, 0.0).labels_N) == sum(item.rendered.supervised)


def test_answers_weigh_by_a_power_of_their_length(items: list[Item]) -> None:
    turns = [
        sum(item.rendered.supervised[first:past])
        for item in items
        for _, first, past in item.rendered.turns
    ]
    lengths = [n for n in turns if n]
    assert len(set(lengths)) > 1
    assert pack(items).num_targets == sum(lengths)
    assert pack(items, loss_length_exponent=1.0).num_targets == pytest.approx(len(lengths))
    half = pack(items, prompt_weight=0.25, loss_length_exponent=0.5)
    rest = sum(len(item.rendered.tokens) - 1 for item in items) - sum(lengths)
    assert half.num_targets == pytest.approx(sum(n**0.5 for n in lengths) + 0.25 * rest)


def test_segments_that_share_nothing_take_no_mask(model: OmniModel) -> None:
    reader = tiny_reader(model)
    asked = ["hello", "hello again", "the sky", "what is it?", "what is that?"]
    *alone, one, other = [reader.item(conversation(text, text, "yes.")) for text in asked]
    shared = [one, other]
    share_prefix(shared)
    segments = pack([*shared, *alone]).segments
    kinds = [mask is None for mask in segments.masks]
    assert kinds == sorted(kinds, reverse=True)
    counts = {True: 0, False: 0}
    for gather_BL, plain in zip(segments.gathers, kinds, strict=True):
        counts[plain] += len(gather_BL)
    assert counts == {True: 3, False: 1}
    assert len(segments.scatter_T.unique()) == len(segments.scatter_T)


@pytest.mark.parametrize("at_most", [1, 3, 100])
@pytest.mark.parametrize("positions", [1, 40, 1000])
def test_batches_are_of_like_length_and_none_is_too_large(at_most: int, positions: int) -> None:
    draw = random.Random(0)
    lengths = [draw.randint(1, 60) for _ in range(50)]
    batches = list(of_like_length(lengths, at_most, positions))
    in_order = [n for batch in batches for n in batch]
    assert sorted(in_order) == list(range(50))
    assert [lengths[n] for n in in_order] == sorted(lengths)
    padded = [len(batch) * lengths[batch[-1]] for batch in batches]
    for batch, size in zip(batches, padded, strict=True):
        assert len(batch) == 1 or (len(batch) <= at_most and size <= positions)
    # None could have taken the first of the next.
    for batch, other in pairwise(batches):
        assert len(batch) == at_most or (len(batch) + 1) * lengths[other[0]] > positions
    assert list(of_like_length([], at_most, positions)) == []


def test_packed_equals_separate(model: OmniModel, items: list[Item]) -> None:
    """Media of both modalities, unlike lengths, any order."""
    alone = [nll(model, [item])[0] for item in items]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [1, 1, 3]):
        together = nll(model, [items[n] for n in order])
        for n, losses in zip(order, together, strict=True):
            torch.testing.assert_close(losses, alone[n], atol=1e-5, rtol=0)
    assert all(losses.numel() for losses in alone)


@pytest.mark.parametrize("place", range(5))
def test_changing_one_sample_changes_no_other(
    model: OmniModel, items: list[Item], place: int
) -> None:
    before = nll(model, items)
    changed = replace(items[place], rendered=replace(items[place].rendered))
    tokens = changed.rendered.tokens
    learnt = changed.rendered.supervised
    changed.rendered.tokens = [
        token if placeholder else (token + 1) % 250
        for token, placeholder in zip(tokens, _placeholders(changed), strict=True)
    ]
    changed.media = [torch.randn_like(tensor) for tensor in changed.media]
    assert changed.rendered.supervised == learnt
    after = nll(model, [changed if n == place else item for n, item in enumerate(items)])
    for n in range(5):
        difference = (before[n] - after[n]).abs().max()
        assert (difference > 1e-2) if n == place else (difference < 1e-5)


def _placeholders(item: Item) -> list[bool]:
    inside = [False] * len(item.rendered.tokens)
    for slot in item.rendered.slots:
        inside[slot.start : slot.start + slot.count] = [True] * slot.count
    return inside


def test_each_answer_depends_on_its_own_medium(model: OmniModel, items: list[Item]) -> None:
    before = nll(model, items)
    for place, item in enumerate(items):
        if not item.media:
            continue
        other = replace(item, media=[-tensor for tensor in item.media])
        after = nll(model, [other if n == place else it for n, it in enumerate(items)])
        assert (before[place] - after[place]).abs().max() > 1e-3


def test_media_of_a_sample_are_not_swapped(model: OmniModel, items: list[Item]) -> None:
    """Two pictures in one row: each one's slots hold its own rows."""
    batch = pack([items[1], items[4]])
    rows = batch.media["image"]
    inputs = [item.media[0] for item in (items[1], items[4])]
    embedded = model.embed(batch.tokens_T, batch.media)[rows.slots_R]
    expected = [model.proj_v(model.encode("image", [x])[0]) for x in inputs]
    torch.testing.assert_close(embedded, torch.cat(expected), atol=1e-5, rtol=0)
    placeholder = ChatRenderer(tiny_tokenizer()).id_of("<|image|>")
    assert batch.tokens_T[rows.slots_R].unique().tolist() == [placeholder]
    assert (batch.tokens_T == placeholder).sum() == len(rows.slots_R)


def test_questions_about_one_medium_share_it(model: OmniModel, samples: list[Sample]) -> None:
    """Each question's losses are as if it stood alone, and their gradients too."""
    turns = ("which color?", "red.", "which color is it?", "red or blue.", "sky?", "air above us.")
    album = conversation("a", *turns, media=samples[4].media, independent_turns=True)
    reader = tiny_reader(model)
    separate = [reader.item(single) for single in album.split_turns()]
    other = reader.item(samples[2])
    items = [other, *(replace(item) for item in separate), reader.item(samples[0])]
    share_prefix(items[1:4])
    assert [item.shared > separate[0].rendered.slots[-1].start for item in items] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert len(pack(items).tokens_T) < sum(len(item.rendered.tokens) for item in items)
    assert len(pack(items).media["image"].inputs) == 1
    expected = nll(model, [other, *separate, reader.item(samples[0])])
    for found, alone in zip(nll(model, items), expected, strict=True):
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    gradients = []
    for packed in (items[1:4], separate):
        model.zero_grad()
        model(pack(packed))[0].sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    for shared, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, alone, atol=1e-4, rtol=1e-3)


def test_a_prefix_is_shared_only_as_far_as_the_media_are_the_same(
    model: OmniModel, samples: list[Sample]
) -> None:
    """Placeholders look alike; the pictures behind them may not."""
    reader = tiny_reader(model)
    items = [reader.item(samples[1]), reader.item(samples[4]), reader.item(samples[1])]
    share_prefix(items)
    assert [item.shared for item in items[:2]] == [0, 1]
    first = items[0].rendered
    assert items[2].shared == first.supervised.index(True)  # the answer is still learnt
    assert len(pack([items[0], items[2]]).labels_N) == 2 * sum(first.supervised)


def test_words_of_one_slot_are_heard_together(model: OmniModel) -> None:
    """Each slot's embedding is the sum of its words'; an empty one is the placeholder's."""
    renderer = ChatRenderer(tiny_tokenizer())
    glimpse = PseudoFeatures("image", ("red circle", "", "sky"))
    turns = (Message("user", (glimpse, Text("what?"))), Message("assistant", (Text("red."),)))
    rendered = renderer.render(turns)
    words = renderer.encode("red circle")
    placeholder = renderer.id_of("<|image|>")
    expected = [words[0], placeholder, renderer.encode("sky")[0]]
    assert rendered.tokens[1:4] == expected
    batch = pack([Item("before", rendered, []), Item("x", rendered, [])])
    start = len(rendered.tokens)
    firsts = [(token, place + start) for token, place in rendered.added]
    added = list(zip(batch.added_M.tolist(), batch.at_M.tolist(), strict=True))
    assert added == rendered.added + firsts
    assert [token for token, place in rendered.added if place == 1] == list(words[1:])
    plain = pack([Item("x", replace(rendered, added=[]), [])])
    one = pack([Item("x", rendered, [])])
    assert not torch.allclose(model.token_scores(plain).nll_N, model.token_scores(one).nll_N)


@pytest.mark.parametrize("rows", [3, 5, 1, 0])
def test_wrong_number_of_feature_rows_names_the_sample(items: list[Item], rows: int) -> None:
    assert items[1].rendered.slots[0].count == 4
    wrong = replace(items[1], media=[torch.zeros(rows, 64)], raw=frozenset())
    with pytest.raises(UserError, match=rf"sample image: .*one\.png has {rows} feature rows for 4"):
        pack([replace(items[0], raw=frozenset()), wrong])


def test_wrong_number_of_encoder_rows_is_an_error(model: OmniModel, items: list[Item]) -> None:
    """An encoder that gives another number than announced must not be spread over the slots."""
    batch = pack([items[2]])
    batch.media["audio"].slots_R = batch.media["audio"].slots_R[:-1]
    with pytest.raises(UserError, match="audio feature rows"):
        model(batch)


def test_batch_moves_as_a_whole(items: list[Item]) -> None:
    moved = pack(items).to(torch.device("meta"))
    tensors = [moved.tokens_T, *moved.segments.gathers, moved.media["image"].slots_R]
    tensors += moved.media["audio"].inputs
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.ids == [item.id for item in items]


def test_sample_without_an_answer_carries_no_loss(model: OmniModel) -> None:
    prompt = tiny_reader(model).prompt("x", conversation("x", "hello", "y").messages[:1])
    assert pack([prompt]).num_targets == 0
    loss, count = model(pack([prompt]))
    assert (loss.sum(), count.sum()) == (0, 0)


def test_sharing_goes_on_after_an_item_with_nothing_in_common(model: OmniModel) -> None:
    """Later items share with the last whole one, whose tokens are not the first's."""
    reader = tiny_reader(model)
    asked = [reader.item(conversation(n, f"sky? {n}", f"{n}.")) for n in ("a", "b", "c")]
    spoken = (Message("system", (Text("sky."),)), *conversation("s", "sky?", "air.").messages)
    system = reader.item(replace(conversation("s", "sky?", "air."), messages=spoken))
    items = [asked[0], system, asked[1], asked[2]]
    expected = nll(model, [replace(item) for item in items])
    share_prefix(items)
    assert items[1].shared == 0
    for found, alone in zip(nll(model, items), expected, strict=True):
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
