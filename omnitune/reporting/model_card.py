"""The model card of an export: what the model is, how well it does, what it was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnitune.config.settings import read_json_object
from omnitune.evaluation.runs import as_object, flatten, splits_of, top_split
from omnitune.reporting.data_sections import receipt_rows
from omnitune.reporting.tables import headline, write_interval, write_score
from omnitune.sample import UserError

UNKNOWN = "unknown"
# Settings that name places on the machine, or say nothing of the recipe.
LEFT_OUT = re.compile(r"(.*_dir|output_.*|device|workers|tracker.*|save_.*|log_every|keep_.*)$")
PARTS = re.compile(r"(.*_ckpt|encoder_ckpts\..*)$")
LICENSE = re.compile(r"^license:\s*[\"']?([^\s\"']+)", re.MULTILINE)
USAGE = """\
```python
import omnitune  # makes transformers know the model
from transformers import AutoModelForMultimodalLM, AutoProcessor

model = AutoModelForMultimodalLM.from_pretrained({folder})
processor = AutoProcessor.from_pretrained({folder})
messages = [{{"role": "user", "content": [{{"type": "text", "text": "What is the sky?"}}]}}]
inputs = processor.apply_chat_template(
    messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
)
answer = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
```
"""


def write_card(
    path: Path, name: str, run_dir: Path, bases: Mapping[str, str], certificate: Mapping[str, Any]
) -> None:
    """Writes ``README.md``.

    Args:
        name: of the model.
        run_dir: of the run, with ``results.json`` and ``run.json`` where they are there.
        bases: by part, the pretrained folder or Hub id that it began with.
        certificate: of the export.
    """
    results, run = _object(run_dir / "results.json"), _object(run_dir / "run.json")
    config = as_object(run, "config")
    given = {key: value for key, value in flatten(config) if PARTS.fullmatch(key)}
    licences = {part: licence_of(Path(base)) for part, base in bases.items()}
    known = sorted(set(licences.values()))
    licence = known[0] if len(known) == 1 else UNKNOWN if not known else "other"
    lines = ["---", "library_name: transformers", "pipeline_tag: any-to-any"]
    lines += [f"license: {licence}", "tags:", "- omnitune", "---", "", f"# {name}", ""]
    lines += ["A language model that was taught to see and hear with omnitune.", ""]
    lines += [USAGE.format(folder=json.dumps(name)), *_scores(results)]
    lines += ["## Parts", "", "| part | from | licence |", "| --- | --- | --- |"]
    for part, base in {**given, **bases}.items():
        lines.append(f"| {part} | {name_of(base)} | {licences.get(part, UNKNOWN)} |")
    lines += ["", *_mix(config, results), *_recipe(config), *_certified(certificate)]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def licence_of(folder: Path) -> str:
    """The licence that a pretrained folder's own card names; ``unknown`` where none does."""
    try:
        found = LICENSE.search((folder / "README.md").read_text(encoding="utf-8")[:4096])
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
    return found[1] if found else UNKNOWN


def name_of(base: str) -> str:
    """A Hub id, or the last part of a path: where it lay says nothing to others."""
    is_id = not Path(base).is_absolute() and base.count("/") == 1 and not base.endswith(".pt")
    return base if is_id else Path(base).name


def _scores(results: dict[str, Any]) -> list[str]:
    main = top_split(results)
    rows = headline(splits_of(results).get(main, {}))
    if not rows:
        return ["## Scores", "", "None are known.", ""]
    lines = ["## Scores", "", f"On the split `{main}`, with 95 % intervals.", ""]
    lines += ["| score | value | interval |", "| --- | --- | --- |"]
    for label, score, unit in rows:
        interval = write_interval(score.interval, unit) or "–"
        lines.append(f"| {label} | {write_score(score.value, unit)} | {interval} |")
    return [*lines, ""]


def _mix(config: dict[str, Any], results: dict[str, Any]) -> list[str]:
    mix = as_object(config, "data_mix")
    rows = receipt_rows(as_object(results, "receipt", "total"))
    if not mix and not rows:
        return []
    lines = ["## Data", ""]
    if rows:
        lines += ["| source | asked | samples | tokens | supervised tokens |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for source, asked, *cells in rows:
            pairs = zip(cells[::2], cells[1::2], strict=True)
            got = (f"{count} ({write_score(share, 'percent')})" for count, share in pairs)
            lines.append(f"| {source} | {write_score(asked, 'percent')} | {' | '.join(got)} |")
    else:
        lines += ["| source | weight |", "| --- | --- |"]
        lines += [f"| {source} | {weight} |" for source, weight in mix.items()]
    return [*lines, "", *_run_hash(as_object(results, "run_hash"))]


def _run_hash(proof: dict[str, Any]) -> list[str]:
    if not proof:
        return []
    return [
        f"Run hash: `{proof.get('hash')}` after {proof.get('steps')} steps. It stands for every "
        "record that was read, in order; `omnitune replay` computes it again from the data.",
        "",
    ]


def _recipe(config: dict[str, Any]) -> list[str]:
    rows = [
        (key, value)
        for key, value in flatten(config)
        if value not in ("null", "")
        and not key.startswith("data_mix.")
        and not LEFT_OUT.fullmatch(key.partition(".")[0])
        and not PARTS.fullmatch(key)
    ]
    if not rows:
        return []
    lines = ["## Recipe", "", "| setting | value |", "| --- | --- |"]
    return [*lines, *(f"| `{key}` | {value} |" for key, value in rows), ""]


def _certified(certificate: Mapping[str, Any]) -> list[str]:
    probes = ", ".join(f"{count} of {kind}" for kind, count in certificate["probes"].items())
    same, count = certificate["answers_equal"], sum(certificate["probes"].values())
    return [
        "## Certificate",
        "",
        f"This export was opened again in a fresh process and compared with the checkpoint "
        f"({probes}). Prompt tokens are the same, and answers in {same} of {count}. "
        "`certificate.json` has the figures.",
    ]


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path) if path.is_file() else {}
    except UserError:
        return {}
