"""From samples to batches: a batch is a function of its number, and nothing is cut."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import conversation, tiny_model, tiny_reader, write_wave

from omnitune.data.feature_cache import FeatureStore
from omnitune.data.loader import WINDOW, BatchStream, as_asked, pack_into_bins, take, work
from omnitune.data.mixture import Mixture
from omnitune.data.packing import Shard, pack
from omnitune.data.rounding import round_up
from omnitune.data.schedule import SamplingSchedule, Segment
from omnitune.data.schema import Record
from omnitune.models.omni import OmniConfig, OmniModel
from omnitune.sample import Media, Message, Sample, Text, UserError


def stores(model: OmniModel, *names: str) -> dict[str, FeatureStore]:
    return {n: FeatureStore(model.modalities[n], model.encoders[n], None) for n in names}


def stream(model: OmniModel, samples: list[Sample], batch_size: int = 4) -> BatchStream:
    groups = {"text_only": samples[:1], "image_text": samples[1:2], "audio_text": samples[2:]}
    sizes = {name: len(found) for name, found in groups.items()}
    mixture = Mixture(sizes, {"text_only": 1, "image_text": 1, "audio_text": 2}, seed=0)
    return BatchStream(tiny_reader(model), groups, mixture, batch_size)


def by_tokens(model: OmniModel, samples: list[Sample], tokens: int) -> BatchStream:
    plain = stream(model, samples)
    return BatchStream(plain.reader, plain.samples, plain.mixture, 4, tokens_per_batch=tokens)


def test_batches_of_so_many_tokens_hold_every_sample_once(
    model: OmniModel, samples: list[Sample]
) -> None:
    batches = by_tokens(model, samples, 400)
    count = batches.batch_size
    plain = BatchStream(batches.reader, batches.samples, batches.mixture, count)
    expected = [i for n in range(WINDOW) for i in plain(n).ids]
    assert sorted(i for n in range(WINDOW) for i in batches(n).ids) == sorted(expected)
    lengths = [len(batches(n).tokens_T) for n in range(WINDOW)]
    longest = max(len(batches.reader.item(sample).rendered.tokens) for sample in samples)
    assert max(lengths) - min(lengths) <= longest
    assert sum(lengths) / WINDOW == pytest.approx(400, rel=0.2)
    assert len(batches) == len(plain)


def test_batch_of_so_many_tokens_depends_on_its_number_alone(
    model: OmniModel, samples: list[Sample]
) -> None:
    straight, later = (by_tokens(model, samples, 300) for _ in range(2))
    ahead = [straight(n).tokens_T for n in range(40)]
    for number in (37, 2, 21):
        assert torch.equal(later(number).tokens_T, ahead[number])


def test_window_does_not_reach_over_a_change_of_the_mix(
    model: OmniModel, samples: list[Sample]
) -> None:
    """Of the samples before it and after it none is lost, and batches stay functions of k."""
    plain = by_tokens(model, samples, 300)
    size, sizes = plain.batch_size, plain.mixture.sizes
    change = 5 * size
    later: dict[str, float] = {"text_only": 1, "image_text": 5, "audio_text": 1}
    weights: dict[str, float] = {"text_only": 1, "image_text": 1, "audio_text": 2}
    stretches = [Segment(0, weights, sizes), Segment(change, later, sizes)]
    course = SamplingSchedule(sizes, stretches, 0, ranked=lambda name: np.arange(sizes[name]))
    plain.follow(course)
    assert plain.window(change - 1, WINDOW * size) == (0, change)
    assert plain.window(change, WINDOW * size) == (change, change + WINDOW * size)
    for numbers in (range(5), range(5, 5 + WINDOW)):
        dealt = [i for n in numbers for i in plain(n).ids]
        places = [course.sample_at(k) for n in numbers for k in range(n * size, (n + 1) * size)]
        assert sorted(dealt) == sorted(plain.samples[name][index].id for name, index in places)


def test_later_reader_takes_over_from_its_sample_on(
    model: OmniModel, samples: list[Sample]
) -> None:
    cached = stream(model, samples)
    cached.reader = tiny_reader(model, features=stores(model, "image", "audio"))
    assert isinstance(cached.mixture, Mixture)
    course = SamplingSchedule(
        cached.mixture.sizes,
        [Segment(0, {"audio_text": 1}, {"audio_text": 3})],
        0,
        ranked=lambda name: np.arange(3),
    )
    raw = cached.reader.without_features({"audio"})
    cached.samples = {"audio_text": samples[2:4] * 2}
    cached.groups = ["audio_text"]
    cached.follow(course, [(4, raw)])
    assert cached(0).media["audio"].features_RD is not None
    assert cached(1).media["audio"].features_RD is None
    assert len(cached(1).media["audio"].inputs) == 4
    assert set(raw.features) == {"image"}
    assert set(cached.reader.features) == {"image", "audio"}


def test_batch_knows_its_samples_and_tokens_by_group(model: OmniModel) -> None:
    """A sample whose questions are asked alone is one; what they share stands in the row once."""
    turns = ("sky?", "blue.", "river?", "quiet.")
    album = [conversation(f"s{n}", *turns, independent_turns=True) for n in range(6)]
    made = BatchStream(
        tiny_reader(model),
        {"text_only": album[:3], "image_text": album[3:]},
        Mixture({"text_only": 3, "image_text": 3}, {"text_only": 2, "image_text": 1}, 0),
        6,
        multi_turn_prob=0.0,
    )
    batch = made(0)
    assert len(batch.ids) == 12
    assert batch.shown_2G[0].tolist() == [4, 2]
    assert batch.shown_2G[1].sum() == len(batch.tokens_T)
    assert torch.equal(round_up(batch).shown_2G, batch.shown_2G)
    items = [made.reader.item(s, group) for group, s in enumerate(album[0].split_turns())]
    lengths = [len(item.rendered.tokens) for item in items]
    assert pack(items, 3).shown_2G.tolist() == [[1, 1, 0], [*lengths, 0]]


def test_dealt_lengths_are_even() -> None:
    dealt = pack_into_bins([9, 1, 8, 2, 7, 3, 6, 4], 4)
    assert sorted(n for numbers in dealt for n in numbers) == list(range(8))
    assert [numbers == sorted(numbers) for numbers in dealt] == [True] * 4
    assert {sum([9, 1, 8, 2, 7, 3, 6, 4][n] for n in numbers) for numbers in dealt} == {10}


@pytest.mark.parametrize("count", [2, 3, 6])
def test_parts_of_a_batch_hold_its_samples_once(
    model: OmniModel, samples: list[Sample], count: int
) -> None:
    batches = stream(model, samples)
    for number in range(4):
        parts = [batches(number, Shard(rank, count)) for rank in range(count)]
        found = [part for part in parts if part is not None]
        assert len(found) == min(count, 4)
        whole = batches(number)
        assert whole is not None
        assert sorted(name for part in found for name in part.ids) == sorted(whole.ids)
        assert sum(part.num_targets for part in found) == whole.num_targets


def test_parts_are_dealt_by_work_and_not_by_tokens_alone(
    model: OmniModel, samples: list[Sample]
) -> None:
    """A medium that is still to be encoded is work; a long row is more than two half as long."""
    raw, cached = tiny_reader(model), tiny_reader(model, features=stores(model, "image", "audio"))
    sound = samples[3]
    assert work([raw.item(sound)]) > work([cached.item(sound)])
    long, half = ([conversation("x", "go", "one two " * n)] for n in (40, 20))
    assert work([raw.item(s) for s in long]) > 2 * work([raw.item(s) for s in half])
    rows = [[raw.item(s)] for s in samples * 4]
    works = [sum(work(items) for items in take(rows, Shard(rank, 4))) for rank in range(4)]
    assert max(works) - min(works) <= max(work(items) for items in rows)
    assert take(rows, Shard(1, 4)) == take(rows, Shard(1, 4))


def test_too_long_a_sample_is_refused_and_never_cut(
    model: OmniModel, samples: list[Sample]
) -> None:
    length = len(tiny_reader(model).item(samples[3]).rendered.tokens)
    assert tiny_reader(model, max_tokens=length).item(samples[3])
    with pytest.raises(UserError, match=f"sample long: {length} tokens, the limit is {length - 1}"):
        tiny_reader(model, max_tokens=length - 1).item(samples[3])


def test_slots_follow_the_length_of_the_sound(model: OmniModel, tmp_path: Path) -> None:
    counts = []
    for seconds in (0.4, 0.8, 1.6):
        clip = Media("audio", write_wave(tmp_path / f"{seconds}.wav", seconds))
        item = tiny_reader(model).item(conversation("x", "?", "y", media=(clip,)))
        counts.append(item.rendered.slots[0].count)
    assert counts == [6, 11, 21]  # 12.5 a second, each frame at a border counted


def test_modality_without_an_encoder_is_named(samples: list[Sample]) -> None:
    config = tiny_model().config
    deaf = OmniModel(OmniConfig(config.thinker, {"image": config.encoders["image"]}))
    with pytest.raises(UserError, match="sample short: this model has no encoder for audio"):
        tiny_reader(deaf).item(samples[2])


@pytest.mark.parametrize("cached", [True, False])
def test_medium_that_is_gone_is_named(model: OmniModel, tmp_path: Path, cached: bool) -> None:
    reader = tiny_reader(model, features=stores(model, "audio") if cached else None)
    clip = Media("audio", tmp_path / "gone.wav")
    with pytest.raises(UserError, match=r"sample x: .*gone\.wav: no such sound file"):
        reader.item(conversation("x", "?", "y", media=(clip,)))


def test_prompt_is_the_beginning_of_the_item(model: OmniModel, samples: list[Sample]) -> None:
    reader = tiny_reader(model)
    for sample in samples:
        item, prompt = reader.item(sample), reader.prompt("x", sample.messages[:1])
        assert item.rendered.tokens[: len(prompt.rendered.tokens)] == prompt.rendered.tokens
        assert len(prompt.media) == len(sample.media)


def test_batch_is_a_function_of_its_number(model: OmniModel, samples: list[Sample]) -> None:
    one, other = stream(model, samples), stream(model, samples)
    forward = [one(n) for n in range(6)]
    for n in (5, 0, 3, 3):
        again = other(n)
        assert again.ids == forward[n].ids
        assert torch.equal(again.tokens_T, forward[n].tokens_T)
        assert torch.equal(again.group_N, forward[n].group_N)


def test_batches_are_the_mixture_in_order_of_any_size(
    model: OmniModel, samples: list[Sample]
) -> None:
    three, four = stream(model, samples, 3), stream(model, samples, 4)
    assert (len(three), len(four)) == (2, 2)  # five samples an epoch
    ids_of_three = [id for n in range(4) for id in three(n).ids]
    ids_of_four = [id for n in range(3) for id in four(n).ids]
    assert ids_of_three == ids_of_four
    places = [three.mixture.sample_at(k) for k in range(12)]
    assert ids_of_three == [three.samples[source][index].id for source, index in places]


def test_group_of_a_token_is_its_samples_source(model: OmniModel, samples: list[Sample]) -> None:
    batches = stream(model, samples)
    batch = batches(0)
    loss, count = model(batch)
    expected = [0.0] * 3
    for k in range(4):
        source, index = batches.mixture.sample_at(k)
        item = batches.reader.item(batches.samples[source][index])
        expected[batches.groups.index(source)] += sum(item.rendered.supervised)
    assert count.tolist() == expected
    assert (loss > 0).tolist() == [c > 0 for c in expected]


def test_cached_features_stand_for_the_files(model: OmniModel, samples: list[Sample]) -> None:
    direct = pack([tiny_reader(model).item(s) for s in samples])
    reader = tiny_reader(model, features=stores(model, "image", "audio"))
    cached = pack([reader.item(s) for s in samples])
    assert torch.equal(direct.tokens_T, cached.tokens_T)
    assert cached.media["audio"].inputs == []
    torch.testing.assert_close(
        model.token_scores(cached).nll_N, model.token_scores(direct).nll_N, atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("name", ["image", "audio"])
def test_features_of_one_modality_only(model: OmniModel, samples: list[Sample], name: str) -> None:
    """A modality without cached rows is read from its file, beside one that has them."""
    direct = pack([tiny_reader(model).item(s) for s in samples])
    reader = tiny_reader(model, features=stores(model, name))
    mixed = pack([reader.item(s) for s in samples])
    torch.testing.assert_close(
        model.token_scores(mixed).nll_N, model.token_scores(direct).nll_N, atol=2e-2, rtol=0
    )


def test_independent_questions_are_asked_alone_by_share(model: OmniModel) -> None:
    """At share 1 one conversation, at 0 one question a segment; between, a function of k."""
    turns = ("sky?", "blue.", "river?", "quiet.", "air?", "above.")
    album = [conversation(f"s{n}", *turns, independent_turns=True) for n in range(8)]
    mixture = Mixture({"text_only": 8}, {"text_only": 1}, seed=0)

    def ids(share: float) -> list[list[str]]:
        reader = tiny_reader(model)
        made = BatchStream(reader, {"text_only": album}, mixture, 4, multi_turn_prob=share)
        return [made(n).ids for n in range(4)]

    assert all(len(found) == 4 for found in ids(1.0))
    assert all(len(found) == 12 and all("#" in name for name in found) for found in ids(0.0))
    assert ids(0.5) == ids(0.5)
    whole = sum("#" not in name for found in ids(0.5) for name in found)
    assert 0 < whole < 16


def album(kinds: str, folder: Path) -> Sample:
    """A picture with a question for each letter, which is its kind."""
    image = Media("image", folder / "a.png")
    turns = [f"{kind}{n}" for n, kind in enumerate(kinds) for _ in range(2)]
    whole = conversation("a", *turns, media=(image,), independent_turns=True)
    messages = [replace(m, kind=m.text[0] if m.role == "assistant" else "") for m in whole.messages]
    return replace(whole, messages=tuple(messages))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_some_questions_of_a_record_of_every_kind(tmp_path: Path, share: float) -> None:
    """As many as asked for, each with the picture, of kinds by turns, others each time."""
    sample = album("aaaaabbbbbc", tmp_path)
    seen: Counter[str] = Counter()
    for k in range(40):
        found = as_asked(sample, k, 0, share, at_most=4)
        assert found == as_asked(sample, k, 0, share, at_most=4)
        assert [len(single.media) for single in found] == [1] * (1 if share else 4)
        answers = [m for single in found for m in single.messages if m.role == "assistant"]
        kinds = Counter(message.kind for message in answers)
        assert kinds["c"] == 1
        assert sorted(kinds.values()) == [1, 1, 2]
        assert all(
            question.parts[-1] == Text(answer.text)
            for single in found
            for question, answer in zip(single.messages[::2], single.messages[1::2], strict=True)
        )
        seen.update(message.text for message in answers)
    assert len(seen) == 11
    kept = [as_asked(sample, k, 0, share, at_most=4, fresh=False) for k in range(9)]
    if share:  # the same questions, in another order
        said = [{message.text for message in one.messages} for [one] in kept]
        assert all(found == said[0] for found in said)
    else:
        assert all(found == kept[0] for found in kept)
    few = as_asked(sample, 0, 0, share, at_most=11)
    assert sum(single.num_questions for single in few) == 11
    whole = conversation("b", "x", "y", "z", "w")
    assert as_asked(whole, 0, 0, share, at_most=1) == [whole]  # its turns build on each other


def test_a_medium_that_stands_in_a_later_question_stays_there() -> None:
    image = Media("image", Path("a.png"))
    messages = (
        Message("user", (Text("x"),)),
        Message("assistant", (Text("y"),), task="image_qa"),
        Message("user", (image, Text("z"))),
        Message("assistant", (Text("w"),), task="image_qa"),
    )
    sample = Sample("a", "image_text", messages, "image_qa", "train", independent_turns=True)
    assert sample.select_turns([1]).messages == messages[2:]
    assert sample.select_turns([0]).messages[0].parts == (image, Text("x"))
    assert sample.select_turns([0, 1]) == sample


def test_any_question_follows_any_other_in_a_conversation(tmp_path: Path) -> None:
    """And the picture stands before the first, whichever that is."""
    sample = album("abc", tmp_path)
    found = [as_asked(sample, k, 0, 1.0) for k in range(60)]
    orders = Counter(tuple(m.kind for m in one.messages[1::2]) for [one] in found)
    assert len(orders) == 6
    for [one] in found:
        first, *rest = one.messages
        assert first.parts[:-1] == sample.context_parts
        assert not any(isinstance(part, Media) for message in rest for part in message.parts)
        assert [m.parts[-1] for m in one.messages[::2]] == [m.parts[-1] for m in one.messages[1::2]]


@pytest.mark.parametrize(
    ("questions", "alone"),
    [
        (("is <image> red?", "and <image> now?"), True),
        (("how many?", "is <image> red?"), True),
        (("is <image> red?", "how many?"), True),
        (("<image> red?", "how many?"), False),
        (("how many? <image>", "red? <image>"), False),
        (("how many?", "red?"), False),
    ],
)
def test_no_question_loses_the_place_of_a_medium_amid_its_words(
    questions: tuple[str, ...], alone: bool
) -> None:
    """In a conversation the medium stands once, so that another question would have a gap."""
    qa = [{"question": text, "answer": "yes"} for text in questions]
    sample = Record(Path("data/x.json"), "image_text", 0, {"image": "a.png", "qa": qa}).sample()
    assert sample.asked_alone_only == alone
    words = [" ".join(text.split()) for text in questions]
    seen = set()
    for k in range(20):
        forms = as_asked(sample, k, 0, 1.0)
        seen.add(len(forms))
        for form in forms if alone else ():
            told = [
                p.text.strip() if isinstance(p, Text) else "<image>" for p in form.messages[0].parts
            ]
            whole = " ".join(told)
            assert whole in words or whole.removeprefix("<image> ") in words
    assert seen == {2 if alone else 1}
