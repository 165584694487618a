"""Sets of speech whose sounds and words lie in different files; the first kind that fits is it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from omnitune.containers.base import Unreadable
from omnitune.containers.lines import LinesContainer
from omnitune.containers.registry import CONTAINERS, container_of, is_list
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.registry import dialect_of
from omnitune.data.sources.rows import FolderDialect, RowsDialect
from omnitune.data.sources.sound_rows import SoundRowsDialect
from omnitune.data.sources.spoken_sets.kaldi import SCP, layout_of_kaldi
from omnitune.data.sources.spoken_sets.name_lists import LOOKED_AT, may_list
from omnitune.data.sources.spoken_sets.nemo_shards import layout_of_shards
from omnitune.data.sources.spoken_sets.recordings import (
    layout_of_fairseq,
    layout_of_lhotse,
    layout_of_segments,
    layout_of_stm,
)
from omnitune.data.sources.spoken_sets.sidecars import layout_of_sidecars
from omnitune.data.sources.spoken_sets.sound_lists import layout_of_list, layout_of_lists
from omnitune.data.sources.spoken_sets.sounds import sounds_below
from omnitune.sample import UserError

MOST = 2_000  # texts of a folder that are looked at
FEW = 20  # those of one without sounds, which may lie beside it


def layout_of_spoken(folder: Path, files: Sequence[Path]) -> Layout | None:
    """The layout of a folder whose sounds and words lie in different files; None if it is none.

    Args:
        files: all below it, sorted.

    Raises:
        UserError: it is one, and has to be put right.
    """
    sounds_below.cache_clear()  # it is looked anew whenever a source is
    for of_folder in (layout_of_kaldi, layout_of_stm, layout_of_lhotse, layout_of_shards):
        if found := of_folder(folder, files):
            return found
    if found := layout_of_fairseq(files):
        return found
    stems = {PurePosixPath(path).stem for path in sounds_below(folder).paths}
    objects = [path for path in files if path.suffix == ".json" and path.stem not in stems]
    segments = [found for path in objects[:MOST] if (found := layout_of_segments(path))]
    if len(segments) == 1:
        return segments[0]
    if found := layout_of_sidecars(folder, files):
        return found
    texts = [p for p in files if may_list(p) and p.name.partition(".")[0] not in stems]
    texts = texts[: MOST if stems else FEW]
    return layout_of_lists(folder, [path for path in texts if not _is_known(path)])


def layout_of_spoken_file(path: Path) -> Layout | None:
    """The layout of a file that says what is heard in others; None if it is none."""
    sounds_below.cache_clear()
    if path.name == SCP:
        return layout_of_kaldi(path.parent, [path])
    if path.suffix.lower() == ".stm":
        return layout_of_stm(_above(path), [path])
    if found := layout_of_segments(path) or layout_of_fairseq([path]):
        return found
    if found := layout_of_lhotse(path.parent, [path]):
        return found
    return None if not may_list(path) or _is_known(path) else layout_of_list(path)


def _above(path: Path) -> Path:
    """The folder in which the recordings of an STM file lie: its own, or one beside that."""
    return path.parent if sounds_below(path.parent).paths else path.absolute().parent.parent


# Dialects of tables that say nothing of where a sound lies.
_FLAT = (FolderDialect.name, RowsDialect.name, SoundRowsDialect.name)


def _is_known(path: Path) -> bool:
    """Whether a text is in a format of records that is known, and its media are where it says."""
    lines = path.suffix.lower() == ".txt"
    if not (lines or is_list(path)):
        return False
    container = CONTAINERS[LinesContainer.name] if lines else None
    try:
        scan = (container or container_of(path)).scan_stretch(path, lenient=True)
        values = [value for _, _, value, _ in islice(scan, LOOKED_AT)]
    except (UserError, OSError):
        return False
    records = [v for v in values if isinstance(v, dict) and not isinstance(v, Unreadable)]
    dialect = dialect_of(records, path) if records else None
    if dialect is None or dialect.name not in _FLAT:
        return dialect is not None
    named = [
        value for value in records[0].values() if isinstance(value, str) and modality_of(value)
    ]
    return any((path.parent / name).is_file() for name in named)
