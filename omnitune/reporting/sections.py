"""What a report shows: the data of each section, from what a run wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omnitune.evaluation.environment import command, environment
from omnitune.evaluation.metrics import METRICS
from omnitune.evaluation.runs import RunFolder, as_number, as_object, flatten, top_split
from omnitune.reporting import curves
from omnitune.reporting.data_sections import left_out_section, receipt_section, taught_section
from omnitune.reporting.diagrams import PHASE, Diagram
from omnitune.reporting.gallery import Example, choose_gallery, error_reason
from omnitune.reporting.page import Block, Section
from omnitune.reporting.previews import GLANCE_SIDE, preview, show_media
from omnitune.reporting.tables import (
    follow_up_scores,
    headline,
    score_rows,
    ways_of_scoring,
    write_interval,
    write_score,
)
from omnitune.reporting.verdict import RULES, judge

_SHARES = ("asked", "samples", "tokens", "supervised", "loss")
_SHOWN = {"own": "its own", "swapped": "another's", "none": "none"}
GLANCE = 6  # pictures at the top of the page


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    Attributes:
        examples: the generated answers.
        note: what to say about them.
        pictures: some of them, each about one picture.
    """

    run: RunFolder
    diagrams: Sequence[Diagram] = ()
    examples: Sequence[Example] = ()
    note: str = ""
    pictures: Sequence[Example] = ()

    def part(self, *keys: str) -> dict[str, Any]:
        """An object of ``results.json``; an empty one where there is none."""
        return as_object(self.run.results, *keys)


def build_opening(data: ReportData) -> list[Block]:
    """Whether the run came out well, its headline numbers, and a few pictures with answers."""
    found = judge(data.run.results)
    opening, _, reasons = found.sentence.partition(": ")
    words = {"opening": opening, "reasons": reasons, "more": found.more, "rules": RULES}
    blocks = [("verdict", {"grade": found.grade, **words}), *_headline(data.run)]
    if not data.pictures:
        return blocks
    shown = [(e, preview(e.media[0], GLANCE_SIDE)) for e in data.pictures[:GLANCE]]
    note = "Held-out pictures, chosen at random, with the model's answers:"
    return [*blocks, ("note", {"text": note}), ("glance", {"items": shown})]


def _headline(run: RunFolder) -> list[Block]:
    split = top_split(run.results)
    found = headline(run.splits().get(split, {}))
    if not found:
        missing = f"results.json holds no scores of the split {split}."
        return [("note", {"text": missing})]
    cells = []
    for label, score, unit in found:
        interval = write_interval(score.interval, unit)
        below = [interval + " %" * (unit == "percent")] if interval else []
        if score.prior is not None:
            below.append(f"guessing: {write_score(score.prior, unit)}")
        cells.append((label, write_score(score.value, unit), below))
    note = f"These are the scores on the split {split}. The model did not train on it."
    if any(score.interval for _, score, _ in found):
        note += (
            " The range below a score is its 95 % confidence interval. With other questions of "
            "the same kind, the score would probably stay in this range."
        )
    if any(score.prior is not None for _, score, _ in found):
        note += (
            " Guessing is the score of always predicting the most common training answer to that "
            "kind of question."
        )
    return [("tiles", {"cells": cells}), ("note", {"text": note})]


def build_curves(data: ReportData) -> Section:
    """The diagrams of a run."""
    if not data.diagrams:
        return Section("Curves", "metrics.jsonl holds no points to draw.")
    note = (
        "Each line shows a score over the steps of the run. Loss and word error rate should fall. "
        "All other scores should rise. If the training loss falls while the validation loss "
        "rises, the model memorises its training data. A ring marks the score before the first "
        "step."
    )
    legend = dict(pair for diagram in data.diagrams for pair in diagram.legend)
    legend |= dict([PHASE] * any(diagram.marks for diagram in data.diagrams))
    drawings = curves.inline_drawings(data.diagrams)
    figures = ("figures", {"drawings": drawings, "legend": list(legend.items())})
    return Section("Curves", note, [figures])


