"""Records with one picture and with several in one run: trained, scored, shown, talked about."""

import json
from pathlib import Path

from helpers import sft_settings

from omnitune.data.loader import as_asked
from omnitune.data.reading import read_source
from omnitune.data.taught import Taught
from omnitune.evaluation.evaluate import evaluate_checkpoint
from omnitune.models.loading import load_omni
from omnitune.reporting.gallery import read_gallery
from omnitune.reporting.report import write_report
from omnitune.serving.session import ChatSession
from omnitune.sources import SOURCES
from omnitune.storage import read_checkpoint
from omnitune.training.sft import finetune

SPLITS = ["train"] * 4 + ["validation", "test"] * 2


def write_albums(data: Path) -> None:
    """Every other record of pictures has two: under a key, as questions, as typed parts."""
    records = []
    for n, split in enumerate(SPLITS):
        pictures = [f"{n}.png", f"{(n + 3) % 8}.png"][: 1 + n % 2]
        pair = {"question": "what of <image>?", "answer": f"number {n}."}
        parts = [{"type": "image", "path": name} for name in pictures]
        content = [*parts, {"type": "text", "text": "what is it?"}]
        answer = {"role": "assistant", "content": pair["answer"]}
        records.append(
            {"id": f"album-{n}", "split": split}
            | (
                {"messages": [{"role": "user", "content": content}, answer]}
                if n % 4 == 1
                else {"image": pictures, "qa": [pair, {"question": "why?", "answer": "so."}]}
            )
        )
    (data / SOURCES["image_text"].file).write_text(json.dumps(records))


def test_questions_about_several_pictures_are_asked_alone_in_the_records_order(
    tmp_path: Path,
) -> None:
    qa = [
        {"question": "is <image> larger than <image>?", "answer": "no"},
        {"question": "what is in the second picture?", "answer": "a cat"},
        {"question": "which is darker?", "answer": "the first"},
    ]
    path = tmp_path / SOURCES["image_text"].file
    path.parent.mkdir()
    path.write_text(json.dumps([{"image": ["0.png", "1.png"], "qa": qa}]))
    [sample] = read_source(tmp_path, "image_text")
    for k in range(20):
        for single in as_asked(sample, k, 0, multi_turn_prob=1.0, at_most=2):
            assert single.num_questions == 1
            assert [medium.path.name for medium in single.media] == ["0.png", "1.png"]


def test_records_with_one_and_with_two_pictures_in_one_run(home: Path) -> None:
    write_albums(home / "data")
    config = sft_settings(home, "albums", feature_cache="on", multi_turn_prob=0.5)
    finetune(config)
    results = json.loads((config.out / "results.json").read_text())
    assert results["tasks"]["image_qa"]["questions"] == 3
    assert "image" in results["reliance"]
    assert results["truncation"]["image"]["whole"] == 8 * 32 * 32
    taught = Taught.of(read_checkpoint(config.out / "omni.pt"))
    assert (taught.most("image"), taught.most("audio")) == (2, 1)
    examples, problem = read_gallery(config.out / "predictions.jsonl", home / "data")
    assert "missing" not in problem
    shown = {len(e.media) for e in examples if e.prediction.task == "image_qa"}
    assert shown == {2}
    page = write_report(config.out, config.data_dir)
    assert page.read_text().count("the picture of this question") >= 2
    again = evaluate_checkpoint(config.out, home / "data", "test")
    assert again["tasks"]["image_qa"]["loss"] == results["tasks"]["image_qa"]["loss"]

    model, renderer, values = load_omni(config.out)
    session = ChatSession(model, renderer, 4, Taught.of(values))
    [two] = [s for s in read_source(home / "data", "image_text") if s.id == "album-1"]
    for medium in two.media:
        session.attach(medium.path, "image")
        assert session.notice == ""
    assert session.pending == two.media
    "".join(session.ask("what is it?"))
