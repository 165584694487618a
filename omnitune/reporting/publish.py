"""Exports a model: written beside its place, certified, then put there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omnitune.evaluation.certificate import certify, conversation, held_out, make_probes
from omnitune.evaluation.runs import data_dir_of
from omnitune.models.export import write_standard
from omnitune.models.exported import write_facts
from omnitune.models.loading import load_omni
from omnitune.reporting.model_card import write_card
from omnitune.sample import UserError

WRITING = ".exporting"  # behind the name of the folder while it is not certified


def export(
    ckpt_dir: Path, to: str, out: Path, data: Path | None = None, overwrite: bool = False
) -> list[str]:
    """Writes and certifies an export.

    Args:
        ckpt_dir: folder or file of the trained model.
        to: ``hf``, ``merged`` or ``adapter``.
        out: folder to be made. overwrite: an earlier export may be there.
        data: folder of the held-out answers; that of the run if None.

    Returns:
        what was done, in lines.

    Raises:
        UserError: the model cannot be exported so, or the export is not the trained model.
    """
    check_free(out, overwrite)
    model, renderer, values = load_omni(ckpt_dir)
    data_dir = data or data_dir_of(ckpt_dir)
    limit = values.get("max_tokens", model.config.thinker["max_position_embeddings"])
    samples = [conversation(), *held_out(data_dir, list(model.modalities))]
    probes = make_probes(model, renderer, samples, limit)
    bases = {name: base.path for name, base in model.bases.items()}
    writing = out.with_name(out.name + WRITING)
    shutil.rmtree(writing, ignore_errors=True)
    try:
        write_standard(writing, model, renderer)
        write_facts(writing, values | {"max_tokens": limit})
        certificate = certify(writing, model, probes, sorted(renderer.ends))
        run_dir = ckpt_dir if ckpt_dir.is_dir() else ckpt_dir.parent
        write_card(writing / "README.md", out.name, run_dir, bases, certificate)
        if out.exists():
            shutil.rmtree(out)
        writing.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return summary(out, certificate)


def summary(out: Path, certificate: dict[str, Any]) -> list[str]:
    """What a certificate says, for the terminal."""
    probes = certificate["probes"]
    lines = [
        f"{out}: written, and opened again in a fresh process; prompt tokens, logits and answers "
        "are those of the checkpoint",
        "compared: " + ", ".join(f"{count} of {kind}" for kind, count in probes.items()),
    ]
    if sum(probes.values()) <= 1:
        lines.append("there were no held-out records to compare with; --data names a folder")
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
    if not (out / "certificate.json").is_file():
        raise UserError(f"{out}: holds other files; name a folder that is to be made")
    if not overwrite:
        raise UserError(f"{out}: holds an earlier export; add --overwrite to replace it")
