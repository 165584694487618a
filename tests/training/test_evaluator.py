"""What a run of stage E is watched by: cheap between epochs, whole after them, warned of."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import SENTENCES, tiny_model, tiny_reader, write_image

from omnitune.config.sft import SftConfig
from omnitune.data.reading import read_source
from omnitune.data.samples import Samples
from omnitune.models.omni import OmniModel
from omnitune.sources import SOURCES
from omnitune.training.evaluator import Evaluator, final_scores
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan
from omnitune.training.strategy import headline_tasks

PLAN = Plan(steps_per_epoch=10, total_steps=40)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Samples]:
    """Texts and pictures; each question about a picture has the same answer."""
    folder = tmp_path_factory.mktemp("data")
    for source in ("text_only", "image_text"):
        (folder / SOURCES[source].file).parent.mkdir()
    texts, pictures = [], []
    for n in range(60):
        split = {0: "train", 1: "validation", 2: "test"}[n % 3]
        text = {"question": f"repeat {n}.", "answer": SENTENCES[n % 4], "split": split}
        texts.append(text)
        image = write_image(folder / "images" / f"{n}.png", seed=n)
        asked = {"question": "which color?", "answer": "red.", "kind": "color"}
        pictures.append(asked | {"image": image.name, "split": split})
    (folder / SOURCES["text_only"].file).write_text(json.dumps(texts))
    (folder / SOURCES["image_text"].file).write_text(json.dumps(pictures))
    return {source: read_source(folder, source) for source in ("text_only", "image_text")}


def make_watch(samples: dict[str, Samples], model: OmniModel, **rest: Any) -> Evaluator:
    config = SftConfig(**{"probe_questions": 3, **rest})
    reader = tiny_reader(model)
    strategy: Any = SimpleNamespace(
        reader_at=lambda step: reader, probed=headline_tasks(), state={}
    )
    return Evaluator(config, model, strategy, samples, PLAN)


def test_epochs_end_says_more_than_the_moments_between(samples: dict[str, Samples]) -> None:
    watch = make_watch(samples, tiny_model())
    between, whole = watch(5, False), watch(10, True)
    assert between["tasks"]["image_qa"]["questions"] == 3
    assert whole["tasks"]["image_qa"]["questions"] == 20
    for scores in (between, whole):
        assert scores["intervals"].keys() >= {"loss", "text_acc", "image_qa_acc"}
        assert scores["tasks"]["image_qa"]["prior"] == 1  # every training answer is "red."
    more = {"reliance", "image_reliance", "text_guard", "warnings"}
    assert not between.keys() & more
    assert more <= whole.keys()
    assert whole["image_reliance"] == whole["reliance"]["image"]["gain"]
    assert whole["text_guard"]["loss"] == whole["text_guard"]["start"]
    json.dumps(whole)


def test_ignored_modality_is_warned_of_from_the_second_epoch_on(
    samples: dict[str, Samples],
) -> None:
    """No answer of a random model is right, with whatever picture."""
    watch = make_watch(samples, tiny_model())
    assert watch(10, True)["warnings"] == []
    [message] = watch(20, True)["warnings"]
    assert "ignoring the image" in message
    last = Evaluator(watch.config, watch.model, watch.strategy, samples, Plan(10, 7))
    assert len(last(7, True)["warnings"]) == 1


def test_language_that_is_lost_is_warned_of(samples: dict[str, Samples]) -> None:
    model = tiny_model()
    watch = make_watch(samples, model)
    with torch.no_grad():
        model.thinker.get_output_embeddings().weight.mul_(4)
    scores = watch(10, True)
    assert scores["text_guard"]["loss"] > scores["text_guard"]["start"]
    [message] = scores["warnings"]
    assert "language is being lost" in message


def test_resumed_run_keeps_the_starting_thinkers_losses(samples: dict[str, Samples]) -> None:
    """What is restored takes the place of what was measured, also where the watch looks."""
    watch = make_watch(samples, tiny_model())
    saved = {when: [(nll + 1, n) for nll, n in x] for when, x in watch.state["text_start"].items()}
    before = watch(10, True)["text_guard"]["start"]
    watch.state.update({"text_start": saved})
    assert watch(10, True)["text_guard"]["start"] > before


def test_without_texts_there_is_no_guard(samples: dict[str, Samples], tmp_path: Path) -> None:
    pictures = {"image_text": samples["image_text"]}
    model = tiny_model()
    watch = make_watch(pictures, model, output_dir=tmp_path)
    assert "text_guard" not in watch(10, True)
    results = final_scores(watch.config, model, watch.strategy.reader_at(0), pictures, watch.state)
    assert "text_guard" not in results
    assert results["reliance"]["image"]["questions"] == 20


def test_final_scores_are_of_the_test_split(samples: dict[str, Samples], tmp_path: Path) -> None:
    model = tiny_model()
    watch = make_watch(samples, model, output_dir=tmp_path)
    results = final_scores(watch.config, model, watch.strategy.reader_at(0), samples, watch.state)
    assert results["scored_split"] == "test"
    assert results["text_guard"]["start"] == pytest.approx(results["tasks"]["text"]["loss"])
    assert results["tasks"]["image_qa"]["prior"] == 1
    assert results["intervals"].keys() >= {"loss", "text_acc", "image_qa_acc"}


def test_warnings_are_printed_after_the_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(SftConfig(output_dir=tmp_path), ["all"], lambda step, entry: ["the scores"], 1)
    log.scores(1, 1, {"loss": 1.0, "warnings": ["look here"]}, True)
    assert capsys.readouterr().out.endswith("the scores\nwarning: look here\n")
