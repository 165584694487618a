"""The contract of an encoder: all that is special to a family of encoders is behind it.

Shape suffixes: ``_ND`` rows of features, N slots by D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from omnitune.encoders.projectors import PROJECTORS, FeatureRows, Projector, resolve
from omnitune.media.base import Medium
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError


@dataclass(frozen=True)
class MediaStats:
    """What the header of a file tells.

    Attributes:
        whole: how much it holds, in the modality's unit.
        lost: how much of that the encoder is never shown.
        least, most: bounds of its number of feature rows.
    """

    whole: float
    lost: float
    least: int
    most: int


class Pretrained(NamedTuple):
    """An encoder as a checkpoint holds it: settings to build it from, and its module's weights."""

    config: dict[str, Any]
    state: dict[str, Tensor]


class Encoder(ABC):
    """Turns media of one kind into rows of features, which a projector brings to the thinker.

    Attributes:
        type: key in ``ENCODERS`` and in the encoder's settings (``"vit"``).
        medium_name: key in ``MEDIA`` of what it encodes.
        config: JSON-able settings from which the encoder can be built again.
        run_settings: those of ``config`` that a run may set.
        families: ``model_type`` of the pretrained folders that it takes (see ``from_folder``).
        vocab_size: words of a thinker that its ``readout`` names; 0: it has none.
        fixed_rows: feature rows that every medium has; None where their number varies.
    """

    type: ClassVar[str]
    medium_name: ClassVar[str]
    run_settings: ClassVar[tuple[str, ...]] = ()
    families: ClassVar[tuple[str, ...]] = ()
    fixed_rows: int | None = None
    _projector: dict[str, Any] | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.vocab_size: int = config.get("words", 0)

    @property
    def medium(self) -> Medium:
        """What it encodes."""
        return MEDIA[self.medium_name]

    @classmethod
    def from_folder(cls, folder: Path, values: dict[str, Any]) -> Pretrained:
        """Settings and weights of a pretrained folder of one of ``families``.

        Args:
            values: of its config.json.

        Raises:
            UserError: the folder is not whole, or this encoder reads none.
        """
        raise UserError(f"{folder}: the encoder {cls.type!r} reads no such folder")

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Reads a file into the encoder's input; raises UserError."""

    @abstractmethod
    def measure(self, path: Path) -> MediaStats:
        """Checks a file by its header and says how much of it will be encoded; raises UserError."""

    @abstractmethod
    def num_slots(self, inputs: Tensor) -> int:
        """Number of feature rows that ``encode`` will give for this input (see ``slots_for``)."""

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Width of one feature row."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A freshly initialised module of ``config``."""

    @abstractmethod
    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes a batch; returns one ``features_ND`` per input."""

    def encode_checked(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """``encode``, held against ``num_slots``: a row too many would stand in another's place.

        Raises:
            UserError: an input has another number of rows than slots, or features of another shape.
        """
        features = self.encode(module, inputs)
        for rows_ND in features:
            if rows_ND.dim() != 2 or rows_ND.shape[1] != self.feature_dim:
                raise UserError(
                    f"the {self.medium_name} encoder {self.type!r} gives features of the shape "
                    f"{list(rows_ND.shape)} for an input; expected [slots, {self.feature_dim}], "
                    "the second being its feature_dim"
                )
        rows, slots = [len(rows_ND) for rows_ND in features], list(map(self.num_slots, inputs))
        if rows != slots:
            raise UserError(
                f"the {self.medium_name} encoder {self.type!r} gives {rows} feature rows for "
                f"inputs of {slots} slots; encode and num_slots have to agree"
            )
        return features

    def rows_of_size(self, size: Sequence[int]) -> int:
        """``num_slots`` of a medium of which only the size is known: a picture's height and width,
        or a sound's samples. The number is exact for these; it may be a bound elsewhere.

        Raises:
            ValueError: this encoder cannot tell.
        """
        raise ValueError(f"the encoder {self.type!r} cannot tell slots from a size")

    @property
    def largest_size(self) -> Sequence[int] | None:
        """Size, as ``rows_of_size`` takes it, of the largest medium; None where all may be larger.

        Engines make room for it before they have seen any.
        """
        return None

    @property
    def most_rows(self) -> int | None:
        """``num_slots`` that no medium up to ``largest_size`` exceeds; None where that is None."""
        return None if self.largest_size is None else self.rows_of_size(self.largest_size)

    def size(self, inputs: Tensor) -> int:
        """What to sort by so that media of like length share a batch."""
        return self.num_slots(inputs)

    @property
    def default_projector(self) -> dict[str, Any]:
        """Settings of the projector that suits its rows best, where a run names none."""
        return {"type": "mlp"}

    @property
    def projector(self) -> dict[str, Any]:
        """Settings of its projector, all of them."""
        return self._projector or resolve(self.medium_name, self.default_projector)

    @projector.setter
    def projector(self, settings: dict[str, Any]) -> None:
        self._projector = resolve(self.medium_name, settings)

    @property
    def keeps_rows(self) -> bool:
        """Whether the projector makes one slot of each feature row."""
        return PROJECTORS[self.projector["type"]].keeps_rows

    def slots_for(self, rows: int) -> int:
        """Number of slots, behind the projector, of a medium with so many feature rows."""
        return PROJECTORS[self.projector["type"]].slots_for(rows, self.projector)

    def build_projector(self, width: int) -> Projector:
        """A fresh projector of the settings, to embeddings of this width.

        Raises:
            UserError: a projector of this type cannot stand between these rows and this width.
        """
        rows = FeatureRows(self.medium_name, self.feature_dim, self.fixed_rows)
        return PROJECTORS[self.projector["type"]](rows, width, self.projector)
