"""Pretrained parts as a model refers to them: from where, and which weights exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnitune.hub import digest, find_part, is_repository
from omnitune.sample import UserError

SAVED_WHOLE = 500_000_000  # bytes of a base's weights below which they go into the model's file
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Base:
    """The pretrained weights that a part of a model began with.

    Attributes:
        path: as the configuration gives it: a folder, or a Hub id with its revision.
        revision: the commit of a Hub id, else empty.
        digest: of the weights, in their own number format. format: that, a key of ``FORMATS``.
        words: of a thinker's vocabulary before placeholders were added; 0: none were.
        place: the folder's whole path, for commands that are given elsewhere; empty for a Hub id.
    """

    path: str
    revision: str
    digest: str
    format: str
    words: int = 0
    place: str = ""

    @classmethod
    def of(cls, given: Path, found: Path, module: nn.Module, words: int = 0) -> Base:
        """Of a part as it was just loaded.

        Args:
            given: in the configuration. found: its folder; that of a Hub id names the commit.
        """
        revision = found.name if is_repository(given) else ""
        path = given.as_posix() if revision else str(given)
        place = "" if revision else str(found.resolve())
        return cls(
            path,
            revision,
            digest(module.state_dict()),
            format_of(module.parameters()),
            words,
            place,
        )

    def if_untrained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The part's weights in their own format if they are still those; else None."""
        dtype = FORMATS[self.format]
        state = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
        return state if digest(state) == self.digest else None

    def find(self) -> Path:
        """The folder.

        Raises:
            UserError: it is gone; says what to do.
        """
        if self.revision:
            return find_part(Path(f"{self.path.partition('@')[0]}@{self.revision}"))
        # The Hub is not asked: what has the form of an id was a folder.
        for path in (Path(self.path), Path(self.place or self.path)):
            if path.is_dir():
                return path
        raise UserError(
            f"{self.place or self.path}: the folder of a pretrained part is gone, and the model "
            "holds no copy of its weights; put it back, or train with save_whole true"
        )

    def check(self, module: nn.Module) -> None:
        """Refuses other weights than the model was made with."""
        if digest(module.state_dict()) != self.digest:
            raise UserError(
                f"{self.path}: holds other weights than the model was trained with (another "
                "SHA-256); give it the folder that it was"
            )

    def state(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return asdict(self)


def format_of(weights: Iterable[Tensor]) -> str:
    """Number format of weights, by the first one that is in any: a key of ``FORMATS``."""
    names = {dtype: name for name, dtype in FORMATS.items()}
    return next((names[weight.dtype] for weight in weights if weight.dtype in names), "fp32")


def cast_(module: nn.Module, dtype: torch.dtype) -> None:
    """Brings weights into a format; buffers, such as rotary angles, keep their precision.

    So do weights beside statistics: no kernel takes the two in different formats, unless the
    weights are in fp32.
    """
    kept = beside_statistics(module)
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if name in kept else dtype)


def beside_statistics(module: nn.Module) -> set[str]:
    """Names of the weights of every BatchNorm."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = {name: part for name, part in module.named_modules() if isinstance(part, kind)}
    return {f"{place}.{name}" for place, n in norms.items() for name, _ in n.named_parameters()}


def num_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of weights; those that share their memory count once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in state.values()}.values())


@contextmanager
def made_at_once() -> Iterator[None]:
    """With values and in fp32, where the library, as it loads, has its own device and format.

    It loads on ``meta``, where nothing has values; engines have a device on which things stay.
    """
    usual, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if device.type == "meta" else device:
            yield
    finally:
        torch.set_default_dtype(usual)
