"""What is printed of a moment of a run."""

from __future__ import annotations

from typing import Any

from omnitune.evaluation.reliance import in_words


def score_lines(step: int, entry: dict[str, Any]) -> list[str]:
    """The printed form of one moment of a run: ``entry`` is a line of ``metrics.jsonl``."""
    scores = entry["validation"]
    intervals = scores.get("intervals", {}) if entry.get("epoch_ended") else {}

    def write(name: str) -> str:
        low, high = intervals.get(name, (None, None))
        spread = "" if low is None else f" ({100 * low:.1f} to {100 * high:.1f})"
        return f"{scores[name]:.1%}{spread}"

    text = f" text_acc={write('text_acc')}" if "text_acc" in scores else ""
    lines = [f"Step {step}: loss={scores['loss']:.3f}{text}"]
    if "image_qa_acc" in scores:
        lines.append(f"→ Image QA acc: {write('image_qa_acc')}")
    if "audio_wer" in scores:
        lines.append(f"→ Audio transcription WER: {write('audio_wer')}")
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
