"""The contract of a modality: everything that is special to images, or to sound, is behind it.

Shape suffixes: ``_ND`` rows of features, N slots by D features.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from omnitune.sample import UserError


def open_file(path: Path, kind: str) -> BinaryIO:
    """Opens a user's file if it is a regular file or a link to one.

    To open a pipe waits for who writes to it, and a device may never end: neither is opened.

    Args:
        kind: what is expected, to be told ("image file").

    Raises:
        UserError: it is missing, a folder, a pipe, socket or device, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            article = "an" if kind[0] in "aeiou" else "a"
            raise UserError(f"{path}: is a folder, expected {article} {kind}")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: is a pipe, socket or device, expected a regular {kind}")
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such {kind}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # NUL, or what the system's encoding of names cannot say
        raise UserError(f"{str(path)!a}: no {kind} can have this name ({error})") from None


def reason(error: Exception) -> str:
    """What another library says is wrong, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class MediaStats:
    """What the header of a file tells.

    Attributes:
        whole: how much it holds, in the modality's unit.
        lost: how much of that the encoder is never shown.
        least, most: bounds of its number of slots.
    """

    whole: float
    lost: float
    least: int
    most: int


@dataclass(frozen=True)
class Fingerprint:
    """What a decoded medium is recognised by.

    Attributes:
        content: 64-bit hash of what is seen or heard, whatever the file's format.
        amount: how much that is, in the modality's unit.
        look: ``hash_words`` words of bits, most of which a changed copy has too.
        remarks: what its owner should know of it though it can be used (what is not shown).
    """

    content: int
    amount: float
    perceptual_hash: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()


class Modality(ABC):
    """Reads one kind of medium, encodes it and projects it into the thinker's embedding space.

    Attributes:
        name: key in the registry and in records (``"image"``).
        projector: attribute name of its projector in the model (``"proj_v"``).
        unit: what its media are measured in (``"pixels"``).
        hash_words: words of 64 bits in a perceptual hash. hash_distance: bits in which two copies
            may differ.
        encoder_part: name of its encoder among the parts of the model (``"vision_encoder"``).
        is_spatial: whether each slot holds many words at once (a place in a picture) and not a
            stretch of one after the other (sound).
        reading: number of the way files are read, to be raised whenever ``read`` or ``measure``
            gives something else for a file: what is kept of before is then made anew.
        encoder_config: JSON-able settings from which the encoder can be built again.
        vocab_size: words of a thinker that the encoder names by its ``readout``; 0: none.
    """

    name: str
    projector: str
    unit: str
    hash_words = hash_distance = 0
    encoder_part: str
    is_spatial = False
    reading = 1

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        self.encoder_config = encoder_config
        self.vocab_size: int = encoder_config.get("words", 0)

    @property
    def tag(self) -> str:
        """How a user turn says where the medium stands."""
        return f"<{self.name}>"

    @property
    def placeholder(self) -> str:
        """Special token that fills the slots of the medium."""
        return f"<|{self.name}|>"

    @classmethod
    @abstractmethod
    def check(cls, path: Path) -> None:
        """Cheap check that a file is a readable medium.

        Raises:
            UserError: names the file and what is wrong with it.
        """

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Reads a file into the encoder's input; raises UserError."""

    @abstractmethod
    def measure(self, path: Path) -> MediaStats:
        """Checks a file by its header and says how much of it will be encoded; raises UserError."""

    @classmethod
    @abstractmethod
    def fingerprint(cls, path: Path) -> Fingerprint:
        """Decodes the whole of a file; raises UserError."""

    @classmethod
    def similarity(cls, path: Path, other: Path) -> float:
        """How alike two media of like look are, 1 at most; 0 if they are not copies."""
        return 0.0

    @abstractmethod
    def num_slots(self, inputs: Tensor) -> int:
        """Number of feature rows that ``encode`` will give for this input."""

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Width of one feature row."""

    @abstractmethod
    def build_encoder(self) -> nn.Module:
        """A freshly initialised encoder of ``encoder_config``."""

    @abstractmethod
    def encode(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes a batch; returns one ``features_ND`` per input."""

    def size(self, inputs: Tensor) -> int:
        """What to sort by so that media of like length share a batch."""
        return self.num_slots(inputs)

    def build_projector(self, width: int) -> nn.Module:
        """Maps feature rows to embeddings of the thinker: a two-layer perceptron (LLaVA-1.5)."""
        return Projector(self.feature_dim, width)


class Projector(nn.Module):
    """LayerNorm, Linear, GELU, Linear: [N, feature_dim] -> [N, width]."""

    def __init__(self, feature_dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_dim)
        self.up = nn.Linear(feature_dim, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, features_ND: Tensor) -> Tensor:
        """Projects rows of features to rows of embeddings."""
        hidden = nn.functional.gelu(self.up(self.norm(features_ND)))
        return self.down(hidden)

    @torch.no_grad()
    def match_scale(self, embeddings_VD: Tensor) -> None:
        """Scales the outputs to the spread of the thinker's embeddings.

        A fresh projector is many times louder or quieter than words are; the first hundreds of
        steps would go into correcting that.
        """
        probe = torch.randn(256, self.norm.normalized_shape[0], device=embeddings_VD.device)
        ratio = embeddings_VD.float().std() / self(probe.to(self.up.weight.dtype)).float().std()
        self.down.weight.mul_(ratio)
        self.down.bias.zero_()

    @torch.no_grad()
    def zero_init_(self) -> None:
        """Makes every output zero, to begin with."""
        self.down.weight.zero_()
        self.down.bias.zero_()