def build_scoreboard(data: ReportData) -> Section:
    """Every score of every task on every held-out split."""
    splits = data.run.splits()
    rows = score_rows(splits)
    if not rows:
        return Section("Scoreboard", "results.json holds no scores.")
    scores = [score for row in rows for score in row.scores if score]
    note = "Each column is a held-out split. Indented rows are kinds of questions within a task."
    if any(score.interval for score in scores):
        note += " The small numbers and the thin line are the 95 % confidence interval."
    if any(score.prior is not None for score in scores):
        note += (
            " The prior (orange tick) is the accuracy of always predicting the most common "
            "training answer to that kind of question. It needs no media."
        )
    if any(row.key == "at_limit" for row in rows):
        note += " “Cut at limit” counts the answers that reached the length limit."
    note += (
        " Lower is better for loss and error rates (WER, CER). A dash means that the split has no "
        "such question."
    )
    blocks: list[Block] = [("score_table", {"columns": [*splits], "rows": rows})]
    if ways := ways_of_scoring(splits):
        heads = ["task", "score", "rules of comparison", "prompts", "versions"]
        summary = "how answers are compared with their references"
        blocks.append(("folded_table", {"summary": summary, "heads": heads, "rows": ways}))
    return Section("Scoreboard", note, blocks)


def build_reliance(data: ReportData) -> Section | None:
    """How the score falls without the medium; None where it was not measured."""
    found = [_reliance_panel(name, data.part("reliance", name)) for name in data.part("reliance")]
    panels = [panel for panel in found if panel]
    if not panels:
        return None
    note = (
        "The model answers the same held-out questions three times: with their own media, with "
        "those of another sample, and with none. If the score stays the same, the model does not "
        "look or listen."
    )
    return Section("Modality reliance", note, [("panels", {"items": panels})])


def _reliance_panel(modality: str, values: dict[str, Any]) -> dict[str, Any] | None:
    own, swapped = as_number(values, "own"), as_number(values, "swapped")
    metric = METRICS.get(str(values.get("measure")))
    if own is None or metric is None:
        return None
    result = ""
    if swapped is not None:
        lost = swapped - own if metric.lower_is_better else own - swapped
        percent = metric.unit == "percent"
        amount = f"{100 * lost:.1f} points" if percent else write_score(lost, metric.unit)
        result = f"Reliance: {amount} worse with the {modality} of another sample."
    title = metric.title + " (lower is better)" * metric.lower_is_better
    return {
        "name": modality,
        "measured": f"{values.get('task')}, {title}, by {modality} shown",
        "unit": metric.unit,
        "scores": [(words, as_number(values, key)) for key, words in _SHOWN.items()],
        "result": result,
    }


def build_follow_ups(data: ReportData) -> Section | None:
    """How well a question is answered after another; None where it was not measured."""
    cells = [(task, score, [below]) for task, score, below in follow_up_scores(data.run.results)]
    if not cells:
        return None
    note = (
        "In a chat, one question follows another. Here each question follows another question "
        "about the same sample and the reference answer to it. The scoreboard asks every question "
        "alone. The two scores should be about the same."
    )
    return Section("Follow-up questions", note, [("tiles", {"cells": cells})])


def build_text_guard(data: ReportData) -> Section | None:
    """Whether language was lost; None where it was not measured."""
    split, guard = top_split(data.run.results), data.part("text_guard")
    now, start = as_number(guard, "loss"), as_number(guard, "start")
    if now is None or start is None:
        return None
    change = now - start
    note = (
        f"The text loss measures how well the model predicts texts of the split {split}. Lower is "
        "better. Learning to see and hear should not cost language, so the loss now should not "
        "lie above the loss of the starting thinker. The curve above shows the same loss on the "
        "split validation."
    )
    if share := as_number(data.part("blend"), "share"):
        note += (
            " After training, the weights were interpolated with those of the starting thinker, "
            f"which got a share of {100 * share:.3g} %. This share gave the lowest validation "
            "loss. The curves above show the model before that."
        )
    which = "no worse" if change <= 0 else f"worse by {change:.3f}"
    cells = [
        (f"text loss now, {split}", write_score(now, "loss"), [which]),
        (f"text loss at the start, {split}", write_score(start, "loss"), ["starting thinker"]),
    ]
    return Section("Text guard", note, [("tiles", {"cells": cells})])


def build_mix(data: ReportData) -> Section | None:
    """Asked and realised shares by source; None where they were not counted."""
    mix = data.part("mix")
    columns = [key for key in _SHARES if any(key in as_object(mix, name) for name in mix)]
    if not columns:
        return None
    rows = [[name, *(as_number(mix, name, key) for key in columns)] for name in mix]
    note = (
        "The table shows the share of each source in the whole run. The share of samples should "
        "match the share asked for. Sources with long answers hold more of the supervised tokens. "
        "The source with most of the loss teaches the model most."
    )
    # A long head may break on a narrow screen.
    heads = ["source", *(key.replace("supervised", "super\u00advised") for key in columns)]
    table = ("table", {"name": "realised mix", "heads": heads, "rows": rows})
    return Section("Realised mix", note, [table])


