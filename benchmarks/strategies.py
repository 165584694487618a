"""Compares training strategies: stage E with each, from the same parts on the same data.

Needs what stages A to C leave (``make demo``, or the first four of its commands). Each run has a
folder of its own; finished ones are not made again, so that this can be stopped and repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command, numbers
from omnitune.config.settings import load_config, read_json_object
from omnitune.config.sft import SftConfig
from omnitune.reporting.diagrams import main_scores
from omnitune.storage import write_json
from omnitune.tasks import headlines
from omnitune.training.sft import finetune

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Strategy:
    """A configuration file and what is changed in it."""

    name: str
    config: str = "omni_sft_tiny"
    options: tuple[str, ...] = ()


STRATEGIES = (
    Strategy("plain"),
    Strategy("two_stage", "omni_sft_two_stage"),
    Strategy("unfreeze", "omni_sft_unfreeze"),
    Strategy("curriculum", options=("--curriculum", "0.3")),
    Strategy("balance_loss", options=("--adaptive_mix", "loss")),
    Strategy("balance_score", options=("--adaptive_mix", "score")),
)
NAMES = [strategy.name for strategy in STRATEGIES]
# Score, and how it is written.
COLUMNS = {
    "loss": "{:.3f}",
    # The embedded corpus has none of the tasks of any media.
    **{key: "{:.1%}" for key, task in headlines().items() if task.media is not None},
    "seconds": "{:.0f}",
}
# The loss and the scores of generated answers.
PANELS = {
    key: title
    for title, key, unit, zero in main_scores()
    if key in COLUMNS and (zero or unit == "loss")
}

# By strategy, then by seed.
Found = dict[str, dict[int, Any]]


def run_all(
    names: Sequence[str], seeds: Sequence[int], folder: Path, options: Sequence[str]
) -> dict[str, dict[int, Path]]:
    """Makes the runs that are not there; returns their folders.

    Args:
        options: of every run, as on the command line of stage E.
    """
    folders: dict[str, dict[int, Path]] = defaultdict(dict)
    for seed in seeds:  # each strategy once before any twice
        for strategy in (s for s in STRATEGIES if s.name in names):
            path = folder / f"{strategy.name}-{seed}"
            own = [*strategy.options, "--seed", str(seed), "--output-dir", str(path)]
            file = ROOT / "configs" / f"{strategy.config}.json"
            print(f"strategy {strategy.name}, seed {seed}: {path}", flush=True)
            finetune(load_config(SftConfig, file, [*options, *own]), resume=True)
            folders[strategy.name][seed] = path
    return dict(folders)


def final_scores(folders: dict[str, dict[int, Path]]) -> Found:
    """The held-out scores that each run ended with."""
    return {
        name: {seed: _chosen(read_json_object(p / "results.json")) for seed, p in by_seed.items()}
        for name, by_seed in folders.items()
    }


def _chosen(results: dict[str, Any]) -> dict[str, float]:
    return {score: results[score] for score in COLUMNS if score in results}


def show(found: Found) -> None:
    """Prints the mean of each score over the seeds, and the largest less the smallest."""
    table = Table(title="held-out scores at the end: mean over the seeds ± spread")
    table.add_column("strategy", no_wrap=True)
    for score in COLUMNS:
        table.add_column(score, justify="right")
    for name, by_seed in found.items():
        cells = []
        for score, form in COLUMNS.items():
            values = [row[score] for row in by_seed.values() if score in row]
            spread = f" ± {form.format(max(values) - min(values))}" if len(values) > 1 else ""
            cells.append(form.format(fmean(values)) + spread if values else "-")
        table.add_row(name, *cells)
    Console(width=120).print(table)


def curve(paths: Sequence[Path], score: str, epoch_ended: bool) -> tuple[list[int], list[float]]:
    """Steps and the mean over some runs of a validation score, between epochs or at their ends."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for path in paths:
        for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["epoch_ended"] == epoch_ended and score in entry["validation"]:
                by_step[entry["step"]].append(entry["validation"][score])
    steps = sorted(step for step, values in by_step.items() if len(values) == len(paths))
    return steps, [fmean(by_step[step]) for step in steps]


def draw(folders: dict[str, dict[int, Path]], out: Path) -> None:
    """Draws a diagram a score: a line a strategy through the ends of epochs, thin between them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained", facecolor="white")
    for place, (score, title) in enumerate(PANELS.items()):
        axes = figure.add_subplot(1, len(PANELS), place + 1)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        for n, (name, by_seed) in enumerate(folders.items()):
            paths, colour = list(by_seed.values()), f"C{n}"
            axes.plot(*curve(paths, score, False), color=colour, linewidth=1.0, alpha=0.6)
            ends = curve(paths, score, True)
            axes.plot(*ends, color=colour, linewidth=1.8, marker="o", markersize=4, label=name)
        axes.set_xlabel("step")
        axes.grid(axis="y", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, draws, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="other options go to every run, such as --data-dir DIR or --log-every 100",
        allow_abbrev=False,
    )
    parser.add_argument("--epochs", type=int, help="of every run [as its configuration says]")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2 [0]")
    parser.add_argument("--strategies", default=",".join(NAMES), help="some of %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints/strategies"))
    parser.add_argument("--out", type=Path, default=Path("docs/img/strategies.png"))
    parser.add_argument("--json", type=Path, help="write the scores to this file too")
    options, rest = parser.parse_known_args(arguments)
    names = options.strategies.split(",")
    if unknown := set(names) - set(NAMES):
        there = ", ".join(NAMES)
        parser.error(f"no such strategy: {', '.join(sorted(unknown))}; there are {there}")
    epochs = ["--num-epochs", str(options.epochs)] if options.epochs else []
    seeds = numbers("--seeds", options.seeds)
    folders = run_all(names, seeds, options.folder, [*rest, *epochs])
    found = final_scores(folders)
    show(found)
    draw(folders, options.out)
    print(f"curves: {options.out}")
    if options.json:
        write_json(options.json, {"strategies": found})


if __name__ == "__main__":
    sys.exit(main())
