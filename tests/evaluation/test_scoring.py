"""The held-out scores: means over tokens, questions asked alone, a fixed choice."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import conversation, mixed_samples, shorten_answers

from omnitune.data.loader import SampleReader
from omnitune.evaluation import scoring as module
from omnitune.evaluation.scoring import (
    Prediction,
    Question,
    pick,
    questions_of,
    score_answers,
    scoreboard,
    token_scoreboard,
    token_totals,
)
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Message, Sample, Text

IMAGE = Media("image", Path("a.png"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return mixed_samples(tmp_path_factory.mktemp("media"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Answers by question id instead of the model's; right ones where none is given."""
    answers: dict[str, str] = {}

    def answer(model: object, reader: object, asked: list[Question], on_progress: Any) -> Any:
        on_progress(len(asked))
        return [
            Prediction(q.id, q.task, q.kind, q.reference, answers.get(q.id, q.reference))
            for q in asked
        ]

    monkeypatch.setattr(module, "answer", answer)
    return answers


def album(*answers: str) -> Sample:
    """One picture with independent questions."""
    talk = [text for n, a in enumerate(answers) for text in (f"question {n}?", a)]
    return conversation("album", *talk, media=(IMAGE,), independent_turns=True)


def test_loss_is_the_mean_over_tokens_not_of_means(
    model: OmniModel, reader: SampleReader, samples: list[Sample], scripted: dict[str, str]
) -> None:
    totals = token_totals(model, [reader.item(s) for s in samples])
    assert len({count for _, _, count in totals}) > 2
    loss = sum(nll for nll, _, _ in totals) / sum(count for _, _, count in totals)
    mean_of_means = sum(nll / count for nll, _, count in totals) / len(totals)
    assert abs(loss - mean_of_means) > 5e-3
    scores, _ = scoreboard(model, reader, samples)
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
    assert scores["tokens"] == sum(count for _, _, count in totals)
    right = sum(right for _, right, _ in totals)
    assert scores["token_acc"] == pytest.approx(right / scores["tokens"])
    assert token_scoreboard(model, [reader.item(s) for s in samples])["loss"] == pytest.approx(loss)


