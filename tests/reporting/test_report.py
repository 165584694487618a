"""The report of a made-up run: complete, with parts missing, and with hostile text in it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
from made_up import (
    HOSTILE,
    MORE,
    RESULTS,
    entry,
    rich_entry,
    rich_results,
    start_entry,
    write_lines,
)
from PIL import Image

from omnitune.cli import main
from omnitune.reporting.examples import EXAMPLES_FILE, read_examples
from omnitune.reporting.report import scores_table, write_report
from omnitune.reporting.verdict import judge
from omnitune.sample import UserError


def read_page(run_dir: Path, data_dir: Path) -> str:
    path = write_report(run_dir, data_dir)
    assert path == run_dir / "report.html"
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Sections, addresses and open elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [str(values[key]) for key in ("src", "href", "poster") if key in values]
        if tag == "section":
            self.sections.append(str(values["id"]))
        if tag not in {"meta", "img", "br", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def cards(html: str) -> list[str]:
    return re.findall(r"<article.*?</article>", html, flags=re.DOTALL)


def test_examples_to_try_are_kept(run_dir: Path, data_dir: Path) -> None:
    read_page(run_dir, data_dir)
    found = read_examples(run_dir)
    assert len({e.media for e in found}) == len(found) == 2  # two media have right answers
    rows = json.loads((run_dir / EXAMPLES_FILE).read_text())
    assert [row["question"] for row in rows] == [e.question for e in found]


def test_page_needs_no_network(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r"<(script|link|iframe)|@import", html)
    task_counts = Outline(html)
    assert task_counts.open == []
    assert all(s.startswith(("data:", "#")) for s in task_counts.addresses)


def test_sections_are_there_if_the_run_tells_of_them(run_dir: Path, data_dir: Path) -> None:
    always = ["curves", "scoreboard", "held-out-answers", "configuration", "environment"]
    assert Outline(read_page(run_dir, data_dir)).sections == always
    (run_dir / "results.json").write_text(json.dumps(rich_results()), encoding="utf-8")
    write_lines(run_dir / "metrics.jsonl", [rich_entry(10), rich_entry(20, phase=2)])
    html = read_page(run_dir, data_dir)
    more = ["modality-reliance", "follow-up-questions", "text-guard", "realised-mix"]
    more += ["mixture-receipt", "which-data-taught-it", "truncation", "left-out"]
    task_counts = Outline(html)
    assert task_counts.sections == always[:2] + more + always[2:]
    assert task_counts.open == []
    assert {f"#{name}" for name in task_counts.sections} <= set(task_counts.addresses)
    assert html.count("<svg") == 10
    assert "a new phase begins" in html


@pytest.mark.usefixtures("no_drawing")
def test_malformed_parts_are_left_out(run_dir: Path, data_dir: Path) -> None:
    odd = {
        "reliance": {"image": None, "audio": {"own": "much"}},
        "follow_ups": {"image_qa": 3, "caption": {"alone": "much"}},
        "text_guard": [1, 2],
        "mix": {"text_only": 3},
        "truncation": {"text": None},
        "intervals": {"loss": [1, None], "image_qa_acc": 7},
    }
    (run_dir / "results.json").write_text(json.dumps({**RESULTS, **odd}), encoding="utf-8")
    assert len(Outline(read_page(run_dir, data_dir)).sections) == 5


@pytest.mark.usefixtures("no_drawing")
def test_environment_is_that_of_the_run(run_dir: Path, data_dir: Path) -> None:
    record = {
        "config": {},
        "environment": {"torch": "9.9.9", "cores": "77"},
        "commands": ["omnitune sft --seed 5", "omnitune sft --seed 5 --resume"],
    }
    (run_dir / "run.json").write_text(json.dumps(record), encoding="utf-8")
    results = {**RESULTS, "precision": "bf16", "device": "cuda", "seconds": 12.5}
    (run_dir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = read_page(run_dir, data_dir)
    assert "where the page was made" not in html
    for text in ("9.9.9", "77", "bf16", "cuda", "12.5", *record["commands"]):
        assert text in html


@pytest.mark.usefixtures("no_drawing")
def test_media_are_inside_the_page(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    assert len(pictures) == 3
    assert {base64.b64decode(p) for p in pictures} == {
        (data_dir / "images" / name).read_bytes() for name in ("0.png", "1.png")
    }
    (sound,) = re.findall(r'src="data:audio/wav;base64,([^"]*)"', html)
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert (len(wave), rate) == (8000, 16_000)


@pytest.mark.usefixtures("no_drawing")
def test_everything_is_escaped(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x" in html
    assert "data/<wbr>&lt;mine&gt;" in html


def test_page_shows_what_there_is(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    assert "<h1>my_model</h1>" in html
    for value in ("0.500", "87.5 %", "50.0 %", "5.2 %"):
        assert f"<dd>{value}</dd>" in html
    assert not re.search("95[ \xa0]%", html)  # there are no intervals
    assert "where the page was made" in html  # the run did not say where it was
    assert html.count("<svg") == 4
    for text in ("test_<wbr>voices", "125.0 %", "1,234", "data_<wbr>mix.<wbr>text_<wbr>only"):
        assert text in html
    assert "prefers-color-scheme:dark" in html
    assert "2 of 4 generated answers are right" in html


@pytest.mark.usefixtures("no_drawing")
def test_page_begins_with_verdict_tiles_and_pictures(run_dir: Path, data_dir: Path) -> None:
    results = rich_results()
    (run_dir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = read_page(run_dir, data_dir)
    words = re.sub("<[^>]*>", "", html).replace("\xa0", " ")
    assert judge(results).sentence in words
    places = [html.index(mark) for mark in ('class="judged bad"', "<dd>50.0 %", 'class="glance"')]
    assert places == sorted(places)
    assert places[-1] < html.index('<section id="curves"')
    glance = html[places[-1] : html.index("</ul>", places[-1])]
    assert glance.count("<img") == 2  # one of each picture
    assert "what color is it?" in glance or "how many are there?" in glance
    assert "is it blue?" in glance


@pytest.mark.usefixtures("no_drawing")
def test_hostile_names_are_escaped_on_top(run_dir: Path, data_dir: Path) -> None:
    bad = {"exact_match": 0.1, "intervals": {"exact_match": [0, 0.2]}, "prior": 0.3}
    results = {
        "scored_split": HOSTILE,
        "image_qa_acc": 0.1,
        "tasks": {HOSTILE: {**bad, "at_limit": 3, "questions": 50}},
        "reliance": {HOSTILE: {"interval": [-1, 1], "questions": 50}},
        "text_guard": {"loss": 1.0, "start": 0.9},
    }
    (run_dir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = read_page(run_dir, data_dir)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") > 5
    assert "3 of 50 answers of &lt;script&gt;" in html


@pytest.mark.usefixtures("no_drawing")
def test_an_unreadable_picture_is_named_on_top(run_dir: Path, data_dir: Path) -> None:
    (data_dir / "images" / "1.png").write_bytes(b"no image")
    html = read_page(run_dir, data_dir)
    assert html.count("(image: cannot be shown)") == 2


def test_curves_tell_where_they_start(run_dir: Path, data_dir: Path) -> None:
    lines = [start_entry(), entry(10, False), entry(20, True)]
    write_lines(run_dir / "metrics.jsonl", lines)
    (run_dir / "run.json").write_text(json.dumps({"config": {"probe_questions": 16}}))
    labels = re.findall(r'aria-label="([^"]* over steps[^"]*)"', read_page(run_dir, data_dir))
    (loss, _, image, audio) = labels
    start = "validation before the first step and after each epoch starts at"
    assert f"{start} 8, ends at 0.1" in loss
    assert "quick checks on 16 questions of each task starts at 8, ends at 0.2" in loss
    assert "training starts at 0.1, ends at 0.05" in loss
    assert f"{start} 0.01, ends at 0.5" in image
    assert f"{start} 4, ends at 1.5" in audio  # above what the axis shows


def test_a_run_of_a_start_alone_is_drawn(run_dir: Path, data_dir: Path) -> None:
    write_lines(run_dir / "metrics.jsonl", [start_entry()])
    html = read_page(run_dir, data_dir)
    assert html.count("<svg") == 4


def test_names_inside_the_drawings_are_unique(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    names = re.findall(r'\sid="([^"]*)"', html)
    assert names
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', html)) <= set(names)


@pytest.mark.usefixtures("no_drawing")
def test_wrong_answers_come_first(run_dir: Path, data_dir: Path) -> None:
    verdicts = re.findall(r'class="verdict">(\S+ \w+)\s*<', read_page(run_dir, data_dir))
    assert verdicts == ["✗ wrong", "✗ wrong", "✓ right", "✓ right"]


@pytest.mark.usefixtures("no_drawing")
def test_answers_find_their_questions(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    (card,) = [card for card in cards(html) if "i0#0" in card]
    assert "what color is it?" in card
    assert "how many" not in card


@pytest.mark.usefixtures("no_drawing")
def test_data_of_the_run_is_shown_unless_told_otherwise(run_dir: Path, data_dir: Path) -> None:
    (run_dir / "run.json").write_text(json.dumps({"config": {"data_dir": str(data_dir)}}))
    assert main(["report", "--ckpt_dir", str(run_dir)]) == 0
    assert "what color is it?" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_pictures_are_valid(run_dir: Path, data_dir: Path) -> None:
    write_report(run_dir, data_dir)
    for name in ("curves.png", "answers.png"):
        with Image.open(run_dir / name) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width > 500


@pytest.mark.usefixtures("no_drawing")
def test_without_predictions(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "predictions.jsonl").unlink()
    (run_dir / "answers.png").write_bytes(b"of an earlier report")
    html = read_page(run_dir, tmp_path / "no data either")
    assert "no predictions.jsonl" in html
    assert not (run_dir / "answers.png").exists()


@pytest.mark.usefixtures("no_drawing")
def test_without_data(run_dir: Path, tmp_path: Path) -> None:
    """What an earlier report showed of the answers' media stays."""
    (run_dir / "answers.png").write_bytes(b"of an earlier report")
    (run_dir / "examples.json").write_text("[1]")
    html = read_page(run_dir, tmp_path / "gone")
    assert "no such data folder" in html
    assert (run_dir / "answers.png").read_bytes() == b"of an earlier report"
    assert (run_dir / "examples.json").read_text() == "[1]"
    assert len(cards(html)) == 4
    assert "<img" not in html


