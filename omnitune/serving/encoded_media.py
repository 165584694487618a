"""Feature rows of media by their content: the same one again waits for no encoder."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnitune.media.base import open_file
from omnitune.media.registry import MEDIA
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError

KEPT_BYTES = 256 << 20

Key = tuple[str, bytes]  # the kind of medium, and a hash of its content


class TooLargeError(UserError):
    """A request is larger than this server takes."""


@dataclass(frozen=True)
class GivenMedium:
    """A medium as somebody hands it over.

    Attributes:
        modality: key of the registry.
        content: the bytes of a file, the path of one, or what a program holds of it.
        label: what to call it in errors.
    """

    modality: str
    content: Any
    label: str


class EncodedMedia:
    """Reads and encodes media; keeps the newest rows, up to so many bytes.

    Args:
        most: by a medium's unit ("pixels", "seconds"), how much one may hold; no limit without.
        kept_bytes: of the rows that are kept.

    Attributes:
        hits, misses: media that were there, and that were encoded.
    """

    def __init__(
        self,
        model: OmniModel,
        most: Mapping[str, float] | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.model, self.most, self.kept_bytes = model, dict(most or {}), kept_bytes
        self.hits = self.misses = 0
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._encoding = threading.Lock()  # one at a time: the cores are shared with the decoder

    def rows(self, given: GivenMedium) -> Tensor:
        """Feature rows of a medium ``[R, D]``, on the CPU.

        Raises:
            UserError: it cannot be read, or the model has no encoder for it.
            TooLargeError: it holds more than is taken.
        """
        if given.modality not in self.model.modalities:
            kinds = ", ".join(["text", *self.model.modalities])
            raise UserError(
                f"{given.label}: this model has no encoder for {given.modality}; it reads {kinds}"
            )
        key = _key(given)
        if key is None:
            self.misses += 1
            return self._encode(given)
        found_RD = self._find(key)
        if found_RD is None:
            with self._encoding:  # who waited for another's encoding of the same finds it
                found_RD = self._find(key)
                if found_RD is None:
                    self.misses += 1
                    found_RD = self._encode(given)
                    self._keep(key, found_RD)
                    return found_RD
        self.hits += 1
        return found_RD

    def _find(self, key: Key) -> Tensor | None:
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
            return self._rows.get(key)

    def _keep(self, key: Key, rows_RD: Tensor) -> None:
        with self._lock:
            self._rows[key] = rows_RD
            self._bytes += rows_RD.nbytes
            while self._bytes > self.kept_bytes and len(self._rows) > 1:
                self._bytes -= self._rows.popitem(last=False)[1].nbytes

    def _encode(self, given: GivenMedium) -> Tensor:
        content, encoder = given.content, self.model.modalities[given.modality]
        with tempfile.TemporaryDirectory(prefix="omnitune-") as folder:
            path = Path(folder) / "medium"
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, Path):
                path = content
            else:
                path = MEDIA[given.modality].store(content, Path(folder))
            try:
                self.check_amount(given.modality, path, given.label)
                inputs = encoder.read(path)
            except TooLargeError:
                raise
            except UserError as error:
                raise UserError(str(error).replace(str(path), given.label)) from None
        with torch.no_grad():
            [rows_RD] = self.model.encode(given.modality, [inputs.to(self.model.device)])
        return rows_RD.cpu()

    def check_amount(self, modality: str, path: Path, label: str) -> None:
        """Holds what a file's header tells against the limit, before anything is decoded.

        Raises:
            TooLargeError: it is more.
        """
        unit = MEDIA[modality].unit
        if unit not in self.most:
            return
        amount = self.model.modalities[modality].measure(path).whole
        if amount > self.most[unit]:
            raise TooLargeError(
                f"{label} holds {amount:,.0f} {unit}, the limit of this server is "
                f"{self.most[unit]:,.0f}; send a smaller one"
            )


def _key(given: GivenMedium) -> Key | None:
    """What a medium is recognised by; None for what has no bytes of its own."""
    content = given.content
    if isinstance(content, Path):
        try:
            if not content.is_file():  # an address of a part of a file, or a mistake
                return None
        except OSError as error:  # too long to be a name
            told = f"{given.label[:60]}...: no such file ({error.strerror})"
            raise UserError(told) from None
        with open_file(content, f"{given.modality} file") as file:
            return given.modality, hashlib.sha256(file.read()).digest()
    if isinstance(content, bytes):
        return given.modality, hashlib.sha256(content).digest()
    return None
