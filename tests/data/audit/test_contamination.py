"""Shared words are found whoever else shares them; looks are found as by comparing all pairs."""

import numpy as np
import pytest
from helpers import conversation

from omnitune.data.audit import contamination as leaks
from omnitune.data.audit.contamination import HeldOutText, alike, overlap, statements, word_groups
from omnitune.sample import Media, Sample

WORDS = [f"w{n}" for n in range(1000)]


def text(*words: str) -> Sample:
    return conversation("sample", "tell me.", " ".join(words))


def random_words(draw: np.random.Generator, count: int = 30) -> list[str]:
    return draw.choice(WORDS, count).tolist()


def test_what_a_sample_states_is_not_its_questions() -> None:
    picture = conversation(
        "a", "what colour is the big one?", "it is a red circle.", "which one is that?", "Yes",
        media=(Media("image", None),),  # type: ignore[arg-type]
        captions={"image": "a large red circle"},
    )  # fmt: skip
    captions = {"image": picture.media[0].caption}
    same = conversation(
        "b", "what is it?", "It is a RED circle", media=picture.media, captions=captions
    )
    assert statements(picture) == statements(same)
    assert [len(words) for words in statements(picture)] == [4, 5]
    assert len(statements(text("one", "two"))) == 1  # a conversation counts as a whole
    assert statements(conversation("c", "why?", "so.")) == []
    assert len(statements(conversation("d", "", "今日は良い天気"))[0]) == 7


@pytest.mark.parametrize("count", [4, 8, 9, 40])
def test_word_groups_are_those_that_follow_each_other(count: int) -> None:
    words = np.random.default_rng(count).permutation(WORDS)[:count].tolist()
    groups = word_groups([words])
    assert len(groups) == max(1, count - 7)
    if count > 8:
        assert groups == set().union(*(word_groups([words[n : n + 8]]) for n in range(count - 7)))
    assert not word_groups([words[::-1]]) & groups


@pytest.mark.parametrize("common", [1000, 3])
def test_copies_are_named_among_many(common: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "COMMON", common)
    draw = np.random.default_rng(0)
    phrase = random_words(draw, 12)  # that all share
    held = [text(*random_words(draw), *phrase) for _ in range(20)]
    train = [text(*random_words(draw), *phrase) for _ in range(50)]
    train[7], train[30] = held[3], held[3]
    words = held[5].messages[1].text.split()
    train[11] = text(*words[:25], *random_words(draw, 5), *phrase)
    found = HeldOutText()
    assert [found.add(sample) for sample in held] == [True] * 20
    assert not found.add(conversation("short", "why?", "so."))
    for number, sample in enumerate(train):
        found.meet(number, sample)
    shares, same, most = map(list, zip(*found.found(), strict=True))
    assert [n for n, twin in enumerate(same) if twin >= 0] == [3]
    assert (same[3], most[3], most[5]) == (7, 7, 11)
    assert shares[3] == 1
    assert shares[5] == overlap(held[5], train[11]) > 0.5
    others = [n for n in range(20) if n not in (3, 5)]
    assert all(0 < shares[n] < 0.3 for n in others)
    assert overlap(held[3], train[7]) == 1


def test_nothing_held_out_is_no_leak() -> None:
    found = HeldOutText()
    found.meet(0, text(*WORDS[:20]))
    assert list(found.found()) == []


@pytest.mark.parametrize("distance", [0, 1, 4])
@pytest.mark.parametrize("plain", [False, True])
def test_looks_within_a_distance_are_those_of_all_pairs(distance: int, plain: bool) -> None:
    draw = np.random.default_rng(distance)
    looks_AW = draw.integers(0, 2**64, (60, 4), dtype=np.uint64)
    looks_AW[:20] &= np.uint64(0 if plain else 2**64 - 1)  # blank pictures are all alike
    looks_BW = looks_AW[draw.permutation(60)[:30]].copy()
    for n, flips in enumerate(draw.integers(0, 8, 30)):
        for bit in draw.choice(256, flips, replace=False).tolist():
            looks_BW[n, bit // 64] ^= np.uint64(1 << (bit % 64))
    bits = np.bitwise_count(looks_BW[:, None] ^ looks_AW).sum(axis=2)
    for n, found in enumerate(alike(looks_AW, looks_BW, distance)):
        expected = sorted(bits[n][bits[n] <= distance].tolist())[:8]
        assert [b for b, _ in found] == expected
        assert all(bits[n, a] == b for b, a in found)
    assert (bits <= distance).any()
