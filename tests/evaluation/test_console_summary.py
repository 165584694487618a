"""What is printed of a moment."""

from typing import Any

from omnitune.evaluation.console_summary import score_lines


def test_printed_lines() -> None:
    scores = {"loss": 2.345, "text_acc": 0.734, "image_qa_acc": 0.652, "audio_wer": 0.123}
    assert score_lines(500, {"validation": scores}) == [
        "Step 500: loss=2.345 text_acc=73.4%",
        "→ Image QA acc: 65.2%",
        "→ Audio transcription WER: 12.3%",
    ]
    assert score_lines(1, {"validation": {"loss": 1.0}}) == ["Step 1: loss=1.000"]


def test_an_epochs_end_says_more() -> None:
    scores: dict[str, Any] = {
        "loss": 1.0,
        "image_qa_acc": 0.747,
        "intervals": {"image_qa_acc": [0.712, 0.78], "loss": [0.9, 1.1]},
        "reliance": {
            "image": {"measure": "exact_match", "own": 0.75, "swapped": 0.4, "none": 0.35},
            "audio": {"measure": "loss", "own": 0.5, "swapped": 2.25, "none": 2.0},
        },
        "text_guard": {"loss": 0.13, "start": 0.12},
    }
    between = score_lines(1, {"validation": {**scores, "reliance": {}}, "epoch_ended": False})
    assert between[1] == "→ Image QA acc: 74.7%"
    assert score_lines(1, {"validation": scores, "epoch_ended": True})[1:] == [
        "→ Image QA acc: 74.7% (71.2 to 78.0)",
        "→ Reliance: image exact match 75.0%, with another's 40.0%, without 35.0%; "
        "audio loss 0.500, with another's 2.250, without 2.000",
        "→ Text loss: 0.130, of the starting thinker 0.120",
    ]


def test_cut_answers_are_said() -> None:
    tasks = {"caption": {"at_limit": 3, "questions": 16}, "image_qa": {"at_limit": 0}, "text": {}}
    _, line = score_lines(1, {"validation": {"loss": 1.0, "tasks": tasks}})
    assert line == "→ Answers cut at their limit: caption 3 of 16"


def test_an_error_rate_of_characters_is_called_cer() -> None:
    def line(normalisers: dict[str, int]) -> str:
        tasks = {"transcription": {"normalisers": normalisers}}
        scores = {"loss": 1.0, "audio_wer": 0.123, "tasks": tasks}
        return score_lines(1, {"validation": scores})[1]

    assert line({"characters": 9}) == "→ Audio transcription CER: 12.3%"
    assert line({"characters": 9, "english": 1}) == "→ Audio transcription WER: 12.3%"
