"""Frozen features: with frozen encoders each medium is encoded once and its rows are kept.

A store is one file of half-precision rows and one JSON index, keyed by the encoder's weights and
settings; a medium is found by the hash of its content. Neither can go stale: a changed encoder
is another folder, a changed file another entry.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from omnitune.modalities.base import Modality

ENCODE_BATCH = 64
VERSION = 1


class FeatureStore:
    """Feature rows of one modality's media under one encoder.

    Args:
        modality: how to read and encode.
        encoder: in evaluation mode; its weights are part of the key.
        root: folder of the stores, or None to keep the rows in memory only.
    """

    def __init__(self, modality: Modality, encoder: nn.Module, root: Path | None) -> None:
        self.modality, self.encoder = modality, encoder
        self._hashes: dict[Path, str] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._chunks: list[np.ndarray] = []
        self._rows: np.ndarray = np.zeros((0, modality.feature_dim), np.float16)
        self.folder = root / f"{modality.name}-{encoder_key(modality, encoder)}" if root else None
        if self.folder and (self.folder / "index.json").exists():
            self._open()  # damaged or half deleted: everything is encoded anew

    def __call__(self, path: Path) -> Tensor:
        """Feature rows ``[R, D]`` (float32) of a medium; encodes it if it is new."""
        place = self._places.get(self._hash(path))
        if place is None:
            self.prepare([path])
            place = self._places[self._hash(path)]
        start, stop = place
        return torch.from_numpy(self._rows[start:stop].astype(np.float32))

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Media that are not in the store, each content once."""
        new: dict[str, Path] = {}
        for path in paths:
            digest = self._hash(path)
            if digest not in self._places:
                new.setdefault(digest, path)
        return list(new.values())

    def prepare(self, paths: Iterable[Path], tick: Callable[[int], None] = lambda n: None) -> None:
        """Encodes what is missing, in batches of like length, and keeps it.

        Args:
            tick: called with the number of media just done.
        """
        todo = self.missing(paths)
        if not todo:
            return
        total = self._rows.shape[0]
        added: list[np.ndarray] = [self._rows]
        places = dict(self._places)  # entered only once their rows are kept
        for chunk, features in self._encode(todo):
            for path, rows in zip(chunk, features, strict=True):
                places[self._hash(path)] = (total, total + len(rows))
                total += len(rows)
                added.append(rows)
            tick(len(chunk))
        self._rows, self._places = np.concatenate(added), places
        if self.folder:
            try:
                self._save()
            except OSError as error:  # a full or read-only disk costs time on the next run only
                print(f"warning: {self.folder}: features cannot be kept ({error.strerror})")

    def _encode(self, paths: list[Path]) -> Iterator[tuple[list[Path], list[np.ndarray]]]:
        """Reads a window of media, sorts it by length and encodes it in batches."""
        device = next(self.encoder.parameters()).device
        window = 16 * ENCODE_BATCH
        for first in range(0, len(paths), window):
            inputs = {path: self.modality.read(path) for path in paths[first : first + window]}
            by_size = sorted(inputs, key=lambda path: self.modality.size(inputs[path]))
            for start in range(0, len(by_size), ENCODE_BATCH):
                chunk = by_size[start : start + ENCODE_BATCH]
                with torch.inference_mode():
                    batch = [inputs[path].to(device) for path in chunk]
                    rows = self.modality.encode(self.encoder, batch)
                yield chunk, [r.half().cpu().numpy() for r in rows]

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16)
            self._hashes[path] = digest.hexdigest()
        return self._hashes[path]

    def _open(self) -> None:
        assert self.folder is not None
        try:
            index = json.loads((self.folder / "index.json").read_text())
            rows = np.load(self.folder / index["file"], mmap_mode="r")
            places = {digest: (start, stop) for digest, (start, stop) in index["places"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return
        if rows.shape == (index["rows"], self.modality.feature_dim):
            self._rows, self._places = rows, places

    def _save(self) -> None:
        """Writes rows under a new name, then the index that points to them, then drops the old."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"rows-{len(self._rows)}.npy"
        temporary = self.folder / f"{name}.tmp"
        with temporary.open("wb") as file:
            np.save(file, self._rows)
        os.replace(temporary, self.folder / name)
        index = self.folder / "index.json.tmp"
        index.write_text(
            json.dumps({"file": name, "rows": len(self._rows), "places": self._places})
        )
        os.replace(index, self.folder / "index.json")
        for old in self.folder.glob("rows-*.npy"):
            if old.name != name:
                old.unlink()
        self._rows = np.load(self.folder / name, mmap_mode="r")


def encoder_key(modality: Modality, encoder: nn.Module) -> str:
    """Hash of an encoder's settings and weights."""
    digest = hashlib.sha256(f"{VERSION}/{modality.name}".encode())
    digest.update(json.dumps(modality.encoder_config, sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
