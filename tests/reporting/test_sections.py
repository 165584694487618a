"""The report's sections: what each says of a made-up run."""

import re
from pathlib import Path

from made_up import MORE, RESULTS, rich_results

from omnitune.evaluation.scoring import Prediction
from omnitune.reporting import sections
from omnitune.reporting.gallery import Example
from omnitune.reporting.verdict import Verdict
from omnitune.sample import Media


def test_reliance_is_what_is_lost() -> None:
    (found,) = sections.reliance(MORE["reliance"])
    assert "Reliance: 30.0 points" in found.body
    assert "Reliance: 120.0 points" in found.body  # of WER, more is worse
    assert re.findall(r"<dd>([\d.]+ %)</dd>", found.body) == [
        "50.0 %", "20.0 %", "10.0 %", "5.0 %", "125.0 %", "100.0 %",
    ]  # fmt: skip
    assert all(float(width) <= 100 for width in re.findall(r"width:([\d.]+)%", found.body))
    assert "less is better" in found.body


def test_follow_ups_stand_beside_the_same_questions_alone() -> None:
    (found,) = sections.follow_ups(MORE)
    assert "<dd>18.0 %</dd>" in found.body
    assert "100.0 % asked alone, 150 questions" in found.body
    assert sections.follow_ups({"follow_ups": {"image_qa": {"alone": 1.0}}}) == []


def test_text_guard_says_which_way_it_went() -> None:
    (worse,) = sections.text_guard(MORE["text_guard"], {"share": 0.0})
    assert "worse by 0.050" in worse.body
    assert "blended" not in worse.note
    (better,) = sections.text_guard({"loss": 0.5, "start": 0.6}, {"share": 0.2})
    assert "no worse" in better.body
    assert "20 % of the starting thinker was blended in" in better.note
    assert sections.text_guard({"loss": 0.5}, {}) == []


def test_text_guard_names_its_split() -> None:
    (found,) = sections.text_guard(MORE["text_guard"], {}, "unseen")
    assert "texts of the split unseen" in found.note
    assert found.body.count(", unseen</dt>") == 2
    (unknown,) = sections.text_guard(MORE["text_guard"], {})
    assert "held-out texts" in unknown.note


def test_guess_stands_in_the_tile() -> None:
    body = sections.opening(rich_results(), "test")
    assert '<dd>50.0 %</dd><dd class="small">45.0–55.0 %<br>guessing: 30.0 %</dd>' in body
    assert body.count("guessing:") == 1
    assert "guessing:" not in sections.opening(RESULTS, "test")
    results = rich_results()
    results["tasks"]["transcription"]["prior"] = 1.5
    assert '<dd>5.2 %</dd><dd class="small">guessing: 150.0 %</dd>' in sections.opening(results, "")


def test_verdict_shows_what_else_was_found() -> None:
    body = sections.verdict(Verdict("fine", "Good: <all> of it.", ("And & more.",)))
    assert 'class="judged fine"' in body
    assert "<b>Good:</b> &lt;all&gt; of it." in body
    assert "<li>And &amp; more.</li>" in body
    assert "what else" not in sections.verdict(Verdict("unknown", "Nobody knows: nothing."))


def test_glance_says_what_was_asked_and_answered(tmp_path: Path) -> None:
    def exhibit(answer: str, right: bool) -> Example:
        media = (Media("image", tmp_path / "gone.png"),)
        return Example(Prediction("i", "image_qa", "", "red", answer), right, "which?", media=media)

    body = sections.glance([exhibit("red", True), exhibit("", False)])
    assert re.sub("<[^>]*>", "|", body).count("which?") == 2
    assert "<b>✓ red</b></li>" in body
    assert "<b>✗ (nothing)</b><span>reference: red</span></li>" in body
    assert sections.glance([]) == ""


def test_mix_shows_asked_beside_got() -> None:
    (found,) = sections.mix(MORE["mix"])
    shares = re.findall(r"<td>([\d.]+)&nbsp;%", found.body)
    assert shares == [
        "40.0",
        "41.0",
        "20.0",
        "30.0",
        "10.0",
        "60.0",
        "59.0",
        "80.0",
        "70.0",
        "90.0",
    ]
    (part,) = sections.mix({"text_only": {"asked": 1.0}})
    assert "samples" not in part.body


def test_truncation_sums_up_and_names_the_worst() -> None:
    (found,) = sections.truncation(MORE["truncation"])
    assert [c for c in ("4,000", "1,000", "25.0\xa0%", "900") if c not in found.body] == []
    assert "images/<wbr>7.<wbr>png" in found.body
    assert found.body.count("<details>") == 1
    (empty,) = sections.truncation({"audio": {"unit": "seconds", "whole": 0, "lost": 0}})
    assert "–" in empty.body


def test_every_section_says_how_to_read_it() -> None:
    found = [
        *sections.reliance(MORE["reliance"]),
        *sections.follow_ups(MORE),
        *sections.text_guard(MORE["text_guard"], {}),
        *sections.mix(MORE["mix"]),
        *sections.truncation(MORE["truncation"]),
        sections.configuration([("a", "b")]),
        sections.environment([("a", "b")], []),
    ]
    assert all(section.note.endswith(".") for section in found)
