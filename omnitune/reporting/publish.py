"""Exports a model: written beside its place, certified, then put there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnitune.config.settings import read_json_object
from omnitune.data.template import ChatRenderer
from omnitune.evaluation.certificate import (
    FILE,
    certify,
    conversation,
    held_out,
    in_fp32,
    make_probes,
    versions,
)
from omnitune.evaluation.runs import as_object, data_of
from omnitune.models import adapters
from omnitune.models.export import write_adapter, write_standard
from omnitune.models.exported import BASE, write_facts
from omnitune.models.loading import load_omni
from omnitune.models.omni import OmniModel
from omnitune.models.onnx_export import write_onnx
from omnitune.reporting.model_card import write_card
from omnitune.sample import Sample, UserError
from omnitune.storage import write_json

CARD = "README.md"
WRITING = ".exporting"  # behind the name of the folder while it is not certified


def export(
    ckpt_dir: Path, to: str, out: Path, data: Path | None = None, overwrite: bool = False
) -> list[str]:
    """Writes and certifies an export.

    Args:
        ckpt_dir: folder or file of the trained model.
        to: ``hf``, ``merged``, ``adapter`` or ``onnx``.
        out: folder to be made. overwrite: an earlier export may be there.
        data: folder of the held-out answers; that of the run if None.

    Returns:
        what was done, in lines.

    Raises:
        UserError: the model cannot be exported so, or the export is not the trained model.
    """
    check_free(out, overwrite)
    model, renderer, values = load_omni(ckpt_dir)
    if model.adapters is not None and to == "hf":
        raise UserError(
            f"{ckpt_dir}: the model has an adapter; --to merged adds it to the weights, --to "
            "adapter writes it beside them"
        )
    limit = values.get("max_tokens", model.config.thinker["max_position_embeddings"])
    samples, lacking = held_out(data or data_of(ckpt_dir), list(model.modalities))
    place = out.resolve()  # "." has no name
    writing = place.with_name(place.name + WRITING)
    shutil.rmtree(writing, ignore_errors=True)
    try:
        if to == "onnx":
            told = _export_onnx(writing, model, renderer, samples)
        else:
            with in_fp32(model):
                probes = make_probes(model, renderer, [conversation(), *samples], limit)
            half = next(model.thinker.parameters()).dtype != torch.float32
            rounded = to == "merged" and model.adapters is not None and half
            _write(writing, to, model, renderer, values | {"max_tokens": limit})
            told = certify(writing, probes, sorted(renderer.ends), rounded)
            run_dir = ckpt_dir if ckpt_dir.is_dir() else ckpt_dir.parent
            bases = {name: base.path for name, base in model.bases.items()}
            write_card(writing / CARD, place.name, run_dir, bases, told)
        if place.exists():
            shutil.rmtree(place)
        writing.rename(place)
    except OSError as error:
        raise UserError(
            f"{error.filename or out}: cannot be written ({error.strerror or error}); give a "
            "folder that may be written to, on a disk with room"
        ) from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return _onnx_lines(out, told) if to == "onnx" else summary(out, told, lacking)


def _write(
    out: Path, to: str, model: OmniModel, renderer: ChatRenderer, values: dict[str, Any]
) -> None:
    if to == "adapter":
        write_adapter(out, model)
        write_standard(out / BASE, model, renderer)
        return
    adapters.merge(model)
    write_standard(out, model, renderer)
    write_facts(out, values)


def _export_onnx(
    out: Path, model: OmniModel, renderer: ChatRenderer, samples: Sequence[Sample]
) -> dict[str, Any]:
    """Files of encoders with projectors, compared on the media of some samples."""
    adapters.merge(model)
    examples: dict[str, list[Tensor]] = {}
    for medium in dict.fromkeys(medium for sample in samples for medium in sample.media):
        read = model.modalities[medium.modality].read(medium.path)
        examples.setdefault(medium.modality, []).append(read)
    if lacking := [name for name in model.modalities if name not in examples]:
        raise UserError(
            f"there is no held-out {lacking[0]} to compare with torch; --data names a folder of "
            "records that show some"
        )
    found = write_onnx(out, model, renderer, examples)
    if all("refused" in told for told in found.values()):
        name, told = next(iter(found.items()))
        raise UserError(f"the {name} encoder cannot be exported ({told['refused']})")
    write_json(out / FILE, {"onnx": found, "versions": versions()})
    return found


def _onnx_lines(out: Path, found: dict[str, Any]) -> list[str]:
    lines = []
    for name, told in found.items():
        if "refused" in told:
            lines.append(f"{name}: was not exported, torch's exporter refuses ({told['refused']})")
            continue
        form = "any length" if told["dynamic"] else f"the form {told['input']} only"
        lines.append(
            f"{out / told['file']}: {form}; compared with torch on {told['compared']}, largest "
            f"difference {told['largest_difference']:.1g} of the largest value"
        )
    return lines


def summary(out: Path, certificate: dict[str, Any], lacking: str = "") -> list[str]:
    """What a certificate says, for the terminal."""
    probes = certificate["probes"]
    count, same = sum(probes.values()), certificate["answers_equal"]
    lines = [
        f"{out}: written, opened again in a fresh process and compared with the checkpoint: prompt "
        f"tokens are the same, logits within {certificate['logits']['largest_difference']:.1g} of "
        f"the largest, answers the same in {same} of {count}",
        "compared: " + ", ".join(f"{count} of {kind}" for kind, count in probes.items()),
    ]
    if lacking:
        lines.append(f"no held-out records were compared ({lacking}); --data names a folder")
    if certificate["template_alone_equal"] < certificate["prompt_tokens_equal"]:
        lines.append(
            "programs that render chat_template.jinja themselves read "
            f"{certificate['prompt_tokens_equal'] - certificate['template_alone_equal']} of these "
            "prompts in another way: the thinker's own template rewrites earlier turns"
        )
    return lines


def check_free(out: Path, overwrite: bool) -> None:
    """Refuses a place where something else is.

    Raises:
        UserError: there is a file, or a folder that is not an earlier export to be replaced.
    """
    if out.is_file():
        raise UserError(f"{out}: is a file; name the folder that is to be made")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / FILE).is_file():
        raise UserError(f"{out}: holds other files; name a folder that is to be made")
    if not overwrite:
        raise UserError(f"{out}: holds an earlier export; add --overwrite to replace it")
    certificate = read_json_object(out / FILE)
    models = as_object(certificate, "onnx").values()
    own = {
        FILE,
        CARD,
        *as_object(certificate, "files"),
        *(as_object(m).get("file") for m in models),
    }
    files = (path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if path.is_file())
    if other := next((name for name in files if name not in own), ""):
        raise UserError(
            f"{out}: holds {other} beside an earlier export, and --overwrite would delete it; move "
            "it, or name another folder"
        )
