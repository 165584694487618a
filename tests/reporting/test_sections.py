"""The report's sections: what each says of a made-up run."""

import re
from pathlib import Path
from typing import Any

from made_up import MORE, RESULTS, rich_results

from omnitune.evaluation.runs import RunFolder
from omnitune.evaluation.scoring import Prediction
from omnitune.reporting import sections
from omnitune.reporting.gallery import Example
from omnitune.reporting.page import Section, render_page
from omnitune.reporting.sections import ReportData
from omnitune.sample import Media


def data_of(results: dict[str, Any], *pictures: Example) -> ReportData:
    record = {"config": {"seed": 0}, "environment": {"torch": "9.9"}}
    return ReportData(RunFolder(Path("run"), [], results, record), pictures=pictures)


def show(section: Section | None) -> str:
    """A section's HTML on one line."""
    assert section is not None
    html = render_page("report", "run", [section])
    return re.sub(r"\n", "", html[html.index("<section") :])


def show_opening(results: dict[str, Any], *pictures: Example) -> str:
    blocks = sections.build_opening(data_of(results, *pictures))
    html = render_page("report", "run", [], blocks)
    return re.sub(r"\n", "", html[html.index("<main>") :])


def test_reliance_is_what_is_lost() -> None:
    html = show(sections.build_reliance(data_of(MORE)))
    assert "Reliance: 30.0 points" in html
    assert "Reliance: 120.0 points" in html  # of WER, more is worse
    assert re.findall(r"<dd>([\d.]+ %)</dd>", html) == [
        "50.0 %", "20.0 %", "10.0 %", "5.0 %", "125.0 %", "100.0 %",
    ]  # fmt: skip
    assert all(float(width) <= 100 for width in re.findall(r"width:([\d.]+)%", html))
    assert "lower is better" in html


def test_reliance_by_loss_is_no_percentage() -> None:
    values = {"task": "story", "measure": "loss", "own": 1.25, "swapped": 1.5}
    html = show(sections.build_reliance(data_of({"reliance": {"depth": values}})))
    assert "<dd>1.250</dd>" in html
    assert "Reliance: 0.250 worse with the depth of another sample." in html
    assert 'class="track"' not in html


def test_follow_ups_stand_beside_the_same_questions_alone() -> None:
    html = show(sections.build_follow_ups(data_of(MORE)))
    assert "<dd>18.0 %</dd>" in html
    assert "100.0 % asked alone, 150 questions" in html
    missing = {"follow_ups": {"image_qa": {"alone": 1.0}}}
    assert sections.build_follow_ups(data_of(missing)) is None


def test_text_guard_says_which_way_it_went() -> None:
    worse = sections.build_text_guard(data_of({**MORE, "blend": {"share": 0.0}}))
    assert worse is not None
    assert "worse by 0.050" in show(worse)
    assert "interpolated" not in worse.note
    better = {"text_guard": {"loss": 0.5, "start": 0.6}, "blend": {"share": 0.2}}
    html = show(sections.build_text_guard(data_of(better)))
    assert "no worse" in html
    assert "a share of 20\xa0%" in html
    assert sections.build_text_guard(data_of({"text_guard": {"loss": 0.5}})) is None


def test_text_guard_names_its_split() -> None:
    html = show(sections.build_text_guard(data_of({**MORE, "scored_split": "unseen"})))
    assert "texts of the split unseen" in html
    assert html.count(", unseen</dt>") == 2


def test_guess_stands_in_the_tile() -> None:
    html = show_opening(rich_results())
    assert '<dd>50.0 %</dd><dd class="small">45.0–55.0 %<br>guessing: 30.0 %</dd>' in html
    assert html.count("guessing: ") == 1
    assert "guessing: " not in show_opening(RESULTS)
    results = rich_results()
    results["tasks"]["transcription"]["prior"] = 1.5
    assert '<dd>5.2 %</dd><dd class="small">guessing: 150.0 %</dd>' in show_opening(results)


def test_verdict_shows_what_else_was_found() -> None:
    results = rich_results()
    results["tasks"]["image_qa"]["at_limit"] = 1
    html = show_opening(results)
    assert re.search(r'class="judged \w+"><p><b>[^<]+:</b> it ', html)
    assert "<li>1 of 1,234 answers of image_qa ran into the length limit.</li>" in html
    assert "what else" not in show_opening({})


def test_glance_says_what_was_asked_and_answered(tmp_path: Path) -> None:
    def example(answer: str, right: bool) -> Example:
        media = (Media("image", tmp_path / "gone.png"),)
        return Example(Prediction("i", "image_qa", "", "red", answer), right, "which?", media=media)

    html = show_opening({}, example("red", True), example("", False))
    assert re.sub("<[^>]*>", "|", html).count("which?") == 2
    assert "<b>✓ red</b></li>" in html
    assert "<b>✗ (nothing)</b><span>reference: red</span></li>" in html
    assert "glance" not in show_opening({})


def test_mix_shows_asked_beside_got() -> None:
    html = show(sections.build_mix(data_of(MORE)))
    assert re.findall(r"<td>([\d.]+)\xa0%", html) == [
        "40.0", "41.0", "20.0", "30.0", "10.0",
        "60.0", "59.0", "80.0", "70.0", "90.0",
    ]  # fmt: skip
    part = {"mix": {"text_only": {"asked": 1.0, "loss": None}}}
    html = show(sections.build_mix(data_of(part)))
    assert ">samples<" not in html
    assert "<td>–</td>" in html


def test_truncation_sums_up_and_names_the_worst() -> None:
    html = show(sections.build_truncation(data_of(MORE)))
    assert [c for c in ("4,000", "1,000", "25.0 %", "900") if c not in html] == []
    assert "images/<wbr>7.<wbr>png" in html
    assert html.count("<details>") == 1
    empty = {"audio": {"unit": "seconds", "whole": 0, "lost": 0}}
    html = show(sections.build_truncation(data_of({"truncation": empty})))
    assert "<td>0.0</td><td>0.0</td><td>–</td>" in html


def test_every_task_of_the_results_has_its_rows() -> None:
    results = {"tasks": {"smell_qa": {"exact_match": 0.25, "questions": 3}}}
    html = show(sections.build_scoreboard(data_of(results)))
    assert 'colspan="2">smell_<wbr>qa</th>' in html
    assert "<b>25.0 %</b>" in html


def test_an_answer_about_a_new_medium_is_shown() -> None:
    media = (Media("smell", Path("rose.smell")),)
    example = Example(Prediction("i", "smell_qa", "", "a rose", "a rose"), True, media=media)
    run = data_of({}).run
    html = show(sections.build_gallery(ReportData(run, examples=[example], note="One.")))
    assert '<p class="absent">rose.smell</p>' in html


def test_every_section_says_how_to_read_it() -> None:
    found = [build(data_of(rich_results())) for build in sections.SECTIONS]
    notes = {section.heading: section.note for section in found if section}
    assert len(notes) == len(sections.SECTIONS)
    assert all(note.endswith(".") for heading, note in notes.items() if heading[:4] != "Held")


def test_the_scoreboard_says_how_answers_are_compared() -> None:
    made = {"prompts": 12, "metrics": {"anls": {"rules": "<b> & blanks"}}}
    task = {"anls": 0.5, "questions": 12, "scored_with": made}
    html = show(sections.build_scoreboard(data_of({"tasks": {"anls": task}})))
    assert "how answers are compared with their references" in html
    assert "&lt;b&gt; &amp; blanks" in html
    assert "compared with their references" not in show(sections.build_scoreboard(data_of(RESULTS)))