def test_without_images(run_dir: Path, data_dir: Path) -> None:
    (data_dir / "images" / "image_qa.json").unlink()
    entries = [entry(10, False, "image_qa_acc"), entry(20, True, "image_qa_acc")]
    write_lines(run_dir / "metrics.jsonl", entries)
    results = {"loss": 0.5, "tasks": {"text": {"loss": 0.6, "token_acc": 0.875}}}
    (run_dir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = read_page(run_dir, data_dir)
    assert html.count("<svg") == 3
    assert "image QA" not in html
    assert not (run_dir / "answers.png").exists()


def test_with_next_to_nothing(run_dir: Path, data_dir: Path) -> None:
    for name in ("run.json", "predictions.jsonl"):
        (run_dir / name).unlink()
    (run_dir / "results.json").write_text("{}", encoding="utf-8")
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "tra', encoding="utf-8")
    html = read_page(run_dir, data_dir)
    assert "no points to draw" in html
    assert "holds no scores" in html


def test_unreadable_medium_is_named(run_dir: Path, data_dir: Path) -> None:
    (data_dir / "images" / "1.png").write_bytes(b"no image")
    html = read_page(run_dir, data_dir)
    assert "(image: cannot be shown)" in html
    assert (run_dir / "answers.png").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "results.json"])
