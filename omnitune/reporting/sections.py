"""What a report shows below its curves: HTML of each section, from what a run wrote."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from omnitune.evaluation.metrics import METRICS
from omnitune.evaluation.runs import as_number, as_object
from omnitune.reporting.gallery import Example, error_reason
from omnitune.reporting.page import (
    Section,
    breakable,
    figures,
    note_line,
    pairs,
    plain_table,
    prose,
    score_table,
    share_bar,
    tiles,
)
from omnitune.reporting.previews import show_media, show_thumbnails
from omnitune.reporting.tables import (
    Score,
    follow_up_scores,
    headline,
    score_rows,
    write_interval,
    write_score,
)
from omnitune.reporting.verdict import RULES, Verdict

_SHARES = (
    ("asked", "asked"),
    ("samples", "samples"),
    ("tokens", "tokens"),
    ("supervised", "super\u00advised"),  # may break there on a narrow screen
    ("loss", "loss"),
)


def verdict(found: Verdict) -> str:
    """Whether the run came out well, and what else was found."""
    opening, _, rest = found.sentence.partition(":")
    more = "".join(f"<li>{prose(sentence)}</li>" for sentence in found.more)
    more = (
        f"<details><summary>what else was found</summary><ul>{more}</ul></details>" if more else ""
    )
    return (
        f'<div class="judged {found.grade}"><p><b>{escape(opening)}:</b>{prose(rest)}</p>{more}'
        f"<details><summary>how this is judged</summary><p>{escape(RULES)}</p></details></div>"
    )


def opening(scores: dict[str, Any], split: str) -> str:
    """The headline numbers."""
    found = headline(scores)
    if not found:
        return f'<p class="muted">results.json holds no scores of the split {escape(split)}.</p>'
    cells = [(label, write_score(s.value, unit), *_below(s, unit)) for label, s, unit in found]
    note = f"These are the scores on the split {split}. The model did not train on it."
    if any(score.interval for _, score, _ in found):
        note += (
            " The range below a score is its 95 % confidence interval: with other questions of "
            "the same kind the score would probably lie in it."
        )
    if any(score.prior is not None for _, score, _ in found):
        note += " Guessing gives the most common training answer to every question of a kind."
    return f"{tiles(cells)}\n{note_line(note)}"


def _below(score: Score, unit: str) -> list[str]:
    interval = write_interval(score.interval, unit)
    return [
        interval + " %" * (unit == "percent" and bool(interval)),
        "" if score.prior is None else f"guessing: {write_score(score.prior, unit)}",
    ]


def glance(exhibits: Sequence[Example]) -> str:
    """A few held-out pictures with what was asked and answered; "" for none."""
    pictures = show_thumbnails([exhibit.media for exhibit in exhibits])
    shown = "".join(
        f'<li class="{"right" if e.right else "wrong"}">{picture}<span>{escape(e.question)}</span>'
        f"<b>{'✓' if e.right else '✗'} {escape(e.prediction.answer) or '(nothing)'}</b>"
        + ("" if e.right else f"<span>reference: {escape(e.prediction.reference)}</span>")
        + "</li>"
        for e, picture in zip(exhibits, pictures, strict=True)
    )
    note = note_line("Held-out pictures, chosen blindly, and what the model answers:")
    return f'{note}<ul class="glance">{shown}</ul>' if shown else ""


def curves(drawings: Sequence[tuple[str, str]], legend: Sequence[tuple[str, str]]) -> Section:
    """The diagrams of a run."""
    note = (
        "Each line shows a score over the steps of the run. Loss and word error rate should fall. "
        "All other scores should rise. Where the training loss falls while the validation loss "
        "rises, the model learns its training data by heart. A ring marks the score before the "
        "first step."
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
    note = "Each column is a held-out split. Indented rows are kinds of questions within a task."
    if any(score.interval for score in scores):
        note += " The small numbers and the thin line are the 95 % confidence interval."
    if any(score.prior is not None for score in scores):
        note += (
            " The prior is the score of guessing, and the orange tick marks it. Guessing neither "
            "looks nor listens: it gives the most common training answer to every question of a "
            "kind."
        )
    if any(row.key == "at_limit" for row in rows):
        note += " Cut at limit counts the answers that ran into the length limit."
    note += (
        " Less is better for loss and word error rate (WER). A dash means that the split has no "
        "such question."
    )
    return Section("Scoreboard", note, score_table(list(splits), rows))


def reliance(found: dict[str, Any]) -> list[Section]:
    """How the score falls without the medium; nothing where it was not measured."""
    panels = [_reliance_panel(name, as_object(values)) for name, values in found.items()]
    panels = [panel for panel in panels if panel]
    if not panels:
        return []
    note = (
        "The model answers the same held-out questions three times: with their own picture or "
        "sound, with that of another sample, and with none. Where the score stays the same, the "
        "model does not look or listen."
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
    metric = METRICS.get(measure)
    name = metric.title + " (less is better)" * metric.lower_is_better if metric else measure
    told = ", ".join(filter(None, (str(values.get("task", "")), name)))
    said = ""
    if swapped is not None:
        drop = 100 * (swapped - own if metric and metric.lower_is_better else own - swapped)
        said = f"<p>Reliance: {drop:.1f} points are lost with the {escape(modality)} of another "
        said += "sample.</p>"
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
        "In a chat, one question follows another. Here each question comes after another one "
        "about the same sample and its right answer. The scoreboard asks every question alone. "
        "The two scores should be about the same."
    )
    return [Section("Follow-up questions", note, tiles(cells))]


def text_guard(found: dict[str, Any], blended: dict[str, Any], split: str = "") -> list[Section]:
    """Whether language was lost; nothing where it was not measured.

    Args:
        blended: what was kept of the starting thinker, if anything.
        split: that of the texts; "" if not known.
    """
    now, start = as_number(found.get("loss")), as_number(found.get("start"))
    if now is None or start is None:
        return []
    change = now - start
    which = "no worse" if change <= 0 else f"worse by {change:.3f}"
    texts = f"texts of the split {split}" if split else "held-out texts"
    note = (
        f"The text loss says how badly the model predicts {texts}. Learning to see and hear "
        "should not cost language, so the loss now should not lie above the loss of the starting "
        "thinker. The curve above shows the same on the split validation."
    )
    if share := as_number(blended.get("share")):
        note += (
            f" At the end {100 * share:.3g} % of the starting thinker was blended in. This share "
            "had the least validation loss. The curves above show the run before that."
        )
    of = f", {split}" if split else ""
    cells = [
        (f"text loss now{of}", write_score(now, "loss"), which),
        (f"of the starting thinker{of}", write_score(start, "loss"), "before this run"),
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
        "The table shows the share of each source in the whole run. The share of samples should "
        "be the share that was asked for. Sources with long answers hold more of the supervised "
        "tokens. The source with most of the loss teaches the model most."
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
        "The table counts what the limits of the configuration cut away, and from how many "
        "samples. Nothing should be lost: else questions ask for what the model was not shown."
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


def gallery(exhibits: Sequence[Example], note: str) -> Section:
    """The chosen answers, each with what it was given to."""
    shown = show_media([exhibit.media for exhibit in exhibits])
    cards = "".join(_card(e, html) for e, html in zip(exhibits, shown, strict=True))
    body = f'<div class="gallery">{cards}</div>' if cards else ""
    return Section("Held-out answers", note, body)


def _card(exhibit: Example, media: str) -> str:
    prediction = exhibit.prediction
    verdict, css = ("✓ right", "right") if exhibit.right else ("✗ wrong", "wrong")
    why = "" if exhibit.right else error_reason(prediction)
    verdict += f"<small>{prose(why)}</small>" if why else ""
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
    note = "These are all settings of the run, with those that were left at their default."
    return Section("Configuration", note, pairs(settings))


def environment(
    facts: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]], of_the_run: bool = True
) -> Section:
    """Where and with what the run was made, and the commands that make it again.

    Args:
        of_the_run: the facts are the run's own; else those of the page's making.
    """
    note = (
        "The run was made here, with these versions. With the same seed, data and versions the "
        "commands give the same run again."
        if of_the_run
        else "The run did not note where it was made. This is where the page was made."
    )
    shown = "".join(f"<pre># {escape(what)}\n{escape(line)}</pre>" for what, line in commands)
    return Section("Environment", note, pairs(facts) + shown)
