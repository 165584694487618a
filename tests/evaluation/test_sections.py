"""The report's sections: what each says of a made-up run."""

import re

from made_up import MORE

from omnitune.evaluation import sections


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
