"""What is printed of a moment of a run."""

from __future__ import annotations

from typing import Any

from omnitune.evaluation.metrics import METRICS, Metric
from omnitune.evaluation.reliance import in_words
from omnitune.tasks import Task, headlines


def score_lines(step: int, entry: dict[str, Any]) -> list[str]:
    """The printed form of one moment of a run: ``entry`` is a line of ``metrics.jsonl``."""
    scores = entry["validation"]
    intervals = scores.get("intervals", {}) if entry.get("epoch_ended") else {}

    def write(name: str, metric: Metric) -> str:
        ends = [metric.write(end).rstrip("%") for end in intervals.get(name, ())]
        return metric.write(scores[name]) + (f" ({' to '.join(ends)})" if ends else "")

    lines = [f"Step {step}: loss={scores['loss']:.3f}"]
    for name, task in headlines().items():
        if name in scores:
            value = write(name, METRICS[task.metric])
            if task.media is None or task.media:
                lines.append(f"→ {_label(task, scores)}: {value}")
            else:
                lines[0] += f" {name}={value}"
    cut = {name: task for name, task in scores.get("tasks", {}).items() if task.get("at_limit")}
    if cut:
        told = (f"{name} {task['at_limit']} of {task['questions']}" for name, task in cut.items())
        lines.append("→ Answers cut at their limit: " + ", ".join(told))
    if scores.get("reliance"):
        found = scores["reliance"].items()
        lines.append("→ Reliance: " + "; ".join(f"{name} {in_words(e)}" for name, e in found))
    if "text_guard" in scores:
        now, start = scores["text_guard"]["loss"], scores["text_guard"]["start"]
        lines.append(f"→ Text loss: {now:.3f}, of the starting thinker {start:.3f}")
    return lines


def _label(task: Task, scores: dict[str, Any]) -> str:
    """What a line calls a task's score, which may depend on the references."""
    metric = METRICS[task.metric]
    used = scores.get("tasks", {}).get(task.name, {}).get("normalisers", ())
    return task.console_label.replace(metric.label, metric.shown_as(used).label)