def test_missing_file_names_the_command(run_dir: Path, data_dir: Path, name: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file; `python sft_omni\.py"):
        write_report(run_dir, data_dir)


def test_empty_metrics_are_an_error(run_dir: Path, data_dir: Path) -> None:
    (run_dir / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="holds no scores yet"):
        write_report(run_dir, data_dir)


def test_table_begins_with_the_verdict() -> None:
    results = rich_results()
    lines = scores_table(results)
    blank = lines.index("")
    assert " ".join(lines[:blank]) == judge(results).sentence
    assert lines[blank + 1] == "test split:"


def test_table() -> None:
    assert scores_table(RESULTS)[scores_table(RESULTS).index("test split:") :] == [
        "test split:",
        "  loss                     0.500",
        "  text token accuracy     87.5 %",
        "  image QA exact match    50.0 %",
        "  transcription WER        5.2 %",
        "",
        "task           score                test  test_voices",
        "-----------------------------------------------------",
        "text           token accuracy     87.5 %            –",
        "               loss                0.600            –",
        "               questions              20            –",
        "image_qa       exact match        50.0 %            –",
        "               token accuracy     90.0 %            –",
        "               loss                0.400            –",
        "               questions           1,234            –",
        "transcription  WER                 5.2 %      125.0 %",
        "               token accuracy     95.0 %            –",
        "               loss                0.100        0.200",
        "               questions               7            3",
        "all tasks      token accuracy     91.0 %            –",
        "               loss                0.500        0.200",
    ]


def test_table_shows_intervals_and_priors() -> None:
    lines = scores_table(rich_results())
    assert "  image QA exact match    50.0 %  (45.0–55.0)" in lines
    assert "  loss                     0.500  (0.400–0.600)" in lines
    text = "\n".join(lines)
    assert re.search(r"task +score +test +95 % +test_voices", text)
    assert "cut at limit" not in text
    assert re.search(r"image_qa +exact match +50.0 % +45.0–55.0 +–\n +answer prior +30.0 %", text)


def test_table_counts_what_was_cut() -> None:
    results = rich_results()
    results["tasks"]["image_qa"]["at_limit"] = 12
    results["tasks"]["transcription"]["at_limit"] = 0
    lines = [line for line in scores_table(results) if "cut at limit" in line]
    assert [line.split()[-2:] for line in lines] == [["12", "–"]]


def test_table_ends_with_the_questions_that_follow_others() -> None:
    assert scores_table({**RESULTS, "follow_ups": MORE["follow_ups"]}) == [
        *scores_table(RESULTS),
        "",
        "asked after another question:",
        "  image_qa 18.0 % (100.0 % asked alone, 150 questions)",
    ]


def test_table_stays_narrow() -> None:
    splits = {f"a_rather_long_name_of_a_split_{n}": rich_results() for n in range(7)}
    lines = scores_table({"tasks": {"t" * 50: {"loss": 1.0}}, "splits": splits})
    assert max(map(len, lines)) <= 100
    assert all(any(name in line for line in lines) for name in splits)


def test_table_of_another_split() -> None:
    lines = scores_table({"loss": 0.5, "scored_split": "validation", "splits": {"validation": {}}})
    assert lines[:3] == [judge({}).sentence, "", "validation split:"]
    assert "validation" in lines[5]
    assert scores_table({}) == ["there are no scores"]
    assert scores_table({"tasks": None, "splits": None, "loss": float("nan")}) == [
        "there are no scores"
    ]
