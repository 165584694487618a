"""Watches the numbers of a run: steps that give none, and losses that leap.

A step whose loss or gradient is not finite changes no weight. It is written down with the records
it read, and after so many in a row the run stops. A loss far above those before it is written down
too, and told; training goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from statistics import median
from typing import Any

from omnitune.media.base import counted
from omnitune.sample import UserError
from omnitune.training.checkpoint import step_files, step_of
from omnitune.training.progress import BAD_STEPS_FILE
from omnitune.training.run import Run
from omnitune.training.run_hash import Read, file_of

REMEMBERED = 64  # newest losses, whose median a step's is compared with
ENOUGH = 20  # losses from which on there is a usual one
# A leap lies so many times above all of them but one, which may be a leap itself: losses of small
# batches differ by much, and small losses by many times.
LEAP = 4.0

Each = Sequence[tuple[Sequence[float], Sequence[float]]]


def watch_step(
    run: Run, loss: float, norm: float, reads: Sequence[Sequence[Read]], each: Each
) -> None:
    """Takes in the step that was counted last.

    Args:
        loss: mean over its supervised tokens. norm: of its gradient. If either is not finite, the
            update was left out.
        reads: the samples of each micro-batch; empty for a stage that does not follow them.
        each: of each micro-batch the losses of its samples, and their weights.

    Raises:
        UserError: ``max_bad_steps`` in a row were left out.
    """
    state = run.state
    if math.isfinite(loss) and math.isfinite(norm):
        state["bad_in_a_row"] = 0
        usual = _leapt(state, loss)
        if usual:
            _note(run, {"why": "loss spike", "loss": loss, "median": usual}, reads, each)
            run.log.warn(
                f"step {run.step}: the loss, {loss:.3g}, is far above the {usual:.3g} that is "
                f"usual now; {_written(run)}"
            )
        return
    state["bad_in_a_row"] = state.get("bad_in_a_row", 0) + 1
    _note(run, {"why": "not finite", "loss": _number(loss)}, reads, each)
    what = "gradient" if math.isfinite(loss) else "loss"
    run.log.warn(
        f"step {run.step}: the {what} is not finite; the update is left out; {_written(run)}"
    )
    if state["bad_in_a_row"] >= run.config.max_bad_steps:
        _give_up(run)


def _leapt(state: dict[str, Any], loss: float) -> float:
    """The median that a loss lies far above, else 0; remembers the loss."""
    losses = state.setdefault("newest_losses", [])
    usual = median(losses) if len(losses) >= ENOUGH else math.inf
    leapt = usual < math.inf and loss > LEAP * sorted(losses)[-2]
    losses.append(loss)
    del losses[:-REMEMBERED]
    return usual if leapt else 0.0


def _note(run: Run, found: dict[str, Any], reads: Sequence[Sequence[Read]], each: Each) -> None:
    """Writes a step and its records down, and keeps its number for the next line of the log."""
    run.state.setdefault("notable_steps", []).append([run.step, found["why"]])
    line = {"step": run.step, **found, "records": list(_records(run, reads, each))}
    path = run.config.out / BAD_STEPS_FILE
    if run.ranks.rank:
        return  # rank 0 writes
    with suppress(OSError), path.open("a", encoding="utf-8") as file:  # the log has the step too
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _records(run: Run, reads: Sequence[Sequence[Read]], each: Each) -> Iterator[dict[str, Any]]:
    """Source, file and number of each record of a step, with its own loss a token."""
    for n, batch in enumerate(reads):
        losses, weights = each[n] if n < len(each) else ((), ())
        for place, read in enumerate(batch):
            origin = read.origin
            found: dict[str, Any] = {"source": origin.source, "record": origin.number}
            if run.strategy and (samples := run.strategy.hash.samples.get(origin.source)):
                found["file"] = file_of(samples, origin.place)
            if place < len(losses) and weights[place]:
                found["loss"] = _number(losses[place] / weights[place])
            yield found


def _number(value: float) -> float | None:
    """A number as JSON has it: null for what is not finite."""
    return value if math.isfinite(value) else None


def _written(run: Run) -> str:
    return f"its records are in {run.config.out / BAD_STEPS_FILE}"


def _give_up(run: Run) -> None:
    """Raises the UserError of a run that only makes steps without numbers."""
    count = run.state["bad_in_a_row"]
    good = run.step - count
    files = [path for path in step_files(run.config.out) if step_of(path) <= good]
    last = f"the last good checkpoint is {files[-1]}" if files else "there is no good checkpoint"
    raise UserError(
        f"{run.config.out}: {counted(count, 'step')} in a row (max_bad_steps) had a loss or "
        f"gradient that is not finite, up to step {run.step}; {_written(run)}; {last}; look at "
        "these records, or begin anew with a lower learning_rate or precision fp32"
    )


def notes_of(state: dict[str, Any]) -> dict[str, Any]:
    """For a line of ``metrics.jsonl``: the notable steps since the line before, if any."""
    found = state.pop("notable_steps", [])
    return {"notable_steps": found} if found else {}
