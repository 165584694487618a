"""CONTRIBUTING's recipes, run as they stand there: a medium, an encoder, a task, a container, a
dialect."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings

from omnitune.containers.registry import CONTAINERS
from omnitune.data.reading import read_source
from omnitune.data.sources.registry import DIALECTS
from omnitune.encoders.registry import ENCODERS, build_encoder
from omnitune.media.registry import MEDIA
from omnitune.models.loading import save_encoder
from omnitune.sample import UserError
from omnitune.sources import SOURCES, Source
from omnitune.tasks import TASKS
from omnitune.training.sft import finetune

GUIDE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
TITLES = ("A medium", "An encoder", "A task", "A container", "A dialect")
MOST_LINES = 15
REGISTRIES: tuple[dict[str, Any], ...] = (MEDIA, ENCODERS, SOURCES, TASKS, CONTAINERS, DIALECTS)


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"\n#+ ", GUIDE.split(f"# {title}\n")[1])[0]


def blocks(title: str, language: str = "python") -> list[str]:
    """The code blocks of a section."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


@pytest.fixture
def recipes() -> Iterator[dict[str, Any]]:
    """The names that the recipes define; what they register is taken away afterwards."""
    before = [dict(registry) for registry in REGISTRIES]
    names: dict[str, Any] = {}
    for title in ("How to add something", *TITLES):
        for code in blocks(title):
            exec(code, names)
    yield names
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def write_series(path: Path, *values: float) -> Path:
    """A file of the recipe's medium."""
    path.write_text("".join(f"{value}\n" for value in values))
    return path


@pytest.mark.parametrize("title", TITLES)
def test_recipes_are_short(title: str) -> None:
    [code] = blocks(title)
    assert len([line for line in code.split("\n") if line]) < MOST_LINES


@pytest.mark.usefixtures("recipes")
def test_the_medium_checks_and_recognises_files(tmp_path: Path) -> None:
    medium = MEDIA["series"]
    one, same = (write_series(tmp_path / name, 1, 2.5) for name in ("one", "same"))
    other = write_series(tmp_path / "other", 1, 2)
    medium.check(one)
    assert medium.fingerprint(one) == medium.fingerprint(same)
    assert medium.fingerprint(one).content != medium.fingerprint(other).content
    one.write_text("warm")
    for path in (one, tmp_path / "none"):
        with pytest.raises(UserError, match=str(path)):
            medium.check(path)


@pytest.mark.usefixtures("recipes")
def test_the_encoder_gives_the_slots_that_it_announces(tmp_path: Path) -> None:
    encoder = build_encoder("series", {"type": "series_linear"})
    files = [write_series(tmp_path / str(n), *range(n)) for n in (1, 5)]
    inputs = [encoder.read(path) for path in files]
    rows = encoder.encode(encoder.build(), inputs)
    for path, input, found in zip(files, inputs, rows, strict=True):
        stats = encoder.measure(path)
        assert found.shape == (encoder.num_slots(input), encoder.feature_dim)
        assert stats.least <= len(found) <= stats.most


@pytest.mark.usefixtures("recipes")
def test_the_task_is_scored_under_its_own_name(home: Path) -> None:
    folder = home / "data" / "series"
    folder.mkdir()
    records = []
    for n, split in enumerate(["train"] * 4 + ["validation", "test"]):
        name = write_series(folder / f"{n}.txt", n, n + 1).name
        records.append({"series": name, "question": "?", "answer": f"{n}", "split": split})
    (folder / "series_qa.json").write_text(json.dumps(records))
    torch.manual_seed(0)
    encoder = build_encoder("series", {"type": "series_linear"})
    path = home / "series.pt"
    save_encoder(path, "series", encoder.config, encoder.build().state_dict())
    mix = {"text_only": 0.5, "series_text": 0.5}
    config = sft_settings(home, "series", data_mix=mix, encoder_ckpts={"series": path}, max_steps=1)
    finetune(config)
    results = json.loads((config.out / "results.json").read_text())
    assert "series_qa" in results["tasks"]
    assert 0 <= results["series_qa_acc"] <= 1


@pytest.mark.usefixtures("recipes")
def test_the_format_gives_the_records_of_its_files(tmp_path: Path) -> None:
    pairs = [("what is 7 plus 5?", "12"), ("which color is grass?", "green")]
    path = tmp_path / SOURCES["text_only"].file
    path.parent.mkdir()
    path.with_suffix(".pairs").write_text("".join("\t".join(pair) + "\n" for pair in pairs))
    samples = read_source(tmp_path, "text_only")
    assert [tuple(m.text for m in sample.messages) for sample in samples] == pairs
    path.with_suffix(".pairs").write_text("what is this?\n")
    with pytest.raises(UserError, match="record 1"):
        read_source(tmp_path, "text_only")


@pytest.mark.usefixtures("recipes")
def test_the_dialect_reads_the_records_of_an_own_source(tmp_path: Path) -> None:
    path = tmp_path / "cards.json"
    source = Source("mine", path=str(path))
    path.write_text(json.dumps([{"front": "a", "back": "b"}]))
    [sample] = read_source(None, source)
    assert [message.text for message in sample.messages] == ["a", "b"]
    path.write_text(json.dumps([{"front": "a", "back": ""}]))
    with pytest.raises(UserError, match='record 1: "back" is empty'):
        read_source(None, source)
