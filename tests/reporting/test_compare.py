"""Runs side by side: names, differences, marks, and a page that needs no network."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_up import entry, rich_entry, rich_results, start_entry, write_run

from omnitune.cli import main
from omnitune.reporting.compare import (
    compare_table,
    differences,
    overlays,
    read_runs,
    scoreboards,
    short_names,
    write_comparison,
)
from omnitune.sample import UserError


def write_record(folder: Path, **config: Any) -> None:
    record = {"config": {"output_dir": str(folder), "seed": 0, "num_epochs": 3, **config}}
    record["inputs"] = {"a.json": str(sorted(config.values())), "same.json": "0123"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Two finished runs, the second better at pictures, and one that is not finished."""
    better = rich_results() | {"seconds": 77}
    better["tasks"]["image_qa"] |= {
        "exact_match": 0.7,
        "intervals": {"exact_match": [0.65, 0.75]},
    }
    lines = [rich_entry(10), rich_entry(20)]
    folders = [
        write_run(tmp_path / "run_low", rich_results(), lines),
        write_run(tmp_path / "run_high", better, lines),
        write_run(tmp_path / "run_cut", None, [entry(10, False)]),
    ]
    for folder, rate in zip(folders, (1e-4, 3e-4, 3e-4), strict=True):
        write_record(folder, learning_rate=rate)
    return folders


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/x/one", "/y/two"], ["one", "two"]),
        (["/x/one/run", "/x/two/run"], ["one/run", "two/run"]),
        (["/x/sft_lr1", "/x/sft_lr3"], ["lr1", "lr3"]),
        (["/x/sft_1", "/x/sft_2"], ["sft_1", "sft_2"]),  # too short to tell anything
        (["/x/sft", "/x/sft_long"], ["sft", "sft_long"]),
        (["/a/b/c", "/a/b"], ["c", "b"]),
    ],
)
def test_names_are_short_and_differ(folders: list[str], names: list[str]) -> None:
    assert short_names([Path(folder) for folder in folders]) == names


def test_what_differs_is_listed(three: list[Path]) -> None:
    found = dict(differences(read_runs(three)))
    assert found["learning_rate"] == ["0.0001", "0.0003", "0.0003"]
    assert "a.json, content" in found
    assert not {"seed", "output_dir", "same.json, content"} & found.keys()
    (three[2] / "run.json").unlink()
    assert dict(differences(read_runs(three)))["seed"] == ["0", "0", "–"]


def test_table_marks_the_best_and_what_lies_apart(three: list[Path]) -> None:
    lines = compare_table(read_runs(three))
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["low", "high", "cut"]
    (row, *_) = [line for line in lines if "image_qa, exact match" in line]
    assert re.search(r"50.0 % 45.0–55.0 ! +70.0 % 65.0–75.0 \* +–$", row)
    text = "\n".join(lines)
    assert re.search(r"state +finished +finished +unfinished", text)
    assert re.search(r"seconds +– +77 +–", text)
    assert "10 (epoch 1 of 3)" in text
    assert "validation" in text


def test_many_runs_go_below_each_other(tmp_path: Path) -> None:
    names = [f"{letter}_{'long' * 12}" for letter in "abcdefg"]
    runs = read_runs([write_run(tmp_path / n, rich_results(), [entry(1, True)]) for n in names])
    lines = compare_table(runs)
    assert max(map(len, lines)) <= 100
    assert sum("image_qa, exact match" in line for line in lines) == 3


def test_lines_of_all_runs_lie_in_one_diagram(three: list[Path]) -> None:
    found = {d.key: d for d in overlays(read_runs(three))}
    assert [len(found[key].curves) for key in ("loss", "training-loss")] == [3, 3]
    assert len(found["image_reliance"].curves) == 2  # the unfinished run has none yet
    assert len({curve.role for curve in found["loss"].curves}) == 3


def test_the_start_is_not_the_last_score(tmp_path: Path) -> None:
    start = start_entry() | {"epoch_ended": True}
    lines = [start, entry(10, False), entry(20, False)]
    begun = [write_run(tmp_path / name, None, lines) for name in ("one", "two")]
    runs = read_runs(begun)
    (heading, rows) = scoreboards(runs)[-1]
    assert "as last scored" in heading
    assert [row.scores[0].value for row in rows if row.scores[0]] == [2 / 20]
    found = {d.key: d for d in overlays(runs)}
    assert found["loss"].curves[0].steps == [0.0, 10.0, 20.0]
    assert found["training-loss"].curves[0].steps == [10.0, 20.0]


def test_page_needs_no_network(three: list[Path], tmp_path: Path) -> None:
    page = write_comparison(read_runs(three), tmp_path / "new" / "page.html")
    html = page.read_text(encoding="utf-8")
    assert "http" not in html
    assert not re.search(r"<(script|link|iframe)|@import", html)
    assert all(s.startswith("#") for s in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert re.findall(r'<section id="([^"]*)"', html) == [
        "runs", "settings-that-differ", "curves", "scores",
    ]  # fmt: skip
    assert html.count('class="best"') >= 1
    assert html.count('class="apart"') == 1
    names = re.findall(r'\sid="([^"]*)"', html)
    assert len(names) == len(set(names))


def test_runs_without_scores_are_shown(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, None, []) for name in ("one", "two")]
    runs = read_runs(folders)
    assert "unfinished" in "\n".join(compare_table(runs))
    html = write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "There are no scores yet." in html
    assert "All settings are the same." in html


def test_a_run_alone_is_no_comparison(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs two runs or more, found 1"):
        read_runs([three[0], three[0] / ".." / three[0].name])
    with pytest.raises(UserError, match="holds no run"):
        read_runs([three[0], tmp_path])


def test_command_says_where_the_page_is(
    three: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *map(str, three)]) == 0
    assert "page: compare.html" in capsys.readouterr().out
    assert (tmp_path / "compare.html").exists()
    assert main(["compare", str(three[0]), "nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    blocked = str(three[0] / "metrics.jsonl" / "page.html")
    assert main(["compare", *map(str, three), "--html", blocked]) == 2


def test_command_refuses_a_page_that_is_a_folder_before_the_work(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, three), "--html", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"error: {tmp_path}: is a folder, expected a file to write; give --html FILE\n",
    )
