"""The sounds below a folder, found by whatever name a list has for them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from omnitune.data.sources.file_splits import split_of_path
from omnitune.data.sources.kinds import modality_of
from omnitune.data.splits import TRAIN
from omnitune.sample import UserError

# Folders in which sounds lie that a list elsewhere names.
USUAL = ("wavs", "wav", "clips", "audio", "audios", "recordings", "sounds", "flac", "mp3")


class Sounds:
    """The sounds below a folder.

    Attributes:
        folder: that their paths are relative to.
        paths: all of them, sorted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(_walk(folder))

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """By its name, with and without its suffix, composed, each sound that is called so."""
        found: dict[str, list[str]] = {}
        for path in self.paths:
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem}:
                found.setdefault(_composed(name), []).append(path)
        return found

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.paths)

    def find(self, name: str) -> str:
        """The path of the sound that a list calls so; "" if there is none.

        Raises:
            UserError: several are called so.
        """
        name = name.removeprefix("./")
        if name in self._all:
            return name
        name = _composed(name)
        last = name.rpartition("/")[2]
        found = [p for p in self._by_name.get(last, ()) if _ends(_composed(p), name)]
        if len(found) > 1:
            raise UserError(
                f"{self.folder}: {len(found)} sounds are called {name} ({found[0]}, {found[1]}); "
                "a list has to say which is meant, such as by their folder"
            )
        return found[0] if found else ""

    def has(self, name: str) -> bool:
        """Whether a sound is called so."""
        try:
            return bool(self.find(name))
        except UserError:
            return True

    def missing(self, name: str) -> str:
        """What a sound that is not there is called in an error: as the others are."""
        if modality_of(name) or not self.paths:
            return name
        [(suffix, _)] = Counter(PurePosixPath(p).suffix for p in self.paths).most_common(1)
        return name + suffix

    @cached_property
    def splits(self) -> dict[str, str]:
        """By path, the split that the name of a folder stands for; empty if all are training."""
        found = {path: split_of_path(Path(path).parent / "x", Path()) for path in self.paths}
        return {} if set(found.values()) <= {"", TRAIN} else found


def _composed(name: str) -> str:
    """A name with each letter and its accent as one sign: macOS writes two, most lists one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _ends(path: str, name: str) -> bool:
    """Whether a path ends in a name of one or more folders, which may lack the suffix."""
    bare = path.rpartition(".")[0]
    return any(whole == name or whole.endswith(f"/{name}") for whole in (path, bare))


def _walk(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(place).relative_to(folder)
        for name in files:
            if modality_of(name) == "audio" and not name.startswith("."):
                yield (relative / name).as_posix()


@lru_cache(maxsize=16)
def sounds_below(folder: Path) -> Sounds:
    """The sounds below a folder, looked up once a process."""
    return Sounds(folder)


def around(file: Path, root: Path | None = None) -> Iterator[Sounds]:
    """Where the sounds of a list may lie: below its folder, in usual ones beside it, below a root.

    Args:
        root: folder that the user named, above the file.
    """
    own, stem = file.parent, file.name.partition(".")[0]
    # train.csv stands for what lies in train, where there is such a folder.
    places = [own / path for path in (stem, *(f"{name}/{stem}" for name in USUAL), "")]
    places += [above / name for above in (own, *own.absolute().parents[:2]) for name in USUAL]
    if root is not None:
        places.append(root)
    return (sounds_below(place) for place in dict.fromkeys(places) if place.is_dir())


def known(names: Iterable[str], sounds: Sounds) -> float:
    """The share of some names that are those of sounds."""
    each = [sounds.has(name) for name in names]
    return sum(each) / len(each) if each else 0.0
