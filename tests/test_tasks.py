"""The registry of tasks: it is consistent, and one more entry is all that a new task takes."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import conversation, tiny_model, tiny_reader, write_image

from omnitune.data.schema import Record
from omnitune.evaluation.console_summary import score_lines
from omnitune.evaluation.metrics import METRICS, Metric, metric_of
from omnitune.evaluation.runs import RunFolder
from omnitune.evaluation.scoring import (
    Prediction,
    answer,
    questions_of,
    score_answers,
    scoreboard,
)
from omnitune.reporting.compare import compare_table, overlays
from omnitune.reporting.diagrams import diagrams_of
from omnitune.reporting.gallery import error_reason, is_right
from omnitune.reporting.tables import headline, score_rows
from omnitune.reporting.verdict import judge
from omnitune.sample import Media, UserError
from omnitune.serving.folder import greeting
from omnitune.tasks import (
    RESULT_KEYS,
    TASKS,
    Task,
    Tasks,
    get_task,
    headlines,
    task_names,
    task_of,
    tasks_of,
)

THERMAL = Task(
    "thermal_qa",
    media=frozenset({"thermal"}),
    metric="exact_match",
    headline="thermal_qa_acc",
    title="questions about temperatures",
)


@pytest.fixture
def thermal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "thermal_qa", THERMAL)


def test_registry_is_consistent() -> None:
    assert all(name == task.name for name, task in TASKS.items())
    assert all(name == metric.name for name, metric in METRICS.items())
    assert {task.metric for task in TASKS.values()} <= METRICS.keys()
    keys = [task.headline for task in TASKS.values() if task.headline]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & (METRICS.keys() | TASKS.keys())
    titles = [task.title for task in TASKS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_each_combination_of_media_has_one_default_and_unambiguous_names() -> None:
    for media in {task.media for task in TASKS.values() if task.media is not None}:
        tasks = tasks_of(media)
        assert [task.is_default for task in tasks] == [True] + [False] * (len(tasks) - 1)
        assert set(Counter(task.name for task in tasks).values()) == {1}
        assert set(Counter(word for task in tasks for word in task.aliases).values()) <= {1}
        # What every record may name means the same task whatever it shows.
        for task in tasks:
            if task.media is None:
                assert {task_of(media, word) for word in (task.name, *task.aliases)} == {task.name}


@pytest.mark.parametrize(
    ("media", "named", "kind", "expected"),
    [
        ((), "", "caption", "text"),
        (("image",), "", "count", "image_qa"),
        (("image",), "", "caption", "caption"),
        (("image",), "image_qa", "caption", "image_qa"),
        (("audio",), "", "", "audio_qa"),
        (("audio",), "", "transcription", "transcription"),
        (("audio",), "qa", "transcription", "audio_qa"),
        (("audio",), "transcription", "welsh", "transcription"),
        (("image", "audio"), "transcription", "", "image_audio_qa"),
        (("image",), "caption", "", "captioning"),
        (("image",), "caption", "caption", "captioning"),
        ((), "translation", "", "translation"),
        ((), "", "translation", "text"),
        (("audio",), "vqa", "count", "vqa"),
        (("thermal",), "", "", "thermal_qa"),
        (("thermal",), "anls", "", "anls"),
        (("thermal", "audio"), "qa", "", "audio_thermal_qa"),
    ],
)
def test_the_task_follows_from_the_media(
    media: tuple[str, ...], named: str, kind: str, expected: str
) -> None:
    assert task_of(media, named, kind) == expected


def test_media_without_a_task_are_judged_by_exact_match() -> None:
    assert task_names(["thermal"])[:2] == ("qa", "thermal_qa")
    assert metric_of("thermal_qa").name == "exact_match"
    assert get_task("thermal_qa").headline == ""


def test_a_record_names_a_task_of_its_media(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(**values: Any) -> str:
        record = {"image": "a.png", "question": "how many?", "answer": "2", **values}
        return Record(Path("data/qa.json"), "image_text", 0, record).sample().task

    counting = replace(TASKS["caption"], name="counting", title="counts")
    with pytest.raises(UserError, match='"counting", which is no task'):
        task(task="counting")
    monkeypatch.setitem(TASKS, "counting", counting)
    assert task(task="counting") == task(kind="counting") == "counting"
    assert task(kind="number") == "image_qa"
    with pytest.raises(UserError, match=r'does not fit a record with image; .* "counting"'):
        task(task="text")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"headline": "image_qa_acc"}, "its headline 'image_qa_acc' is that of the task image_qa"),
        ({"headline": "loss"}, "its headline 'loss' is a key of the results already; .* thermal"),
        ({"metric": "meteor"}, "its metric 'meteor' is none; known: exact_match, wer"),
        ({"also": ("wer", "meteor")}, "its metric 'meteor' is none"),
    ],
)
def test_a_task_that_would_be_scored_wrongly_is_refused(values: dict[str, str], words: str) -> None:
    before = dict(TASKS)
    with pytest.raises(UserError, match=f"task thermal_qa: {words}"):
        TASKS["thermal_qa"] = replace(THERMAL, **values)
    assert before == TASKS
    for register in (Tasks.update, Tasks.__ior__):
        with pytest.raises(UserError, match=f"task thermal_qa: {words}"):
            register(TASKS, {"thermal_qa": replace(THERMAL, **values)})
    with pytest.raises(UserError, match=f"task thermal_qa: {words}"):
        TASKS.setdefault("thermal_qa", replace(THERMAL, **values))
    assert before == TASKS
    tasks = Tasks()  # as it is before the metrics are known
    tasks["thermal_qa"] = replace(THERMAL, metric="meteor")
    with pytest.raises(UserError, match="its metric 'meteor' is none"):
        tasks.know_metrics(METRICS)
    tasks["thermal_qa"] = replace(THERMAL, title="another")  # in place of itself
    assert METRICS.keys() <= RESULT_KEYS


@pytest.mark.usefixtures("thermal")
def test_a_new_task_is_scored_and_shown_under_its_name(tmp_path: Path) -> None:
    model = tiny_model()
    image = Media("image", write_image(tmp_path / "a.png"))
    samples = [
        conversation(str(n), "how hot?", f"{n}.", media=(image,), task=THERMAL.name)
        for n in range(2)
    ]
    results, answers = scoreboard(model, tiny_reader(model), samples)
    assert {given.task for given in answers} == {"thermal_qa"}
    value = results["thermal_qa_acc"]
    assert value == results["tasks"]["thermal_qa"]["exact_match"]

    assert "thermal QA exact match" in [label for label, _, _ in headline(results)]
    assert "thermal_qa" in {row.task for row in score_rows({"test": results})}
    line = {"step": 1, "validation": results, "epoch_ended": False}
    assert f"→ Thermal QA acc: {value:.1%}" in score_lines(1, line)
    assert "Thermal QA: exact match" in [diagram.title for diagram in diagrams_of([line])]
    verdict = judge(results)
    assert "questions about temperatures" in " ".join([verdict.sentence, *verdict.more])
    run = RunFolder(tmp_path, [line], results, {})
    assert "Thermal QA: exact match" in [d.title for d in overlays({"a": run, "b": run})]
    assert any("thermal_qa, exact match" in row for row in compare_table({"a": run, "b": run}))
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert any("questions about temperatures: " in row for row in greeting(tmp_path))


def test_a_task_may_limit_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    sample = conversation("x", "what?", "a long answer, which needs more.", task="image_qa")
    [long] = scoreboard(model, tiny_reader(model), [sample])[1]
    monkeypatch.setitem(TASKS, "image_qa", replace(TASKS["image_qa"], answer_limit=2))
    results, [short] = scoreboard(model, tiny_reader(model), [sample])
    assert results["tasks"]["image_qa"]["answer_limit"] == 2
    assert len(short.answer) < len(long.answer)
    [question] = questions_of(sample)
    assert answer(model, tiny_reader(model), [question])[0].answer == short.answer


def test_a_new_metric_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def letters(answer: str, reference: str, language: str) -> tuple[int, int]:
        return sum(a == b for a, b in zip(answer, reference, strict=False)), len(reference)

    metric = Metric("letters", "letters", "letters in place", letters, part="letter")
    monkeypatch.setitem(METRICS, "letters", metric)
    monkeypatch.setitem(TASKS, "thermal_qa", replace(THERMAL, metric="letters"))
    given = Prediction("0", "thermal_qa", "", "red ring", "red rock")
    assert not is_right(given)
    assert error_reason(given) == "3 letter errors in 8 letters"
    assert score_answers("thermal_qa", [given], [0])["letters"] == 5 / 8
    scores = {"tasks": {"thermal_qa": {"letters": 5 / 8, "token_acc": 0.5, "questions": 99}}}
    assert "it gets 62.5 % right on questions about temperatures" in judge(scores).sentence
    assert score_rows({"test": scores})[0].name == "letters"


def test_headlines_are_the_keys_of_the_results() -> None:
    assert {key: task.metric for key, task in headlines().items()} == {
        "text_acc": "token_acc",
        "image_qa_acc": "exact_match",
        "audio_wer": "wer",
        "vqa_acc": "vqa",
        "anls_score": "anls",
        "choice_acc": "choice",
        "caption_chrf": "chrf",
        "translation_chrf": "chrf",
    }
