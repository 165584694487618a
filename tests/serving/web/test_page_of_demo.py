"""The demo's model on its page: what scoring found right is right here too. Skipped without one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_helpers import Page, page_model, serving

import omnitune.tiny.sources  # noqa: F401 (the demo's data)
from omnitune.evaluation.runs import data_of, find_again
from omnitune.reporting.gallery import Example, read_gallery, shuffled
from omnitune.serving.python import load_model

DEMO = Path(os.environ.get("OMNITUNE_DEMO", "checkpoints/omni_sft_tiny"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DEMO / "predictions.jsonl").is_file(), reason="`make demo` makes it"),
]


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Page]:
    with serving([page_model("demo", load_model(DEMO, "cpu"), DEMO)]) as address:
        yield Page(browser, address)


@pytest.fixture(scope="module")
def right() -> list[Example]:
    found, _ = read_gallery(DEMO / "predictions.jsonl", data_of(DEMO))
    return [example for example in shuffled(found) if example.right and example.media]


@pytest.mark.parametrize("task", ["image_qa", "transcription", "image_audio_qa"])
def test_the_right_answer_appears(page: Page, right: list[Example], task: str) -> None:
    example = next(one for one in right if one.prediction.task == task)
    page.open()
    files = [find_again(medium.path, DEMO).resolve() for medium in example.media]
    [answer] = page.ask(example.question, *files)
    assert answer == " ".join(example.prediction.answer.split())


def test_examples_have_references(page: Page) -> None:
    page.open()
    page.until(lambda: page.all("#examples button"))[0].click()
    page.answers()
    assert page.one(".answer .reference b").text
    page.press("Model card")
    page.until(lambda: len(page.all("#side-panel .scores tbody tr")) > 3)
