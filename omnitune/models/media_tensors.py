"""Media of one kind as one tensor, as models of transformers take them, and back again.

Shape suffixes: M media, K dimensions of one medium.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from omnitune.encoders.base import Encoder

# Of the tensor that tells each medium's own form, behind the name of the media's tensor.
SIZES = "_sizes"


def stack(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads inputs of an encoder with zeros to one tensor.

    Returns:
        ``[M, ...]``, and each input's own form ``[M, K]``; a leading 0 stands for a dimension that
        an input lacks.
    """
    dims = max(x.dim() for x in inputs)
    wide = [x[(None,) * (dims - x.dim())] for x in inputs]
    longest = torch.tensor([x.shape for x in wide]).amax(dim=0).tolist()
    out = inputs[0].new_zeros(len(inputs), *longest)
    for row, x in zip(out, wide, strict=True):
        row[tuple(slice(n) for n in x.shape)] = x
    sizes = [[0] * (dims - x.dim()) + list(x.shape) for x in inputs]
    return out, torch.tensor(sizes)


def unstack(
    stacked: Tensor, sizes_MK: Tensor | Sequence[Tensor | Sequence[int]] | None
) -> list[Tensor]:
    """The inputs that ``stack`` was given; without sizes each fills its row."""
    if sizes_MK is None:
        return list(stacked)
    inputs = []
    # At once: to wait for a GPU costs more than to read from it.
    told = sizes_MK.tolist() if isinstance(sizes_MK, Tensor) else sizes_MK
    for row, one in zip(stacked, told, strict=True):
        sizes = [int(n) for n in one]
        cut = row[tuple(slice(max(n, 1)) for n in sizes)]
        missing = sum(n == 0 for n in sizes)
        inputs.append(cut.reshape(cut.shape[missing:]))
    return inputs


def apart(
    encoder: Encoder, rows_RE: Tensor, inputs: Sequence[Tensor]
) -> Tensor | tuple[Tensor, ...]:
    """Rows of media end to end as engines take them: of each medium, where its kind is so."""
    if not encoder.medium.apart:
        return rows_RE
    return rows_RE.split([encoder.slots_for(encoder.num_slots(x)) for x in inputs])


def require_media(
    input_ids: Tensor, media: Container[str], encoders: Mapping[str, Encoder], config: Any
) -> None:
    """Refuses placeholders without their media, which would be read as words.

    Args:
        media: names of those that are given. encoders: by name of their medium.

    Raises:
        ValueError: names the argument that is missing.
    """
    for name, encoder in encoders.items():
        if name not in media and (input_ids == config.placeholder_id(name)).any():
            tensor = encoder.medium.tensor_name
            raise ValueError(f"input_ids has placeholders of {name}, and {tensor} is missing")
