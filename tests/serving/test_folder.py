"""What a model's folder tells: the mend where there is no model, the greeting where there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.sample import UserError
from omnitune.serving.folder import greeting, require_model
from omnitune.storage import write_json

TASKS = {
    "image_qa": {"exact_match": 0.958, "kinds": {"count": {}, "odd_one": {}}},
    "transcription": {"wer": 0.026, "kinds": {"scottish": {}, "welsh": {}}},
    "text": {"token_acc": 0.9},
    "smell_qa": {"exact_match": 0.5},
}


def run_json(folder: Path, **values: Any) -> Path:
    write_json(folder / "run.json", values)
    return folder


def said(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        require_model(folder)
    return str(error.value)


def test_an_unfinished_run_names_the_command_that_goes_on(tmp_path: Path) -> None:
    config = {"thinker_ckpt": "thinker.pt", "data_dir": "data"}
    commands = ["python sft_omni.py --config mine.json --overwrite"]
    run_json(tmp_path, config=config, finished=False, commands=commands)
    assert "a run that has not ended (newest checkpoint: none yet)" in said(tmp_path)
    for step in (500, 1000):
        (tmp_path / f"omni_step_{step}.pt").touch()
    assert said(tmp_path).endswith(
        "(newest checkpoint: step 1000) and no model yet; go on with it by "
        "`python sft_omni.py --config mine.json --resume`"
    )
    run_json(tmp_path, config=config, commands=["'"])
    assert f"--output-dir {tmp_path} --resume`" in said(tmp_path)


def test_what_else_may_be_there(tmp_path: Path) -> None:
    assert "no such folder; make a model with `python sft_omni.py" in said(tmp_path / "none")
    assert "holds no omni.pt; make a model with `python sft_omni.py" in said(tmp_path)
    run_json(tmp_path, config={"stage": "pretrain_lm"})
    assert "a part of a model (stage pretrain_lm)" in said(tmp_path)
    assert "is neither a folder nor a file" in said(Path("/dev/null"))


def test_what_was_taught_in_words(tmp_path: Path) -> None:
    run_json(tmp_path, config={"data_dir": str(tmp_path)})
    assert greeting(tmp_path) == ["Its run has not ended: it has no scores yet."]
    write_json(tmp_path / "results.json", {"image_qa_acc": 0.9, "tasks": TASKS})
    assert greeting(tmp_path) == [
        "Taught, with scores on what was kept from training:",
        "  text conversations",
        "  questions about an image (count, odd one): 95.8 % right",
        "  transcripts of speech: 2.6 % of the words wrong",
        "  questions of smell_qa: 50.0 % right",
    ]


def test_a_score_of_few_questions_says_so(tmp_path: Path) -> None:
    tasks = {"image_qa": {"exact_match": 1.0, "questions": 1}, "text": {"questions": 2}}
    write_json(tmp_path / "results.json", {"tasks": tasks})
    assert greeting(tmp_path)[1:] == [
        "  text conversations",
        "  questions about an image: 100.0 % right (1 question only)",
    ]
    tasks["image_qa"]["questions"] = 20
    write_json(tmp_path / "results.json", {"tasks": tasks})
    assert greeting(tmp_path)[-1].endswith("100.0 % right")


def test_what_to_try(tmp_path: Path) -> None:
    (tmp_path / "a b.png").touch()
    (tmp_path / "q.wav").touch()
    rows = [
        {"question": "how many?", "media": [["image", str(tmp_path / "a b.png")]]},
        {"question": "", "media": [["audio", str(tmp_path / "q.wav")]]},
        {"question": "gone?", "media": [["image", "gone.png"]]},
    ]
    write_json(tmp_path / "examples.json", rows)
    for folder in (tmp_path, tmp_path / "omni.pt"):
        folder.touch()
        assert greeting(folder) == [
            "To try, 2 kept from training that it answered rightly:",
            f"  /image {tmp_path / 'a b.png'}",
            "    how many?",
            f"  /audio {tmp_path / 'q.wav'}",
            "    (and an empty line)",
        ]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"tasks": 3}', "[" * 100_000, '{"config": 3}'])
def test_broken_files_make_it_shorter(tmp_path: Path, text: str) -> None:
    for name in ("run.json", "results.json", "examples.json", "predictions.jsonl"):
        (tmp_path / name).write_text(text)
    assert greeting(tmp_path) == []
    assert "holds no omni.pt" in said(tmp_path)


def test_scores_that_are_none_are_left_out(tmp_path: Path) -> None:
    tasks = {"image_qa": {"exact_match": None, "kinds": []}, "caption": 7}
    (tmp_path / "results.json").write_text(json.dumps({"loss": 1.0, "tasks": tasks}))
    assert greeting(tmp_path)[1:] == ["  questions about an image", "  captions of an image"]
