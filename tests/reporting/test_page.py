"""Pages: escaped, strict about their data, and readable on a narrow screen."""

import pytest
from jinja2 import UndefinedError
from made_up import HOSTILE

from omnitune.reporting.page import Section, render_page
from omnitune.reporting.tables import Score, ScoreRow


def test_words_are_escaped_wherever_they_stand() -> None:
    row = ScoreRow(HOSTILE, HOSTILE, HOSTILE, "percent", (Score(0.5, (0.4, 0.6), 0.3), None))
    blocks = [
        ("note", {"text": HOSTILE}),
        ("tiles", {"cells": [(HOSTILE, HOSTILE, [HOSTILE, HOSTILE])]}),
        ("score_table", {"columns": [HOSTILE, HOSTILE], "rows": [row], "heading": HOSTILE}),
        ("table", {"name": HOSTILE, "heads": [HOSTILE] * 2, "rows": [[HOSTILE, HOSTILE]]}),
        ("folded_table", {"summary": HOSTILE, "heads": [HOSTILE], "rows": [[HOSTILE]]}),
        ("pairs", {"values": [(HOSTILE, HOSTILE)]}),
        ("commands", {"lines": [(HOSTILE, HOSTILE)]}),
        ("figures", {"drawings": [(HOSTILE, "<svg></svg>")], "legend": [("c1", HOSTILE)]}),
    ]
    html = render_page(HOSTILE, HOSTILE, [Section(HOSTILE, HOSTILE, blocks)], blocks)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 2 * len(blocks)
    assert "<svg></svg>" in html


def test_missing_data_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_page("report", "run", [], [("tiles", {})])
    with pytest.raises(UndefinedError):
        render_page("report", "run", [], [("no_such_macro", {})])


def test_lines_break_where_they_may() -> None:
    values = [("data_mix.text_only", "runs/first 0.25")]
    html = render_page(
        "report", "run", [Section("A b", "50 % of it.", [("pairs", {"values": values})])]
    )
    assert "50\xa0% of it." in html
    assert "data_<wbr>mix.<wbr>text_<wbr>only" in html
    assert "runs/<wbr>first 0.25" in html
    assert '<a href="#a-b">A b</a>' in html


def test_bars_end_where_the_scale_does() -> None:
    scores = (Score(1.25, (0.9, 1.5), 2.0), Score(-0.5))
    rows = [ScoreRow("task", "wer", "WER", "percent", scores)]
    html = render_page("x", "y", [], [("score_table", {"columns": ["a", "b"], "rows": rows})])
    assert '<i style="width:100.0%">' in html
    assert '<i style="width:0.0%">' in html
    assert "left:90.0%;width:calc(100.0% - 90.0%)" in html
    assert '<s style="left:100.0%">' in html
