"""The model's card on the page: scores with intervals, mix, from what, when."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnitune.config.settings import read_json_object
from omnitune.evaluation.runs import as_number, as_object, flatten, splits_of, top_split
from omnitune.models.omni import OmniModel
from omnitune.reporting.data_sections import receipt_rows
from omnitune.reporting.model_card import LEFT_OUT, PARTS, name_of
from omnitune.reporting.tables import headline, write_interval, write_score
from omnitune.sample import UserError

MIX_COLUMNS = ("source", "asked", "samples", "tokens", "trained tokens")
PATH = re.compile(r"([^\s=:,\"']*/)+")  # where things lie on a machine says nothing to others


@dataclass(frozen=True)
class ScoreLine:
    """A score as the page shows it.

    Attributes:
        share: of the whole, from 0 to 1; None where there is no whole (a loss).
        low, high: the ends of its interval, as shares.
    """

    label: str
    value: str
    interval: str
    share: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Card:
    """What is known of a model.

    Attributes:
        facts, parts, recipe: pairs of a name and a value. mix: a row of each source.
        split: that was scored.
    """

    title: str
    facts: list[tuple[str, str]]
    split: str = ""
    scores: list[ScoreLine] = field(default_factory=list)
    mix: list[list[str]] = field(default_factory=list)
    mix_columns: tuple[str, ...] = ()
    parts: list[tuple[str, str]] = field(default_factory=list)
    recipe: list[tuple[str, str]] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def card_of(title: str, path: Path, model: OmniModel) -> Card:
    """The card of a model in a run's folder, a file in it, or an export; as much as is known."""
    folder = path if path.is_dir() else path.parent
    results, run = _object(folder / "results.json"), _object(folder / "run.json")
    config = as_object(run, "config")
    split = top_split(results)
    rows = receipt_rows(as_object(results, "receipt", "total"))
    mix = [_mix_row(row) for row in rows]
    if not mix:
        mix = [[name, str(weight)] for name, weight in as_object(config, "data_mix").items()]
    given = {key: value for key, value in flatten(config) if PARTS.fullmatch(key)}
    given |= {name: base.path for name, base in model.bases.items()}
    return Card(
        title,
        _facts(path, model, results, run),
        split,
        [_line(*row) for row in headline(splits_of(results).get(split, {}))],
        mix,
        MIX_COLUMNS if rows else ("source", "weight"),
        [(part, name_of(value)) for part, value in given.items() if value != "null"],
        _recipe(config),
    )


def _facts(
    path: Path, model: OmniModel, results: dict[str, Any], run: dict[str, Any]
) -> list[tuple[str, str]]:
    reads = ", ".join(["text", *(m.medium.noun for m in model.modalities.values())])
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    weights = path if path.is_file() else path / "omni.pt"
    facts = [("Reads", reads), ("Weights", f"{millions:,.2f} million")]
    facts.append(("Context", f"{model.thinker.config.max_position_embeddings:,} tokens"))
    if (made := weights if weights.exists() else path).exists():
        moment = datetime.fromtimestamp(made.stat().st_mtime, UTC)
        facts.append(("Made", f"{moment:%Y-%m-%d %H:%M} UTC"))
    proof = as_object(results, "run_hash")
    if steps := as_number(proof, "steps"):
        facts.append(("Steps", f"{steps:,.0f}"))
    if seconds := as_number(results, "seconds"):
        facts.append(("Trained for", _duration(seconds)))
    if digest := proof.get("hash"):
        facts.append(("Run hash", str(digest)))
    known = as_object(run, "environment")
    made_with = [f"{name} {known[name]}" for name in ("omnitune", "torch", "transformers")
                 if name in known]  # fmt: skip
    return [*facts, *([("Made with", ", ".join(made_with))] if made_with else [])]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _line(label: str, score: Any, unit: str) -> ScoreLine:
    interval = write_interval(score.interval, unit)
    words = (label, write_score(score.value, unit), interval)
    if unit != "percent":
        return ScoreLine(*words)
    low, high = (min(1.0, end) for end in score.interval or (score.value, score.value))
    return ScoreLine(*words, min(1.0, score.value), *((low, high) if interval else (None, None)))


def _mix_row(row: list[Any]) -> list[str]:
    source, asked, *cells = row
    pairs = zip(cells[::2], cells[1::2], strict=True)
    got = [f"{count} ({write_score(share, 'percent')})" for count, share in pairs]
    return [str(source), write_score(asked, "percent"), *got]


def _recipe(config: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (key, PATH.sub("", value))
        for key, value in flatten(config)
        if value not in ("null", "", "{}", "[]")
        and not key.startswith("data_mix.")
        and not LEFT_OUT.fullmatch(key.partition(".")[0])
        and not PARTS.fullmatch(key)
    ]


def _object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; an empty one if that is missing or damaged."""
    try:
        return read_json_object(path) if path.is_file() else {}
    except (UserError, RecursionError):
        return {}
