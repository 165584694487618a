"""Answer limits: from the references, the same for a task's questions, within the positions."""

from dataclasses import replace
from typing import Any

import pytest
from helpers import conversation, write_image

from omnitune.data.loader import SampleReader
from omnitune.evaluation import limits
from omnitune.evaluation import scoring as module
from omnitune.evaluation.limits import answer_limit, cut_short
from omnitune.evaluation.scoring import answer, pick, questions_of, scoreboard
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Sample

LONG = "the sky is the air above us and the river is quiet. " * 2


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Pictures with short answers, the last with a long one; one question of sound in short."""
    path = write_image(tmp_path_factory.mktemp("media") / "a.png", seed=1)
    shown = {"media": (Media("image", path),)}
    short = [conversation(f"q{n}", f"which, {n}?", "red.", **shown) for n in range(5)]
    captions = [
        conversation(f"c{n}", "describe it.", text, task="caption", **shown)
        for n, text in enumerate(("a heart.", LONG))
    ]
    return [*short, *captions]


@pytest.fixture
def limits_given(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The limits that ``generate`` is asked for, call by call; no answer ends by itself."""
    seen: list[list[int]] = []

    def generate(model: object, prompts: Any, end: int, most: list[int], on_progress: Any) -> Any:
        seen.append(most)
        on_progress(len(prompts))
        return [[5] * max(0, n) for n in most]

    monkeypatch.setattr(module, "generate", generate)
    return seen


def tokens_of(reader: SampleReader, text: str) -> int:
    return len(reader.renderer.encode(text))


def near_the_context(model: OmniModel, reader: SampleReader) -> Sample:
    """A prompt that leaves fewer than nine positions."""
    room = model.thinker.config.max_position_embeddings - 8
    sample = conversation("near", "river " * (room // tokens_of(reader, "river")), LONG)
    prompt = reader.prompt("near", sample.messages[:1])
    assert room <= len(prompt.rendered.tokens) < room + 8
    return sample


def test_the_longest_reference_of_the_task_decides(
    model: OmniModel, reader: SampleReader, samples: list[Sample], limits_given: list[list[int]]
) -> None:
    scores, predictions = scoreboard(model, reader, samples)
    longest = tokens_of(reader, LONG)
    assert longest > 48
    assert scores["tasks"]["caption"]["answer_limit"] >= 1.5 * longest
    assert scores["tasks"]["image_qa"]["answer_limit"] < 48
    asked = {most for call in limits_given for most in call}
    assert asked == {task["answer_limit"] for task in scores["tasks"].values()}
    assert [p.at_limit for p in predictions] == [True] * 7
    assert scores["tasks"]["caption"]["at_limit"] == 2
    assert scores["tasks"]["image_qa"]["at_limit"] == 5


def test_windows_do_not_change_the_limits(
    model: OmniModel,
    reader: SampleReader,
    samples: list[Sample],
    limits_given: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The long reference is in the last window, and holds in the first."""
    scoreboard(model, reader, samples)
    whole = [most for call in limits_given for most in call]
    limits_given.clear()
    monkeypatch.setattr(module, "SCORE_WINDOW", 1)
    monkeypatch.setattr(module, "ANSWER_WINDOW", 1)
    scoreboard(model, reader, samples)
    assert [most for call in limits_given for most in call] == whole


def test_positions_that_the_prompt_leaves_are_the_most(
    model: OmniModel, reader: SampleReader, limits_given: list[list[int]]
) -> None:
    near = near_the_context(model, reader)
    talks = [near, conversation("y", "short?", LONG, task="audio_qa")]
    asked = [q for talk in talks for q in questions_of(talk)]
    predictions = answer(model, reader, asked)
    [[near_most, far_most]] = limits_given
    assert 0 < near_most < 9
    assert far_most > 48
    assert all(p.at_limit for p in predictions)


def test_a_prompt_near_the_context_is_answered(model: OmniModel, reader: SampleReader) -> None:
    [question] = questions_of(near_the_context(model, reader))
    [prediction] = answer(model, reader, [question])
    assert tokens_of(reader, prediction.answer) < 9


def test_an_answer_that_ends_is_not_cut(
    model: OmniModel, reader: SampleReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "generate", lambda *_, **__: [[5, 6]])
    [question] = questions_of(conversation("x", "which?", "red.", task="audio_qa"))
    assert not answer(model, reader, [question])[0].at_limit
    assert answer(model, reader, [replace(question, limit=2)])[0].at_limit


def test_limit_of_those_asked_together(reader: SampleReader) -> None:
    assert answer_limit(reader, []) == limits.MORE_ROOM
    assert answer_limit(reader, [LONG, "red"]) == answer_limit(reader, ["red", LONG])
    assert answer_limit(reader, [LONG]) > tokens_of(reader, LONG)


def test_warning_of_cut_answers() -> None:
    tasks = {
        "caption": {"at_limit": 3, "questions": 1200, "answer_limit": 136},
        "image_qa": {"at_limit": 0, "questions": 9, "answer_limit": 20},
        "text": {"questions": 9},
    }
    [message] = cut_short(tasks, "test")
    assert "caption of test: 3 of 1,200 answers" in message
    assert "136 tokens" in message


def test_records_of_one_id_are_told_apart(
    model: OmniModel, reader: SampleReader, samples: list[Sample], limits_given: list[list[int]]
) -> None:
    same = [replace(s, id="x", source="image_text", number=n) for n, s in enumerate(samples[:3])]
    _, predictions = scoreboard(model, reader, same)
    assert [(p.id, p.source, p.number) for p in predictions] == [
        ("x", "image_text", n) for n in range(3)
    ]


def test_normalisers_are_told_where_they_are_not_the_english(
    model: OmniModel, reader: SampleReader, samples: list[Sample], limits_given: list[list[int]]
) -> None:
    scores, _ = scoreboard(model, reader, samples)
    assert all("normalisers" not in task for task in scores["tasks"].values())
    told = [replace(samples[0], language="de"), *samples[1:]]
    scores, predictions = scoreboard(model, reader, told)
    assert scores["tasks"]["image_qa"]["normalisers"] == {"basic": 1, "english": 4}
    assert [p.language for p in predictions][:2] == ["de", ""]


def test_language_decides_what_is_right(
    model: OmniModel, reader: SampleReader, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SampleReader, "prompt", lambda self, id, messages: _Prompt())
    monkeypatch.setattr(module, "generate", lambda *_, **__: [[5]])
    monkeypatch.setattr(reader.renderer, "decode", lambda ids: "the red")
    for language, right in (("", 1), ("nl", 0)):
        [picked] = pick([replace(samples[0], language=language)], 1, 0)
        assert scoreboard(model, reader, [picked])[0]["image_qa_acc"] == right


class _Prompt:
    """Stands for a rendered prompt of no tokens."""

    class rendered:
        tokens: tuple[int, ...] = ()
