"""Encoders with projectors as ONNX files, each checked against torch by onnxruntime.

Shape suffixes: R slots, E embedding width.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from omnitune.data.template import ChatRenderer, placeholder
from omnitune.models import fusion
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError

TOLERANCE = 1e-3  # largest difference as a share of the largest value
OUTPUT = "embeddings"


class MediumToEmbeddings(nn.Module):
    """One medium, as its encoder reads it, to what the thinker reads: ``[R, E]``."""

    def __init__(self, model: OmniModel, name: str, token: int) -> None:
        super().__init__()
        self.encoder, self.projector = model.encoders[name], model.projector(name)
        self.readout, self.modality = model.readout(name), model.modalities[name]
        table = model.thinker.get_input_embeddings()
        with torch.no_grad():
            words_VE = fusion.word_embeddings(table).detach().float()
            self.register_buffer("words_VE", words_VE if self.readout is not None else None)
            self.register_buffer("silence_1E", table(torch.tensor([token])).detach().float())

    def forward(self, medium: Tensor) -> Tensor:
        """Encodes and projects."""
        [features_ND] = self.modality.encode(self.encoder, [medium])
        count = features_ND.shape[0]
        return fusion.project(
            features_ND,
            [count],
            self.projector,
            self.readout,
            partial(getattr, self, "words_VE"),
            self.silence_1E.expand(count, -1),  # type: ignore[operator]
        )


def write_onnx(
    out: Path, model: OmniModel, renderer: ChatRenderer, examples: Mapping[str, Sequence[Tensor]]
) -> dict[str, Any]:
    """Writes a file a medium; of lengths that vary, where the exporter allows it.

    Args:
        out: folder.
        examples: by medium, some inputs of its encoder: the first is traced, all are compared.

    Returns:
        by medium: ``file``, ``input`` (form), ``dynamic`` (whether the length varies), ``largest
        difference``, or ``refused`` with the reason.

    Raises:
        UserError: onnx is not installed, or a file gives something else than torch.
    """
    _require()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name, inputs in examples.items():
        module = MediumToEmbeddings(model, name, renderer.id_of(placeholder(name))).float().eval()
        inputs = [x.float() for x in inputs]
        path = out / f"{name}.onnx"
        dynamic, refused = _export(module, inputs[0], path)
        if refused:
            found[name] = {"refused": refused}
            continue
        same_form = [x for x in inputs if dynamic or x.shape == inputs[0].shape]
        worst = max(_difference(module, path, x) for x in same_form)
        if not worst <= TOLERANCE:
            path.unlink()
            raise UserError(
                f"{path}: gives something else than torch, by {worst:.2g} of the largest value "
                f"(tolerance {TOLERANCE:g}); it was taken back"
            )
        form = [None if dynamic and n == dynamic[0] else s for n, s in enumerate(inputs[0].shape)]
        found[name] = {
            "file": path.name,
            "input": form,
            "dynamic": bool(dynamic),
            "compared": len(same_form),
            "largest_difference": worst,
        }
    return found


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install omnitune[onnx]") from None


def _export(module: nn.Module, example: Tensor, path: Path) -> tuple[list[int], str]:
    """Exports with a length that varies, else of the example's; the dimension, and a refusal."""
    # Of sound the frames, in front of the bins; a picture's form is fixed by its encoder.
    lengths = [0] if example.dim() == 2 else []
    reason = ""
    for dimensions in [lengths, []] if lengths else [[]]:
        try:
            with _quiet(), _plain_attention(module):
                _export_once(module, example.clone(), dimensions, path)
            return dimensions, ""
        except Exception as error:  # the exporter raises what it likes
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = reason or first[:200]
    path.unlink(missing_ok=True)
    return [], reason


def _export_once(module: nn.Module, example: Tensor, dimensions: list[int], path: Path) -> None:
    shapes = (dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC),) if dimensions else None
    # Strictly: what counts rows by `len` would otherwise fix their number.
    program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=True)
    options: dict[str, Any] = {"input_names": ["medium"], "output_names": [OUTPUT]}
    torch.onnx.export(
        program, (), str(path), dynamo=True, external_data=False, verbose=False, **options
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the exporter says of itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _plain_attention(module: nn.Module) -> Iterator[None]:
    """The library's eager attention: the exporter stumbles over torch's fused one."""
    configs = {id(m.config): m.config for m in module.modules() if isinstance(m, PreTrainedModel)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


@torch.no_grad()
def _difference(module: nn.Module, path: Path, medium: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [name] = [value.name for value in session.get_inputs()]
    [found] = session.run([OUTPUT], {name: medium.numpy()})
    expected_RE = module(medium)
    other_RE = torch.from_numpy(found)
    if expected_RE.shape != other_RE.shape:
        return float("inf")
    scale = max(float(expected_RE.abs().max()), 1e-6)
    return float((expected_RE - other_RE).abs().max()) / scale
