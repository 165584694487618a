"""The report of a run: its scoreboard as text, and one page with curves, scores and answers."""

from __future__ import annotations

import json
import platform
import random
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omnitune.config import read_json_object
from omnitune.data.records import read_available
from omnitune.evaluation import curves
from omnitune.evaluation.metrics import exact_match, word_errors
from omnitune.evaluation.page import Contents, Exhibit, ScoreRow, render_page, write_score
from omnitune.evaluation.scoreboard import WER_TASKS, Prediction, Question, questions_of
from omnitune.sample import Sample, UserError

HEADLINE = (
    ("loss", "loss", "loss"),
    ("text_acc", "text token accuracy", "percent"),
    ("image_qa_acc", "image QA exact match", "percent"),
    ("audio_wer", "transcription WER", "percent"),
)
# Of each task, in the order of the table: key in the results, name, unit.
MEASURES = (
    ("exact_match", "exact match", "percent"),
    ("wer", "WER", "percent"),
    ("token_acc", "token accuracy", "percent"),
    ("loss", "loss", "loss"),
    ("questions", "questions", "count"),
)
TABLE_WIDTH = 100
GALLERY_SIZE = 24
GRID_SIZE = 8


def scores_table(results: dict[str, Any]) -> list[str]:
    """The final scoreboard as lines for the terminal, at most ``TABLE_WIDTH`` columns wide.

    Args:
        results: the object of ``results.json``; any of its keys may be missing.

    Returns:
        the headline numbers of the test split, then a row for each task's score and a column
        for each split (in several blocks, if the splits do not fit side by side).
    """
    head = headline(results)
    wide = max((len(label) for label, _ in head), default=0)
    lines = [f"{_top_split(results)} split:"] if head else []
    lines += [f"  {label:<{wide}}  {value:>8}" for label, value in head]
    splits = splits_of(results)
    rows = [row for row in score_rows(splits) if not row.is_kind]
    if not rows:
        return lines or ["there are no scores"]
    tasks = max(4, *(len(row.task) for row in rows))
    tasks = min(tasks, 32)
    names = list(splits)
    widths = [min(max(len(name), 9), 32) for name in names]
    first = 0
    while first < len(names):
        room, last = TABLE_WIDTH - tasks - 16, first
        while last < len(names) and widths[last] + 2 <= room:
            room -= widths[last] + 2
            last += 1
        lines += ["", *_block(rows, names, widths, range(first, last), tasks)]
        first = last
    return lines


def write_report(ckpt_dir: Path, data_dir: Path) -> Path:
    """Writes ``curves.png``, ``answers.png`` (if there are pictures) and ``report.html``.

    Args:
        ckpt_dir: a run's output folder, with ``metrics.jsonl`` and ``results.json``; the
            configuration of ``run.json`` and the answers of ``predictions.jsonl`` are shown if
            these files are there.
        data_dir: the data that the answers belong to.

    Returns:
        path of the page.

    Raises:
        UserError: a file that the report cannot do without is missing or damaged.
    """
    entries = _read_metrics(ckpt_dir / "metrics.jsonl")
    results = _read_results(ckpt_dir / "results.json")
    run = ckpt_dir / "run.json"
    config = read_json_object(run).get("config", {}) if run.exists() else {}
    exhibits, note = _read_exhibits(ckpt_dir / "predictions.jsonl", data_dir)
    curves.draw_curves(entries, ckpt_dir / "curves.png")
    grid = choose_pictures(exhibits)
    if grid:
        curves.draw_answers(grid, ckpt_dir / "answers.png")
    else:
        # One of an earlier report would show another model's answers.
        (ckpt_dir / "answers.png").unlink(missing_ok=True)
    splits = splits_of(results)
    contents = Contents(
        title=ckpt_dir.resolve().name,
        tiles=headline(results),
        main_split=_top_split(results),
        drawings=curves.curve_drawings(entries),
        legend=curves.LEGEND,
        splits=list(splits),
        rows=score_rows(splits),
        exhibits=choose_gallery(exhibits),
        note=note,
        settings=_flatten(config),
        facts=_facts(),
    )
    page = ckpt_dir / "report.html"
    page.write_text(render_page(contents), encoding="utf-8")
    return page


