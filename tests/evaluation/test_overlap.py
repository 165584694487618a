"""chrF and BLEU of a corpus, against sacrebleu's own calls; their intervals."""

import random

import numpy as np
import pytest
import sacrebleu

from omnitune.evaluation.bootstrap import Pooled
from omnitune.evaluation.overlap import BLEU, CHRF, Pool, tokenizer_of
from omnitune.evaluation.truth import Truth

WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "circle",
    "river",
    "sky",
    "now",
    "quiet",
    "and",
    "then",
    "it",
    "was",
    "here",
]
POOLS = {"chrf": CHRF, "bleu": BLEU}


def corpus(count: int, seed: int = 0) -> list[tuple[str, Truth]]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        references = [" ".join(rng.choices(WORDS, k=rng.randint(5, 12))) for _ in range(2)]
        words = references[0].split()
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        found.append((" ".join(words), Truth(references[0], references=tuple(references))))
    return found


def measure(pool: Pool, pairs: list[tuple[str, Truth]]) -> Pooled:
    counts = np.array([pool.count(*pair) for pair in pairs], dtype=float)
    return Pooled.of_counts(counts, np.arange(len(pairs)), pool.formula)


def test_corpus_scores_are_sacrebleus() -> None:
    pairs = corpus(40)
    answers = [answer for answer, _ in pairs]
    streams = [list(stream) for stream in zip(*(t.references for _, t in pairs), strict=True)]
    expected = {
        "chrf": sacrebleu.corpus_chrf(answers, streams),
        "bleu": sacrebleu.corpus_bleu(answers, streams),
    }
    for name, pool in POOLS.items():
        assert measure(pool, pairs).value == pytest.approx(expected[name].score / 100)


@pytest.mark.parametrize("name", POOLS)
def test_scores_of_a_corpus_are_no_means(name: str) -> None:
    ratio = measure(POOLS[name], corpus(40))
    assert ratio.value != pytest.approx(ratio.above_N.mean(), abs=1e-3)
    for n in range(3):
        assert ratio.of([n]).value == pytest.approx(ratio.above_N[n])


@pytest.mark.parametrize("name", POOLS)
def test_perfect_answers_are_all_right_and_strange_ones_all_wrong(name: str) -> None:
    perfect = [(t.reference, t) for _, t in corpus(5)]
    assert measure(POOLS[name], perfect).value == 1
    short = [("red", Truth("red")), ("a blue one", Truth("a blue one"))]
    assert measure(POOLS[name], short).value == 1
    assert measure(POOLS[name], [("xyz", Truth("red")), ("", Truth("blue"))]).value == 0


@pytest.mark.parametrize("name", POOLS)
def test_intervals_hold_the_score_and_shrink_with_more_records(name: str) -> None:
    widths = []
    for count in (20, 320):
        ratio = measure(POOLS[name], corpus(count))
        low, high = ratio.interval() or (0, 0)
        assert low < ratio.value < high
        assert ratio.interval() == [low, high]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert measure(POOLS[name], corpus(1)).interval() is None


def test_differences_are_paired() -> None:
    pairs = corpus(40)
    own = measure(CHRF, pairs)
    other = measure(CHRF, [("the sky", t) for _, t in pairs])
    gain = own.minus(other)
    assert gain.value == pytest.approx(own.value - other.value)
    low, high = gain.interval() or (0, 0)
    assert 0 < low < gain.value < high
    assert own.minus(own).interval() == [0, 0]


def test_languages_without_spaces_are_cut_into_characters() -> None:
    assert tokenizer_of(Truth("a red circle")) == "13a"
    assert tokenizer_of(Truth("ein roter Kreis", "de")) == "13a"
    assert tokenizer_of(Truth("一个红色的圆圈", "zh-Hant")) == "zh"
    assert tokenizer_of(Truth("赤い丸です", "ja")) == tokenizer_of(Truth("赤い丸です")) == "char"
    for language, text in (
        ("zh", "这是一个红色的圆圈"),
        ("ja", "これは赤い丸です"),
        ("th", "วงกลมสีแดง"),
    ):
        score, _ = BLEU.alone(text[:-1], Truth(text, language))
        assert 0.5 < score < 1


def test_signatures_tell_the_rules_apart() -> None:
    assert "nc:6" in CHRF.signature({""})
    one, two = BLEU.signature({"13a"}), BLEU.signature({"zh", "13a"})
    assert "tok:13a" in one
    assert two.count("tok:") == 2
    assert f"version:{sacrebleu.__version__}" in one