def test_totals_are_independent_of_order_and_batch(
    model: OmniModel, reader: SampleReader, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [reader.item(s) for s in samples]
    expected = [token_totals(model, [item])[0] for item in items]
    assert [count for _, _, count in expected] == [sum(i.rendered.supervised) for i in items]
    for size in (1, 2, 16):
        monkeypatch.setattr(module, "SCORE_BATCH", size)
        order = list(range(len(items)))
        random.Random(size).shuffle(order)
        found = token_totals(model, [items[n] for n in order])
        for n, total in zip(order, found, strict=True):
            assert total == pytest.approx(expected[n], rel=1e-4)


def test_independent_questions_do_not_see_the_other_answers() -> None:
    questions = questions_of(album("a red circle.", "red", "1"))
    assert [q.reference for q in questions] == ["a red circle.", "red", "1"]
    assert len({q.id for q in questions}) == 3
    for n, question in enumerate(questions):
        assert [m.role for m in question.messages] == ["user"]
        assert question.messages[0].parts == (IMAGE, Text(f"question {n}?"))


def test_dependent_questions_keep_their_history() -> None:
    sample = replace(album("a", "b", "c"), independent_turns=False)
    questions = questions_of(sample)
    assert [q.messages for q in questions] == [sample.messages[:n] for n in (1, 3, 5)]


def test_medium_of_a_later_question_is_shown_once() -> None:
    """A tag in the second question: neither that one nor the third sees the medium twice."""
    sample = album("a", "b", "c")
    first, second = sample.messages[0], sample.messages[2]
    moved = replace(
        sample,
        messages=(
            replace(first, parts=first.parts[1:]),
            sample.messages[1],
            replace(second, parts=(*second.parts, IMAGE)),
            *sample.messages[3:],
        ),
    )
    for question in questions_of(moved)[1:]:
        assert [p for m in question.messages for p in m.parts if isinstance(p, Media)] == [IMAGE]


def test_single_question_keeps_the_samples_name() -> None:
    assert [q.id for q in questions_of(album("x"))] == ["album"]


def test_alone_scores_what_is_asked() -> None:
    """The history under which an answer's tokens are scored is that under which it is asked."""
    sample = album("a red circle.", "red", "1")
    singles = sample.split_turns()
    assert len(singles) == 3
    for single, question in zip(singles, questions_of(sample), strict=True):
        assert single.messages[:-1] == question.messages
        assert single.messages[-1].text == question.reference
        assert questions_of(single)[0].messages == question.messages
    together = replace(sample, independent_turns=False)
    assert together.split_turns() == [together]


def test_kind_of_a_question() -> None:
    sample = replace(album("a", "b"), kind="mixed")
    answers = [m for m in sample.messages if m.role == "assistant"]
    named = replace(answers[0], kind="count")
    sample = replace(sample, messages=(sample.messages[0], named, *sample.messages[2:]))
    assert [q.kind for q in questions_of(sample)] == ["count", "mixed"]
    assert [q.kind for q in questions_of(replace(sample, kind=""))] == ["count", "image_qa"]


def many(count: int) -> list[Sample]:
    return [conversation(f"s{n}", f"repeat {n}.", str(n), task="audio_qa") for n in range(count)]


def test_choice_is_fixed_by_the_seed(
    model: OmniModel, reader: SampleReader, scripted: dict[str, str]
) -> None:
    def chosen(seed: int, count: int = 5) -> list[str]:
        return [p.id for p in scoreboard(model, reader, pick(many(20), count, seed))[1]]

    assert chosen(0) == chosen(0)
    assert len(set(chosen(0))) == 5
    assert set(chosen(0)) != set(chosen(1))
    assert len(chosen(0, 50)) == 20


def test_at_most_so_many_questions_a_task(
    model: OmniModel, reader: SampleReader, scripted: dict[str, str]
) -> None:
    """Questions are counted, not conversations; and each task by itself."""
    talks = [conversation(f"t{n}", "a?", "b", "c?", "d", "e?", "f") for n in range(6)]
    done: list[int] = []
    scores, _ = scoreboard(model, reader, pick([*talks, *many(9)], 4, 0), done.append)
    assert scores["tasks"]["audio_qa"]["questions"] == 4
    assert scores["tasks"]["text"]["questions"] <= 4
    assert sum(done) == sum(task["questions"] for task in scores["tasks"].values())


def test_windows_do_not_change_the_scores(
    model: OmniModel,
    reader: SampleReader,
    samples: list[Sample],
    scripted: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks = [*samples, *many(7)]
    scores, predictions = scoreboard(model, reader, talks)
    monkeypatch.setattr(module, "SCORE_WINDOW", 2)
    found, again = scoreboard(model, reader, talks)
    for one, other in zip(again, predictions, strict=True):
        assert replace(one, reference_loss=None) == replace(other, reference_loss=None)
        assert one.reference_loss == pytest.approx(other.reference_loss, abs=2e-4)  # rounded
    assert found["loss"] == pytest.approx(scores["loss"], rel=1e-5)
    assert found["tasks"].keys() == scores["tasks"].keys()


def test_scores_by_task_and_on_top(
    model: OmniModel, reader: SampleReader, samples: list[Sample], scripted: dict[str, str]
) -> None:
    talks = [
        samples[0],
        samples[1],
        replace(samples[1], id="image-2"),
        conversation(
            "w1", "write.", "the quiet river.", media=samples[2].media, task="transcription"
        ),
        conversation("w2", "write.", "red", media=samples[2].media, task="transcription"),
    ]
    scripted |= {"image": "Red", "image-2": "blue", "w1": "the river", "w2": "red"}
    scores, predictions = scoreboard(model, reader, talks)
    assert scores["image_qa_acc"] == scores["tasks"]["image_qa"]["exact_match"] == 0.5
    assert scores["audio_wer"] == scores["tasks"]["transcription"]["wer"] == pytest.approx(1 / 4)
    assert scores["text_acc"] == scores["tasks"]["text"]["token_acc"]
    assert {p.id for p in predictions} == {"image", "image-2", "w1", "w2"}
    assert {name: task["questions"] for name, task in scores["tasks"].items()} == {
        "text": 2,
        "image_qa": 2,
        "transcription": 2,
    }
    assert sum(task["tokens"] for task in scores["tasks"].values()) == scores["tokens"]


def test_an_answer_comes_with_the_loss_of_its_reference(
    model: OmniModel, reader: SampleReader, samples: list[Sample], scripted: dict[str, str]
) -> None:
    """Where a sample asks for it alone; of turns that build on each other the sum is no one's."""
    media = samples[1].media
    talk = conversation("talk", "what?", "red", "and what?", "blue", media=media)
    _, found = scoreboard(model, reader, [samples[1], talk])
    losses = {prediction.id: prediction.reference_loss for prediction in found}
    ((total, _, _),) = token_totals(model, [reader.item(samples[1])])
    assert losses == {"image": pytest.approx(total, abs=1e-4), "talk#0": None, "talk#1": None}


def test_an_answer_of_weight_0_is_not_asked_for() -> None:
    talk = conversation("talk", "what?", "red", "and what?", "blue")
    asked, answer, *rest = talk.messages
    talk = replace(talk, messages=(asked, replace(answer, weight=0), *rest))
    [question] = questions_of(talk)
    assert (question.id, question.reference, len(question.messages)) == ("talk", "blue", 3)


def test_scores_by_kind() -> None:
    def said(kind: str, reference: str, answer: str, task: str = "image_qa") -> Prediction:
        return Prediction("x", task, kind, reference, answer)

    def scored(task: str, answers: list[Prediction]) -> dict[str, Any]:
        scores = score_answers(task, answers, range(len(answers)))
        return {name: x for name, x in scores.items() if "interval" not in name}

    answers = [said("count", "3", "three"), said("count", "4", "3"), said("color", "red", "red")]
    assert scored("image_qa", answers) == {
        "exact_match": pytest.approx(2 / 3),
        "kinds": {"color": 1.0, "count": 0.5},
        "kind_questions": {"color": 1, "count": 2},
    }
    assert scored("image_qa", answers[:2]) == {"exact_match": 0.5}
    spoken = [said("a", "quiet river", "river"), said("b", "red", "red")]
    assert scored("transcription", spoken) == {
        "wer": pytest.approx(1 / 3),
        "kinds": {"a": 0.5, "b": 0.0},
        "kind_questions": {"a": 1, "b": 1},
    }


def test_intervals_of_tasks_kinds_and_headlines(
    model: OmniModel, reader: SampleReader, samples: list[Sample], scripted: dict[str, str]
) -> None:
    media = {"image_qa": samples[1].media, "transcription": samples[2].media}
    other = {"image_qa": samples[4].media[:1], "transcription": samples[3].media}
    talks = [replace(samples[0], id=f"t{n}") for n in range(3)]
    for task, shown in media.items():
        talks += [
            conversation(
                f"{task}{n}",
                *("which?", "the quiet river."),
                media=(shown if n % 2 else other[task]),
                task=task,
                kind="ab"[n // 4],
            )
            for n in range(8)
        ]
    scripted |= {"image_qa1": "red", "image_qa3": "red", "transcription1": "the river"}
    scores, _ = scoreboard(model, reader, talks)
    tasks = scores["tasks"]
    assert tasks["image_qa"]["intervals"].keys() == {"loss", "token_acc", "exact_match"}
    assert tasks["transcription"]["intervals"].keys() == {"loss", "token_acc", "wer"}
    assert tasks["text"]["intervals"].keys() == {"loss", "token_acc"}
    assert tasks["image_qa"]["intervals"]["exact_match"] == [0.5, 1]  # by picture, of two
    assert tasks["image_qa"]["kind_intervals"] == {"a": [0, 1], "b": [1, 1]}
    for name, task, measure in (
        ("text_acc", "text", "token_acc"),
        ("image_qa_acc", "image_qa", "exact_match"),
        ("audio_wer", "transcription", "wer"),
    ):
        low, high = scores["intervals"][name]
        assert [low, high] == tasks[task]["intervals"][measure]
        assert low <= scores[name] <= high
    assert scores["intervals"]["loss"][0] < scores["loss"] < scores["intervals"]["loss"][1]


def test_priors_are_scored_as_answers_are() -> None:
    def said(kind: str, reference: str, task: str = "image_qa") -> Prediction:
        return Prediction("x", task, kind, reference, "wrong")

    priors = {("image_qa", "count"): "2", ("image_qa", "color"): "red", ("image_qa", ""): "yes"}
    answers = [said("count", "Two."), said("count", "3"), said("color", "red"), said("new", "yes")]
    scores = score_answers("image_qa", answers, range(4), priors)
    assert scores["prior"] == 0.75
    assert scores["kind_priors"] == {"color": 1, "count": 0.5, "new": 1}
    assert scores["exact_match"] == 0
    alone = score_answers("image_qa", answers[:2], range(2), priors)
    assert (alone["prior"], "kind_priors" in alone) == (0.5, False)
    assert "prior" not in score_answers("transcription", answers, range(4), priors)
    assert score_answers("audio_qa", [said("x", "yes", "audio_qa")], [0], priors)["prior"] == 0


def test_answers_are_the_models_own(
    model: OmniModel, reader: SampleReader, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated from the question alone: another reference changes no answer."""
    shorten_answers(monkeypatch, 6)
    answers = [p.answer for p in scoreboard(model, reader, samples[1:])[1]]
    assert len(set(answers)) > 1
    others = [
        replace(s, messages=(s.messages[0], replace(s.messages[1], parts=(Text("other"),))))
        for s in samples[1:]
    ]
    predictions = scoreboard(model, reader, others)[1]
    assert [p.answer for p in predictions] == answers
    assert {p.reference for p in predictions} == {"other"}


def test_system_turn_stays_in_view() -> None:
    system = Message("system", (Text("be brief."),))
    plain = conversation("x", "a?", "b", "c?", "d")
    sample = replace(plain, messages=(system, *plain.messages))
    questions = questions_of(sample)
    assert [q.messages[0] for q in questions] == [system, system]
    assert len({q.id for q in questions}) == 2