def build_left_out(data: ReportData) -> Section | None:
    """What was left out as wrong, by reason."""
    return left_out_section(data.run.results)


def build_receipt(data: ReportData) -> Section | None:
    """What was asked of each source and what was got, and the run hash."""
    return receipt_section(data.run.results, data.run.path)


def build_taught(data: ReportData) -> Section | None:
    """Which data taught the model, and which did not."""
    return taught_section(data.run.results)


def build_truncation(data: ReportData) -> Section | None:
    """What limits took away, by modality; None where it was not noted."""
    rows, details = [], []
    for name in data.part("truncation"):
        value = data.part("truncation", name)
        unit = str(value.get("unit", ""))
        whole, lost = as_number(value, "whole"), as_number(value, "lost") or 0.0
        if value:
            share = write_score(lost / whole if whole else None, "percent")
            count = write_score(as_number(value, "samples") or 0, "count")
            amounts = [_amount(whole, unit), _amount(lost, unit)]
            rows.append([f"{name}, {unit}", *amounts, share, count])
        worst = [
            [str(w.get("id", "")), str(w.get("file") or "–"), _amount(as_number(w, "lost"), unit)]
            for w in value.get("worst") or []
        ]
        if worst:
            summary = f"{name}: the samples that lost most"
            heads = ["sample", "file", f"{unit} lost"]
            details.append({"summary": summary, "heads": heads, "rows": worst})
    if not rows:
        return None
    note = (
        "The table counts what the limits of the configuration cut away, and from how many "
        "samples. Nothing should be lost. Otherwise a question may ask about something that the "
        "model was not shown."
    )
    heads = ["medium", "total", "lost", "share", "samples"]
    table = ("table", {"name": "truncation", "heads": heads, "rows": rows})
    return Section("Truncation", note, [table, *(("folded_table", d) for d in details)])


def _amount(value: float | None, unit: str) -> str:
    if value is not None and unit == "seconds":
        return f"{value:,.1f}"
    return write_score(value, "count")


def build_gallery(data: ReportData) -> Section:
    """The chosen answers, each with what it was given to."""
    chosen = choose_gallery(data.examples)
    media = show_media([example.media for example in chosen])
    reasons = ["" if example.right else error_reason(example.prediction) for example in chosen]
    cards = list(zip(chosen, media, reasons, strict=True))
    blocks = [("gallery", {"cards": cards})] if cards else []
    return Section("Held-out answers", data.note, blocks)


def build_configuration(data: ReportData) -> Section:
    """The resolved configuration."""
    settings = flatten(data.run.config)
    if not settings:
        return Section("Configuration", "run.json is not there.")
    note = "These are all settings of the run, including those left at their defaults."
    return Section("Configuration", note, [("pairs", {"values": settings})])


def build_environment(data: ReportData) -> Section:
    """Where and with what the run was made, and the commands that make it again."""
    record, results = data.run.record, data.run.results
    if "environment" in record:
        note = (
            "The run was made here, with these versions. The commands repeat it, up to rounding, "
            "if seed, data and versions are the same."
        )
    else:
        note = "The run did not note where it was made. This is where the page was made."
    facts = {
        **(as_object(record, "environment") or environment()),
        "device": results.get("device"),
        "precision": results.get("precision"),
        "thinker compiled": {"True": "yes", "False": "no"}.get(str(results.get("compiled"))),
        "seconds, scores included": results.get("seconds"),
    }
    values = [(name, str(fact)) for name, fact in facts.items() if fact is not None]
    trained = found if isinstance(found := record.get("commands"), list) else []
    lines = [*(("trained the model", str(line)) for line in trained), ("made this page", command())]
    blocks = [("pairs", {"values": values}), ("commands", {"lines": lines})]
    return Section("Environment", note, blocks)


# In the order of the page. A section whose function finds nothing is left out.
SECTIONS: tuple[Callable[[ReportData], Section | None], ...] = (
    build_curves,
    build_scoreboard,
    build_reliance,
    build_follow_ups,
    build_text_guard,
    build_mix,
    build_receipt,
    build_taught,
    build_truncation,
    build_left_out,
    build_gallery,
    build_configuration,
    build_environment,
)
