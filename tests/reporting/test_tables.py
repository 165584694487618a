"""The scoreboard's rows: their order, their intervals and priors, and which score is best."""

from typing import Any

import pytest
from made_up import RESULTS, rich_results

from omnitune.evaluation.runs import splits_of
from omnitune.reporting.report import scores_table
from omnitune.reporting.tables import (
    Score,
    ScoreRow,
    compare_scores,
    headline,
    score_rows,
    ways_of_scoring,
    write_interval,
)
from omnitune.reporting.verdict import judge


def test_kinds_follow_their_task() -> None:
    rows = score_rows(splits_of(RESULTS))
    names = [(row.name, row.is_kind) for row in rows if row.task == "image_qa"]
    assert names[:3] == [("exact match", False), ("count", True), ("color", True)]


def test_intervals_and_priors_are_found() -> None:
    rows = {(r.task, r.name): r.scores for r in score_rows(splits_of(rich_results()))}
    assert rows["image_qa", "exact match"] == (Score(0.5, (0.45, 0.55), 0.3), None)
    assert rows["image_qa", "count"][0] == Score(0.25, (0.2, 0.3), 0.21)
    assert rows["image_qa", "color"][0] == Score(0.75)
    assert rows["image_qa", "token accuracy"][0] == Score(0.9)
    assert rows["all tasks", "loss"] == (Score(0.5, (0.4, 0.6)), Score(0.2))


def test_headline_leaves_out_what_is_missing() -> None:
    found = headline({"loss": 1.0, "audio_wer": None, "image_qa_acc": float("nan")})
    assert found == [("loss", Score(1.0), "loss")]


def test_headline_knows_what_guessing_gets() -> None:
    found = {label: score for label, score, _ in headline(rich_results())}
    assert found["image QA exact match"] == Score(0.5, (0.45, 0.55), 0.3)
    assert found["transcription WER"] == Score(0.0525)


def test_intervals_in_words() -> None:
    assert write_interval((0.123, 1.0), "percent") == "12.3–100.0"
    assert write_interval((0.1, 0.25), "loss") == "0.100–0.250"
    assert write_interval(None, "loss") == ""


def row(key: str, *scores: Score | None, unit: str = "percent") -> ScoreRow:
    return ScoreRow("task", key, key, unit, scores)


def test_best_is_least_where_less_is_better() -> None:
    values = (Score(0.2), None, Score(0.1), Score(0.2))
    assert compare_scores(row("exact_match", *values)) == ({0, 3}, set())
    assert compare_scores(row("wer", *values)) == ({2}, set())


@pytest.mark.parametrize(
    ("interval", "apart"), [((0.1, 0.39), {1}), ((0.1, 0.4), set()), (None, set())]
)
def test_apart_means_intervals_that_do_not_meet(
    interval: tuple[float, float] | None, apart: set[int]
) -> None:
    found = compare_scores(row("exact_match", Score(0.5, (0.4, 0.6)), Score(0.3, interval)))
    assert found == ({0}, apart)


def test_nothing_is_best_where_there_is_no_choice() -> None:
    assert compare_scores(row("loss", Score(1.0), None)) == (set(), set())
    assert compare_scores(row("loss", Score(1.0), Score(1.0))) == (set(), set())
    assert compare_scores(row("questions", Score(1), Score(2), unit="count")) == (set(), set())


def test_cut_answers_and_other_normalisers_are_shown_where_there_are_any() -> None:
    task = {"exact_match": 0.5, "questions": 40, "at_limit": 0}
    assert all(row.key != "at_limit" for row in score_rows({"test": {"tasks": {"caption": task}}}))
    cut = task | {"at_limit": 3, "normalisers": {"english": 1, "basic": 39}}
    columns = {"test": {"tasks": {"caption": cut}}}
    [row] = [row for row in score_rows(columns) if row.key == "at_limit"]
    assert row.scores[0] is not None
    assert row.scores[0].value == 3
    table = "\n".join(scores_table(columns["test"]))
    assert "cut at limit" in table
    assert "test caption: basic 39, english 1" in table


def spoken(**normalisers: int) -> dict[str, Any]:
    task = {"wer": 0.5, "questions": 40, **({"normalisers": normalisers} if normalisers else {})}
    return {"audio_wer": 0.5, "tasks": {"transcription": task}}


def test_a_word_error_rate_of_characters_is_called_cer() -> None:
    def names(**columns: dict[str, Any]) -> list[str]:
        return [row.name for row in score_rows(columns) if row.key == "wer"]

    characters, english = spoken(characters=40), spoken()
    assert names(test=characters) == ["CER"]
    assert names(test=english) == names(test=spoken(characters=39, basic=1)) == ["WER"]
    assert names(test=characters, other=english) == ["WER"]
    assert [label for label, _, _ in headline(characters)] == ["transcription CER"]
    assert "50.0 % of the characters wrong" in judge(characters).sentence
    assert "50.0 % of the words wrong" in judge(english).sentence


def test_only_the_main_score_of_a_task_is_told_by_kind() -> None:
    kinds = {"kinds": {"a": 0.1, "b": 0.3}}
    task = {"chrf": 0.2, "rouge_l": 0.4, "bleu": 0.3, **kinds}
    rows = score_rows({"test": {"tasks": {"captioning": task}}})
    assert [row.name for row in rows] == ["chrF", "a", "b", "ROUGE-L", "BLEU"]


def test_ways_of_scoring_are_told_once() -> None:
    made = {
        "prompts": 1, "prompt": "what?", "versions": {"sacrebleu": "2"},
        "metrics": {"chrf": {"signature": "nc:6"}, "wer": {"normalisers": {"b": 1, "a": 2}}},
    }  # fmt: skip
    scores = {"tasks": {"x": {"scored_with": made}, "y": {"scored_with": None}, "z": 4}}
    assert ways_of_scoring({"test": scores, "other": scores}) == [
        ["x", "chrF", "nc:6", "“what?”", "sacrebleu 2"],
        ["x", "WER", "a, b", "“what?”", "sacrebleu 2"],
    ]
