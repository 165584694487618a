"""Follow-up questions: the same questions after another one, its right answer in view."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import conversation, tiny_model, tiny_reader

from omnitune.data.loader import SampleReader
from omnitune.evaluation import follow_ups as module
from omnitune.evaluation.follow_ups import follow_ups, make_follow_ups
from omnitune.evaluation.scoring import Prediction, Question
from omnitune.sample import Media, Sample


class Patient:
    """Stands for a reader: everything fits."""

    def item(self, sample: Sample) -> None:
        return None


def record(name: str, count: int, task: str = "image_qa", independent: bool = True) -> Sample:
    turns = [text.format(k) for k in range(count) for text in ("which, {}?", "answer {}")]
    media = (Media("image", Path(f"{name}.png")),)
    return conversation(name, *turns, media=media, task=task, independent_turns=independent)


def made(samples: list[Sample], most: int = 100) -> dict[str, list[Any]]:
    return make_follow_ups(Patient(), samples, most)  # type: ignore[arg-type]


def test_each_question_follows_the_one_before_it_and_the_first_the_last() -> None:
    [(task, found)] = made([record("a", 3)]).items()
    assert task == "image_qa"
    assert [one.alone.reference for one in found] == ["answer 0", "answer 1", "answer 2"]
    for place, one in enumerate(found):
        shown, told, asked = one.after.messages
        before = (place - 1) % 3
        assert [type(part) for part in shown.parts[:-1]] == [Media]
        assert (shown.text, told.text) == (f"which, {before}?", f"answer {before}")
        assert (asked.text, one.after.reference) == (f"which, {place}?", f"answer {place}")
        assert one.after.id == one.alone.id
        assert len(one.alone.messages) == 1


def test_only_what_can_follow_is_asked() -> None:
    """Not single questions, not turns that build on each other, not what no letter judges."""
    others = [record("a", 1), record("b", 3, independent=False), record("c", 3, task="text")]
    assert made(others) == {}
    assert sum(map(len, made([*others, record("d", 3), record("e", 2)]).values())) == 5
    few = made([record(str(n), 3) for n in range(9)], most=4)
    assert len(few["image_qa"]) == 4
    assert few == made([record(str(n), 3) for n in range(9)], most=4)


def test_what_does_not_fit_is_left_out() -> None:
    sample = conversation("a", "x", "y", "z " * 40, "w", task="image_qa", independent_turns=True)
    longest = max(
        len(tiny_reader(tiny_model()).item(single).rendered.tokens)
        for single in sample.split_turns()
    )
    reader = tiny_reader(tiny_model())
    assert len(make_follow_ups(reader, [sample], 9)["image_qa"]) == 2
    reader.max_tokens = longest
    assert make_follow_ups(reader, [sample], 9) == {}


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Answers are right; after another question only if so told."""

    def set_up(remembers: bool) -> None:
        def answer(
            model: object, reader: SampleReader, questions: Sequence[Question], on_progress: Any
        ) -> list[Prediction]:
            on_progress(len(questions))
            return [
                Prediction(
                    q.id,
                    q.task,
                    q.kind,
                    q.reference,
                    q.reference if remembers or len(q.messages) == 1 else "one too few",
                )
                for q in questions
            ]

        monkeypatch.setattr(module, "answer", answer)

    return set_up


@pytest.mark.parametrize("remembers", [True, False])
def test_who_fails_after_another_question_is_seen_to(
    answering: Callable[[bool], None], remembers: bool
) -> None:
    answering(remembers)
    ticks: list[int] = []
    asked = made([record(str(n), 3) for n in range(5)])
    [entry] = follow_ups(None, None, asked, ticks.append).values()  # type: ignore[arg-type]
    assert (entry["alone"], entry["exact_match"]) == (1.0, float(remembers))
    assert entry["questions"] == 15
    assert entry["drop"] == 1 - remembers
    assert entry["interval"] == [entry["drop"]] * 2
    assert sum(ticks) == 30
