"""The measures that take all right answers at once, against their papers' definitions."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnitune.evaluation.metrics import METRICS
from omnitune.evaluation.overlap import BLEU, CHRF
from omnitune.evaluation.truth import Truth, anls, consensus, right_choice, rouge_l

Judge = Callable[[str, Truth], tuple[float, float]]
JUDGES: dict[str, Judge] = {
    "anls": anls, "choice": right_choice, "rouge_l": rouge_l, "chrf": CHRF.alone,
    "bleu": BLEU.alone, "exact_match": METRICS["exact_match"].score, "wer": METRICS["wer"].score,
    "cer": METRICS["cer"].score, "vqa": consensus,
}  # fmt: skip
# The first call of a measure loads what it is made of.
quick = settings(deadline=None, max_examples=40)
COLORS = (("A", "red"), ("B", "blue"))

words = st.text("abcd", min_size=1, max_size=4)
sentences = st.lists(words, min_size=1, max_size=8).map(" ".join)
several = st.lists(sentences, min_size=1, max_size=6)


def truth(*references: str, **rest: str) -> Truth:
    return Truth(references[0], references=references, **rest)


@pytest.mark.parametrize("name", JUDGES)
@quick
@given(references=several)
def test_each_right_answer_is_all_right(name: str, references: list[str]) -> None:
    if name == "vqa":  # for which people have to agree
        references = references[:1] * 4
    perfect = 0 if METRICS[name].lower_is_better else 1
    for reference in references:
        above, below = JUDGES[name](reference, truth(*references))
        assert above / below == perfect
        assert METRICS[name].is_right(reference, truth(*references))


@pytest.mark.parametrize("name", JUDGES)
@quick
@given(answer=sentences, references=several, seed=st.integers(0, 9))
def test_the_order_of_the_references_is_of_no_account(
    name: str, answer: str, references: list[str], seed: int
) -> None:
    shuffled = random.Random(seed).sample(references, len(references))
    one, other = (JUDGES[name](answer, truth(*some)) for some in (references, shuffled))
    assert one[0] / one[1] == pytest.approx(other[0] / other[1])


@pytest.mark.parametrize("name", sorted(set(JUDGES) - {"wer", "cer"}))
@quick
@given(answer=sentences, references=several)
def test_scores_lie_between_nothing_and_all(name: str, answer: str, references: list[str]) -> None:
    above, below = JUDGES[name](answer, truth(*references))
    assert below == 1
    assert 0 <= above <= 1


@pytest.mark.parametrize(("people", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_ten_people_agree(people: int, score: float) -> None:
    """The accuracies that VQA's own evaluation gives for ten answers."""
    others = [f"other {n}" for n in range(10 - people)]
    assert consensus("Red.", truth(*["red"] * people, *others))[0] == pytest.approx(score)


@quick
@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=12))
def test_consensus_is_the_mean_over_what_is_left_of_the_references(given: list[str]) -> None:
    enough = min(3, len(given) - 1)
    for answer in "abcde":
        left = [given[:n] + given[n + 1 :] for n in range(len(given))]
        mean = sum(min(some.count(answer) / enough, 1) for some in left) / len(left)
        assert consensus(answer, truth(*given))[0] == pytest.approx(mean)


def test_few_references_can_be_met() -> None:
    assert consensus("red", Truth("red")) == (1, 1)
    assert consensus("blue", Truth("red")) == (0, 1)
    for count in (2, 3, 4, 10):
        assert consensus("red", truth(*["red"] * count)) == (1, 1)


def test_anls_as_the_paper_has_it() -> None:
    assert anls("Coca  cola", truth("coca cola", "coca cola company"))[0] == 1
    assert anls("coca cole", truth("coca cola"))[0] == pytest.approx(1 - 1 / 9)
    assert anls("abcd", truth("abxy"))[0] == 0  # half the characters are edits: the threshold
    assert anls("abcde", truth("abcxy"))[0] == pytest.approx(0.6)
    assert anls("", truth("x"))[0] == 0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("A red CAR!", "a red car", 1),
        ("红 车", "红车", 1),
        ("", "red", 0),
    ],
)
def test_rouge_l_of_known_sentences(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, Truth(reference))[0] == pytest.approx(score)


@quick
@given(answer=sentences, reference=sentences)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(
    answer: str, reference: str
) -> None:
    said, wanted = answer.split(), reference.split()
    row = [0] * (len(wanted) + 1)
    for word in said:
        before, row = row, [0]
        for n, other in enumerate(wanted):
            row.append(before[n] + 1 if word == other else max(before[n + 1], row[n]))
    common = row[-1]
    precision, recall = common / len(said), common / len(wanted)
    expected = 2 * precision * recall / (precision + recall) if common else 0
    assert rouge_l(answer, Truth(reference))[0] == pytest.approx(expected)


def test_choices_are_compared_by_what_they_mean() -> None:
    for reference in ("B", "blue"):
        asked = Truth(reference, choices=COLORS)
        for answer in ("B", "(b)", "B.", "b) blue", "The answer is B", "Blue"):
            assert right_choice(answer, asked) == (1, 1)
        for answer in ("A", "red", "", "green", "A or B"):
            assert right_choice(answer, asked) == (0, 1)


def test_choices_without_known_options() -> None:
    for answer in ("B", "b", "(B)", "B.", "b) blue", "The answer is B"):
        assert right_choice(answer, Truth("B")) == right_choice(answer, Truth("b")) == (1, 1)
    for answer in ("A", "", "blue", "Be", "AB"):
        assert right_choice(answer, Truth("B")) == (0, 1)
    assert right_choice("The two.", Truth("2")) == (1, 1)
    assert right_choice("AB", Truth("AB")) == (1, 1)


def test_the_nearest_of_several_references_counts() -> None:
    wer, exact = METRICS["wer"], METRICS["exact_match"]
    both = truth("a long winded sentence here", "the quiet river")
    assert wer.score("the quick river", both) == (1, 3)
    assert exact.score("The Quiet River.", both) == (1, 1)
    assert exact.score("another", both) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "reference", "language", "edits", "count"),
    [
        ("the quiet river", "The quiet river.", "", 0, 15),
        ("the quick river", "the quiet river", "", 2, 15),
        ("今天天气好", "今天天气很好", "zh", 1, 6),
        ("今天 天气很好", "今天天气很好", "", 0, 6),
        ("straße", "strasse", "de", 0, 7),
        ("noise", "", "", 5, 0),
    ],
)
def test_character_errors(
    answer: str, reference: str, language: str, edits: int, count: int
) -> None:
    assert METRICS["cer"].score(answer, Truth(reference, language)) == (edits, count)
