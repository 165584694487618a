"""What a report shows below its curves: HTML of each section, from what a run wrote."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from omnitune.evaluation.gallery import Exhibit, blame
from omnitune.evaluation.media import show_media
from omnitune.evaluation.page import (
    Section,
    breakable,
    figures,
    pairs,
    plain_table,
    score_table,
    share_bar,
    tiles,
)
from omnitune.evaluation.runs import as_number, as_object
from omnitune.evaluation.tables import (
    Score,
    follow_up_scores,
    headline,
    score_rows,
    write_interval,
    write_score,
)

_SHARES = (
    ("asked", "asked"),
    ("samples", "samples"),
    ("tokens", "tokens"),
    ("supervised", "super\u00advised"),  # may break there on a narrow screen
    ("loss", "loss"),
)
_MEASURE_NAMES = {"exact_match": "exact match", "wer": "word error rate (less is better)"}


def opening(scores: dict[str, Any], split: str) -> str:
    """The headline numbers."""
    found = headline(scores)
    if not found:
        return f'<p class="muted">results.json holds no scores of the split {escape(split)}.</p>'
    cells = [(label, write_score(s.value, unit), _below(s, unit)) for label, s, unit in found]
    note = f"Scores on the split {escape(split)}, which is held out of training."
    if any(score.interval for _, score, _ in found):
        note += (
            " The range below each is its 95 % confidence interval: as far as the choice of test "
            "questions alone could have moved it."
        )
    return f'<p class="muted">{note}</p>\n{tiles(cells)}'


def _below(score: Score, unit: str) -> str:
    interval = write_interval(score.interval, unit)
    return interval + " %" * (unit == "percent") if interval else ""


def curves(drawings: Sequence[tuple[str, str]], legend: Sequence[tuple[str, str]]) -> Section:
    """The diagrams of a run."""
    note = (
        "From left to right the run goes on. Loss and word error rate should fall, all other "
        "scores rise; a blue line that falls while the orange one rises is learning by heart."
    )
    if not drawings:
        return Section("Curves", "", '<p class="muted">metrics.jsonl holds no points to draw.</p>')
    return Section("Curves", note, figures(drawings, legend))


def scoreboard(splits: dict[str, dict[str, Any]]) -> Section:
    """Every score of every held-out split."""
    rows = score_rows(splits)
    if not rows:
        return Section("Scoreboard", "", '<p class="muted">results.json holds no scores.</p>')
    scores = [score for row in rows for score in row.scores if score]
    note = "A column for each held-out split; indented rows are kinds of questions within a task."
    if any(score.interval for score in scores):
        note += " The small numbers and the whisker are the 95 % confidence interval."
    if any(score.prior is not None for score in scores):
        note += (
            " Prior, the orange tick: what always giving the commonest training answer of the "
            "question's kind would score, without looking or listening."
        )
    note += " Of loss and word error rate (WER), less is better. A dash: no such question there."
    return Section("Scoreboard", note, score_table(list(splits), rows))


def reliance(found: dict[str, Any]) -> list[Section]:
    """How the score falls without the medium; nothing where it was not measured."""
    panels = [_reliance_panel(name, as_object(values)) for name, values in found.items()]
    panels = [panel for panel in panels if panel]
    if not panels:
        return []
    note = (
        "The same held-out questions again, with the medium of another sample, and with none. "
        "Where the score stays the same, the model answers without looking or listening."
    )
    return [Section("Modality reliance", note, f'<div class="panels">{"".join(panels)}</div>')]


def _reliance_panel(modality: str, values: dict[str, Any]) -> str:
    words = {"own": "its own", "swapped": "another's", "none": "none"}
    found = {key: as_number(values.get(key)) for key in words}
    own, swapped = found["own"], found["swapped"]
    if own is None:
        return ""
    bars = "".join(
        f"<dt>{words[key]}</dt><dd>{share_bar(value)}</dd>"
        f"<dd>{escape(write_score(value, 'percent'))}</dd>"
        for key, value in found.items()
        if value is not None
    )
    measure = str(values.get("measure", ""))
    names = (str(values.get("task", "")), _MEASURE_NAMES.get(measure, measure))
    told = ", ".join(filter(None, names))
    said = ""
    if swapped is not None:
        drop = 100 * (swapped - own if measure == "wer" else own - swapped)
        said = f"<p>Reliance: {drop:.1f} points are lost with another's {escape(modality)}.</p>"
    return (
        f'<div class="panel"><h3>{breakable(modality)}</h3>'
        f'<p class="muted" style="margin:0 0 10px">{escape(told)}, by the {escape(modality)} that '
        f'is shown</p><dl class="bars">{bars}</dl>{said}</div>'
    )


def follow_ups(results: dict[str, Any]) -> list[Section]:
    """How well a question is answered after another; nothing where it was not measured."""
    cells = follow_up_scores(results)
    if not cells:
        return []
    note = (
        "Questions asked after another one about the same sample and its right answer, as in a "
        "chat. The scoreboard asks each question alone; here the same ones should not do worse."
    )
    return [Section("Follow-up questions", note, tiles(cells))]


def text_guard(found: dict[str, Any], blended: dict[str, Any]) -> list[Section]:
    """Whether language was lost; nothing where it was not measured.

    Args:
        blended: what was kept of the starting thinker, if anything.
    """
    now, start = as_number(found.get("loss")), as_number(found.get("start"))
    if now is None or start is None:
        return []
    change = now - start
    verdict = "no worse" if change <= 0 else f"worse by {change:.3f}"
    note = (
        "Held-out text loss now and of the thinker that the run began with. Learning to see and "
        "hear should not cost language: the first number should not lie above the second."
    )
    if share := as_number(blended.get("share")):
        note += (
            f" At the end {100 * share:.3g} % of the starting thinker was blended in, the share "
            "with the least validation loss; the curves above are from before it."
        )
    cells = [
        ("text loss now", write_score(now, "loss"), verdict),
        ("of the starting thinker", write_score(start, "loss"), "before this run"),
    ]
    return [Section("Text guard", note, tiles(cells))]


def mix(found: dict[str, Any]) -> list[Section]:
    """Asked and realised shares by source; nothing where they were not counted."""
    sources = {name: as_object(shares) for name, shares in found.items()}
    columns = [(k, head) for k, head in _SHARES if any(k in s for s in sources.values())]
    if not columns:
        return []
    rows = [
        [breakable(name), *(_share_cell(as_number(shares.get(key))) for key, _ in columns)]
        for name, shares in sources.items()
    ]
    note = (
        "Each source's share of the whole run. Samples should be as asked; a source of long "
        "answers holds more of the supervised tokens, and what holds most of the loss is what the "
        "model is taught most."
    )
    table = plain_table("realised mix", ["source", *(head for _, head in columns)], rows)
    return [Section("Realised mix", note, table)]


def _share_cell(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{escape(write_score(share, 'percent'))}{share_bar(share)}".replace(" %", "&nbsp;%")


def truncation(found: dict[str, Any]) -> list[Section]:
    """What limits took away, by modality; nothing where it was not noted."""
    ledger = {name: as_object(value) for name, value in found.items()}
    ledger = {name: value for name, value in ledger.items() if value}
    if not ledger:
        return []
    rows, details = [], []
    for name, value in ledger.items():
        unit = str(value.get("unit", ""))
        whole, lost = as_number(value.get("whole")), as_number(value.get("lost")) or 0.0
        share = "–" if not whole else write_score(lost / whole, "percent")
        cells = [_amount(whole, unit), _amount(lost, unit), share.replace(" ", "\xa0")]
        cells.append(write_score(as_number(value.get("samples")) or 0, "count"))
        rows.append([breakable(f"{name}, {unit}"), *map(escape, cells)])
        worst = [w for w in value.get("worst") or [] if isinstance(w, dict)]
        if worst:
            details.append(_worst_table(name, unit, worst))
    note = (
        "What was cut away to keep to the limits of the configuration, and from how many samples. "
        "Nothing should be lost, or the model is asked for what it was not shown."
    )
    heads = ["medium", "in all", "lost", "share", "samples"]
    return [Section("Truncation", note, plain_table("truncation", heads, rows) + "".join(details))]


def _worst_table(name: str, unit: str, worst: list[dict[str, Any]]) -> str:
    lines = [
        [
            breakable(str(w.get("id", ""))),
            breakable(str(w.get("file") or "–")),
            escape(_amount(as_number(w.get("lost")), unit)),
        ]
        for w in worst
    ]
    table = plain_table(f"worst cut {name}", ["sample", "file", f"{unit} lost"], lines)
    summary = f"<summary>{escape(name)}: the samples that lost most</summary>"
    return f"<details>{summary}{table}</details>"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if unit == "seconds" else f"{value:,.0f}"


def gallery(exhibits: Sequence[Exhibit], note: str) -> Section:
    """The chosen answers, each with what it was given to."""
    shown = show_media([exhibit.media for exhibit in exhibits])
    cards = "".join(_card(e, html) for e, html in zip(exhibits, shown, strict=True))
    body = f'<div class="gallery">{cards}</div>' if cards else ""
    return Section("Held-out answers", note, body)


def _card(exhibit: Exhibit, media: str) -> str:
    prediction = exhibit.prediction
    verdict, css = ("✓ right", "right") if exhibit.right else ("✗ wrong", "wrong")
    why = "" if exhibit.right else blame(prediction)
    verdict += f"<small>{escape(why)}</small>" if why else ""
    group = dict.fromkeys(filter(None, (prediction.task, prediction.kind, exhibit.split)))
    return (
        f'<article class="card {css}"><div class="media">{media}</div>'
        f'<p class="verdict">{verdict}</p><dl>'
        f"{_term('question', exhibit.question)}{_term('in the sound', exhibit.heard)}"
        f"<dt>reference</dt><dd>{escape(prediction.reference)}</dd>"
        f'<dt>answer</dt><dd class="answer">{escape(prediction.answer) or "(nothing)"}</dd></dl>'
        f'<p class="where">{escape(" · ".join(group))}<br>{escape(prediction.id)}</p></article>\n'
    )


def _term(name: str, text: str) -> str:
    return f"<dt>{name}</dt><dd>{escape(text)}</dd>" if text else ""


def configuration(settings: Sequence[tuple[str, str]]) -> Section:
    """The resolved configuration."""
    if not settings:
        return Section("Configuration", "", '<p class="muted">run.json is not there.</p>')
    note = "Every setting of the run, those that were left at their default included."
    return Section("Configuration", note, pairs(settings))


def environment(
    facts: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]], of_the_run: bool = True
) -> Section:
    """Where and with what the run was made, and the commands that make it again.

    Args:
        of_the_run: the facts are the run's own; else those of the page's making.
    """
    note = (
        "Where the run was made and with which versions; with the same seed, data and versions "
        "the commands give the same run again."
        if of_the_run
        else "The run did not note where it was made: this is where the page was made."
    )
    shown = "".join(f"<pre># {escape(what)}\n{escape(line)}</pre>" for what, line in commands)
    return Section("Environment", note, pairs(facts) + shown)
