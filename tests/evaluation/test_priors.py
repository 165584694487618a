"""The most frequent training answers: by kind, the same every time, from a bounded count."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import conversation

from omnitune.evaluation import priors as module
from omnitune.evaluation.priors import answer_priors
from omnitune.sample import Media, Sample


def asked(number: int, answer: str, kind: str = "color") -> Sample:
    media = (Media("image", Path(f"{number}.png")),)
    return conversation(f"s{number}", "what?", answer, media=media, kind=kind)


def test_most_frequent_answer_of_each_kind() -> None:
    answers = ["Red.", "the red", "blue", "green", "blue", "red"]
    samples = [asked(n, answer) for n, answer in enumerate(answers)]
    samples += [asked(n, answer, "count") for n, answer in enumerate(["two", "2", "three"])]
    samples.append(conversation("text", "what?", "nothing"))
    assert answer_priors(samples) == {
        ("image_qa", "color"): "red",
        ("image_qa", "count"): "2",
        ("image_qa", ""): "red",
    }


def test_ties_go_to_the_first_of_the_alphabet() -> None:
    samples = [asked(n, answer) for n, answer in enumerate(["yes", "no", "maybe", "yes", "no"])]
    assert answer_priors(samples) == answer_priors(samples[::-1])
    assert answer_priors(samples)["image_qa", "color"] == "no"


class Counted(Sequence):  # type: ignore[type-arg]
    """Samples that note which of them were read by number."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.read = samples, [0] * len(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.samples)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        self.read[place] += 1
        return self.samples[place]


def test_no_more_records_are_read_than_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Counted([asked(n, "yes" if n % 3 else "no") for n in range(300)])
    monkeypatch.setattr(module, "COUNTED", 60)
    first = answer_priors(samples, seed=1)
    assert first == {("image_qa", "color"): "yes", ("image_qa", ""): "yes"}
    assert (sum(samples.read), max(samples.read)) == (60, 1)
    before = list(samples.read)
    answer_priors(samples, seed=1)
    assert samples.read == [2 * count for count in before]


def test_data_without_questions_has_no_priors() -> None:
    assert answer_priors([]) == answer_priors([conversation("t", "a?", "b")]) == {}
