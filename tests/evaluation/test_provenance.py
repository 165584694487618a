"""Scores of the further tasks as a whole: from records to results, with what made them."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model, tiny_reader

from omnitune.data.schema import Record
from omnitune.evaluation import scoring as module
from omnitune.evaluation.evaluate import score_splits
from omnitune.evaluation.provenance import Prompts, scored_with
from omnitune.evaluation.scoring import Prediction, Question, score_answers
from omnitune.evaluation.truth import Truth
from omnitune.reporting.gallery import error_reason, is_right, severity
from omnitune.sample import Sample

CAPTION = "a small red circle stands left of a blue square"
RECORDS: dict[str, dict[str, Any]] = {
    "vqa": {"answers": ["red"] * 7 + ["rose"] * 3},
    "anls": {"answers": ["coca cola", "coca cola company"]},
    "choice": {"answer": "B", "choices": ["red", "blue"]},
    "captioning": {"answers": [CAPTION, "two shapes beside each other"]},
    "translation": {"answer": "ein roter Kreis steht links"},
}


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Answers by task instead of the model's; the reference where none is given."""
    given: dict[str, str] = {}

    def answer(model: object, reader: object, asked: list[Question], on_progress: Any) -> Any:
        return [
            Prediction(
                q.id, q.task, q.kind, q.reference, given.get(q.task, q.reference),
                language=q.language, references=q.references, choices=q.choices,
            )
            for q in asked
        ]  # fmt: skip

    monkeypatch.setattr(module, "answer", answer)
    return given


def samples() -> list[Sample]:
    return [
        Record(
            Path("x.json"), "text_only", n,
            {"question": f"{task}?", "task": task, "split": "test", **record},
        ).sample()
        for task, record in RECORDS.items()
        for n in range(2)
    ]  # fmt: skip


def test_from_records_to_results(perfect: dict[str, str], tmp_path: Path) -> None:
    model = tiny_model()
    lines = tmp_path / "answers.jsonl"
    results = score_splits(model, tiny_reader(model), {"test": samples()}, lines)
    tasks = results["tasks"]
    assert tasks["vqa"]["vqa"] == results["vqa_acc"] == 1
    assert tasks["anls"]["anls"] == results["anls_score"] == 1
    assert tasks["choice"]["choice"] == results["choice_acc"] == 1
    for name, headline in (("captioning", "caption_chrf"), ("translation", "translation_chrf")):
        assert tasks[name]["chrf"] == tasks[name]["bleu"] == tasks[name]["rouge_l"] == 1
        assert results[headline] == 1
        assert tasks[name]["intervals"].keys() >= {"chrf", "bleu", "rouge_l"}
        assert "chrf" in tasks[name]["scored_with"]["metrics"]
    assert tasks["vqa"]["scored_with"]["prompt"] == "vqa?"
    assert results["scored_with"].keys() == {"decoding", "precision", "versions"}
    assert "torch" in results["scored_with"]["versions"]
    json.dumps(results)  # all of it can be written

    told = [json.loads(line) for line in lines.read_text().splitlines()]
    by_task = {line["task"]: line for line in told}
    assert by_task["vqa"]["references"] == RECORDS["vqa"]["answers"]
    assert by_task["choice"]["choices"] == [["A", "red"], ["B", "blue"]]
    assert "references" not in by_task["choice"]
    assert "choices" not in by_task["translation"]


def test_wrong_answers_are_scored_by_how_near_they_come(perfect: dict[str, str]) -> None:
    perfect |= {
        "vqa": "rose", "anls": "coca cole", "choice": "(a)", "captioning": CAPTION[:-6],
        "translation": "xyz",
    }  # fmt: skip
    model = tiny_model()
    results, answers = module.scoreboard(model, tiny_reader(model), samples())
    assert results["vqa_acc"] == pytest.approx(0.9)
    assert results["anls_score"] == pytest.approx(1 - 1 / 9)
    assert results["choice_acc"] == 0
    assert 0.5 < results["caption_chrf"] < 1
    assert results["translation_chrf"] == 0
    assert not any(is_right(answer) for answer in answers)
    near, far = (next(p for p in answers if p.task == t) for t in ("captioning", "translation"))
    assert severity(near) < severity(far)
    assert error_reason(far) == "0 % in chrF"


def test_priors_are_judged_by_the_tasks_metric() -> None:
    priors = {("choice", ""): "b", ("vqa", ""): "rose"}
    options = (("A", "red"), ("B", "blue"))
    asked = [Prediction("x", "choice", "", key, "A", choices=options) for key in ("A", "B", "blue")]
    assert score_answers("choice", asked, range(3), priors)["prior"] == pytest.approx(2 / 3)
    people = ("red",) * 8 + ("rose",) * 2
    given = [Prediction("x", "vqa", "", "red", "red", references=people)]
    assert score_answers("vqa", given, [0], priors)["prior"] == pytest.approx(0.6)
    assert "prior" not in score_answers("translation", [], [], priors)


def test_prompts_are_told_where_there_is_one() -> None:
    prompts = Prompts()
    prompts.add(["write.", "write."])
    assert prompts.values() == {"prompts": 1, "prompt": "write."}
    prompts.add(["say."])
    assert prompts.values() == {"prompts": 2}


def test_rules_and_versions_of_a_task() -> None:
    truths = [Truth("the river"), Truth("今天天气很好", "zh")]
    found = scored_with("transcription", truths, Prompts())
    assert found["metrics"] == {"wer": {"normalisers": {"english": 1, "characters": 1}}}
    assert found["versions"].keys() == {"jiwer", "rapidfuzz", "whisper-normalizer"}
    assert "not installed" not in found["versions"].values()
    assert found["decoding"] == "greedy"
    told = scored_with("translation", truths, Prompts())["metrics"]
    assert told["bleu"]["signature"].count("tok:") == 2
    assert "F-measure" in told["rouge_l"]["rules"]
    assert "versions" not in scored_with("image_qa", truths, Prompts())