def headline(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of the main numbers of the test split; without those that there are not."""
    top = splits_of(results).get(_top_split(results), {})
    found = [(label, _number(top.get(key)), unit) for key, label, unit in HEADLINE]
    return [(label, write_score(value, unit)) for label, value, unit in found if value is not None]


def splits_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores by split; those at the top of the results are those of the main one."""
    top = {k: v for k, v in results.items() if k == "tasks" or _number(v) is not None}
    splits = {_top_split(results): top} if top else {}
    for name, scores in _object(results.get("splits")).items():
        splits[name] = {**splits.get(name, {}), **_object(scores)}
    return splits


def score_rows(splits: dict[str, dict[str, Any]]) -> list[ScoreRow]:
    """The scoreboard's rows: each task's scores with their kinds, and those over all tasks."""
    columns = [_object(scores.get("tasks")) for scores in splits.values()]
    rows = []
    for task in dict.fromkeys(name for column in columns for name in column):
        scores = [_object(column.get(task)) for column in columns]
        for key, name, unit in MEASURES:
            rows += _row(task, name, unit, [_number(s.get(key)) for s in scores])
            if key in ("exact_match", "wer") and rows and rows[-1].name == name:
                rows += _kind_rows(task, unit, [_object(s.get("kinds")) for s in scores])
    for key, name, unit in (("token_acc", "token accuracy", "percent"), ("loss", "loss", "loss")):
        rows += _row("all tasks", name, unit, [_number(s.get(key)) for s in splits.values()])
    return rows


def is_right(prediction: Prediction) -> bool:
    """No word error in a transcription; exact match of any other answer."""
    if prediction.task in WER_TASKS:
        return word_errors(prediction.answer, prediction.reference)[0] == 0
    return exact_match(prediction.answer, prediction.reference)


def choose_gallery(exhibits: Sequence[Exhibit], count: int = GALLERY_SIZE) -> list[Exhibit]:
    """Half wrong and half right answers where there are as many, the wrong ones first."""
    wrong = _mixed([e for e in exhibits if not e.right], lambda e: e.prediction.task)
    right = _mixed([e for e in exhibits if e.right], lambda e: e.prediction.task)
    n_right = min(len(right), max(count // 2, count - len(wrong)))
    return wrong[: count - n_right] + right[:n_right]


def choose_pictures(exhibits: Sequence[Exhibit], count: int = GRID_SIZE) -> list[Exhibit]:
    """Questions of different pictures and kinds, chosen blindly of whether they are right."""
    by_picture: dict[Path, Exhibit] = {}
    for exhibit in _mixed(exhibits, lambda e: ""):
        modalities = [medium.modality for medium in exhibit.media]
        if modalities == ["image"] and exhibit.prediction.task != "caption":
            by_picture.setdefault(exhibit.media[0].path, exhibit)
    return _mixed(list(by_picture.values()), lambda e: e.prediction.kind)[:count]


def _mixed(exhibits: Sequence[Exhibit], group: Any) -> list[Exhibit]:
    """Shuffled by a fixed seed, then one of each group in turn."""
    shuffled = random.Random(0).sample(list(exhibits), len(exhibits))
    groups: dict[str, list[Exhibit]] = {}
    for exhibit in shuffled:
        groups.setdefault(group(exhibit), []).append(exhibit)
    rounds = zip_longest(*(groups[name] for name in sorted(groups)))
    return [exhibit for turn in rounds for exhibit in turn if exhibit is not None]


def _top_split(results: dict[str, Any]) -> str:
    """The split that the headline is about: where nothing else is said, test."""
    return str(results.get("scored_split", "test"))


def _block(
    rows: list[ScoreRow], names: list[str], widths: list[int], shown: range, tasks: int
) -> list[str]:
    heads = "".join(f"  {names[n][: widths[n]]:>{widths[n]}}" for n in shown)
    lines = [f"{'task':<{tasks}}  {'score':<14}{heads}"]
    lines.append("-" * len(lines[0]))
    task = None
    for row in rows:
        name = row.task[:tasks] if row.task != task else ""
        values = "".join(f"  {write_score(row.values[n], row.unit):>{widths[n]}}" for n in shown)
        lines.append(f"{name:<{tasks}}  {row.name:<14}{values}")
        task = row.task
    return lines


def _row(
    task: str, name: str, unit: str, values: list[float | None], is_kind: bool = False
) -> list[ScoreRow]:
    """One row, or none if no split has the score."""
    if all(value is None for value in values):
        return []
    return [ScoreRow(task, name, unit, tuple(values), is_kind)]


def _kind_rows(task: str, unit: str, columns: list[dict[str, Any]]) -> list[ScoreRow]:
    kinds = dict.fromkeys(kind for column in columns for kind in column)
    rows = [_row(task, k, unit, [_number(c.get(k)) for c in columns], True) for k in kinds]
    return [row for found in rows for row in found]


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; `python sft_omni.py --config FILE --output-dir "
            f"{path.parent}` trains a model and writes it on the way"
        )
    entries = list(_read_lines(path))
    if not entries:
        raise UserError(
            f"{path}: holds no scores yet; `python sft_omni.py` writes them every log_every steps"
        )
    return entries


def _read_results(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; `python sft_omni.py --config FILE --output-dir "
            f"{path.parent} --resume` writes it at the end of training"
        )
    return read_json_object(path)


def _read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSON-lines file; half a line, of a run that was stopped, is left out."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry


def _read_exhibits(path: Path, data_dir: Path) -> tuple[list[Exhibit], str]:
    """The answers with what they were given to, and what to say about them."""
    if not path.is_file():
        return [], "There is no predictions.jsonl; `omnitune evaluate --predictions` writes it."
    fields = Prediction.__dataclass_fields__
    predictions = [
        Prediction(**{name: str(entry.get(name, "")) for name in fields})
        for entry in _read_lines(path)
    ]
    try:
        asked, problem = _find_questions(predictions, data_dir), ""
    except UserError as error:
        asked, problem = {}, f" Questions and media are missing: {error}."
    exhibits = []
    for n, prediction in enumerate(predictions):
        right = is_right(prediction)
        if n not in asked:
            exhibits.append(Exhibit(prediction, right))
            continue
        sample, question = asked[n]
        exhibits.append(_exhibit(prediction, right, sample, question))
    n_right = sum(exhibit.right for exhibit in exhibits)
    note = (
        f"{n_right:,} of {len(exhibits):,} generated answers are right. Here is a blind choice of "
        "both, the wrong ones first. A transcription is right if no word is wrong."
    )
    return exhibits, note + problem


def _exhibit(prediction: Prediction, right: bool, sample: Sample, question: Question) -> Exhibit:
    # What a transcription's sound says is its reference.
    heard = "" if prediction.task in WER_TASKS else sample.stand_ins.get("audio", "")
    text = question.messages[-1].text.strip()
    return Exhibit(prediction, right, text, heard, sample.media, sample.split)


def _find_questions(
    predictions: list[Prediction], data_dir: Path
) -> dict[int, tuple[Sample, Question]]:
    """By place in the list: the question that an answer belongs to, if the data still holds it."""
    wanted = {prediction.id for prediction in predictions}
    candidates: dict[str, list[tuple[Sample, Question]]] = {}
    for samples in read_available(data_dir).values():
        for sample in samples:
            for question in questions_of(sample):
                for name in {question.id, sample.id} & wanted:
                    candidates.setdefault(name, []).append((sample, question))
    found = {}
    for n, prediction in enumerate(predictions):
        # An id may name a whole conversation: its questions differ by task, kind and reference.
        same = [
            pair
            for pair in candidates.get(prediction.id, [])
            if (pair[1].task, pair[1].reference) == (prediction.task, prediction.reference)
        ]
        if same:
            found[n] = max(same, key=lambda pair: pair[1].kind == prediction.kind)
    return found


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pairs.append((prefix + name, text))
    return pairs


def _facts() -> list[tuple[str, str]]:
    """Where and how this report was made."""
    import torch

    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return [
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in ("torch", "transformers", "omnitune")),
        ("threads", str(torch.get_num_threads())),
        ("command that made this page", command),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _number(value: Any) -> float | None:
    if isinstance(value, dict):  # a kind may carry more than its score
        value = value.get("exact_match", value.get("wer"))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value == value else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
