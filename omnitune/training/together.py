"""What ranks do together before a run: index its sources, and look at their media.

Each rank reads a share, and rank 0 keeps what all have found. What is kept nowhere, or where not
all ranks find it, each rank finds out itself when it is its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import numpy as np

from omnitune.console import progress_bar
from omnitune.containers.remote import address_at
from omnitune.data.audit.extents import measure_media
from omnitune.data.audit.truncation import keep_array, kept_extents
from omnitune.data.faults import Faults
from omnitune.data.index import Indexing
from omnitune.data.parts import Part, Piece
from omnitune.data.reading import DataPlace, indexing_of, locate_source
from omnitune.data.samples import TOGETHER, Samples
from omnitune.distributed.protocol import Distributed
from omnitune.encoders.base import Encoder
from omnitune.sample import UserError

Share = tuple[str, Piece]  # of a source


def index_together(
    data: DataPlace, given: Mapping[str, str], languages: Mapping[str, str], ranks: Distributed
) -> None:
    """Indexes the sources whose index is kept and not there yet; every record is checked.

    Args:
        given, languages: as of :func:`read_sources`.

    Raises:
        UserError: records are wrong, as of :func:`read_sources`.
    """
    if ranks.world_size == 1:
        return
    found: dict[str, Indexing] = {}

    def indexing(source: str) -> Indexing:
        if source not in found:
            of, language = data.own.get(source, source), languages.get(source, "")
            located = locate_source(data, of, given[source], language)
            found[source] = indexing_of(located, data.leave_out_wrong)
        return found[source]

    def missing() -> list[Share]:
        shares: list[Share] = []
        for source in given:
            # What is wrong with the files is told in rank 0's turn.
            with suppress(UserError, OSError):
                one = indexing(source)
                is_remote = bool(address_at(one.files[0].path))  # fetched by each in its turn
                if one.is_kept and not is_remote and one.kept() is None:
                    shares += [(source, piece) for piece in one.pieces()]
        return shares

    shares = ranks.on_first(missing)
    own = len(shares[ranks.rank :: ranks.world_size])
    with bar(f"indexing, share 1 of {ranks.world_size}", own, ranks) as advance:

        def read(share: Share) -> Part:
            try:
                part = indexing(share[0]).read(share[1])
            except OSError as error:
                raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
            advance(1)
            return part

        parts = ranks.share_out(read, shares)

    def keep() -> None:
        faults = Faults()
        for source in dict.fromkeys(source for source, _ in shares):
            own = (part for part, share in zip(parts, shares, strict=True) if share[0] == source)
            with faults:
                try:
                    found[source].keep(found[source].of_parts(own))
                except OSError as error:
                    path = error.filename or found[source].files[0].path
                    raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        faults.tell()

    ranks.on_first(keep)


def measure_together(
    samples: Mapping[str, Samples],
    modalities: Mapping[str, Encoder],
    go_on: bool,
    ranks: Distributed,
) -> None:
    """Looks at the headers of media, where they are so many that what is found is kept.

    Args:
        samples: by source, all of each. go_on: pass over media that cannot be used.

    Raises:
        UserError: a medium cannot be used.
    """
    for held in samples.values() if ranks.world_size > 1 else ():
        source = held.pieces[0][0]
        file, count = kept_extents(source, modalities), len(source.index.media_M3)
        missing = file is not None and source.folder.is_dir() and not file.exists()
        if not ranks.share(missing and not source.is_remote):
            continue
        measure = partial(measure_media, source, modalities, go_on)
        runs = [range(n, min(n + TOGETHER, count)) for n in range(0, count, TOGETHER)]
        own = len(runs[ranks.rank :: ranks.world_size])
        with bar("looking at media", own, ranks) as advance:
            parts = ranks.share_out(partial(_then, measure, advance), runs)
        if parts and file is not None:
            keep_array(file, partial(np.concatenate, parts))


def _then(measure: Callable[..., np.ndarray], advance: Callable[..., Any], run: range) -> Any:
    found = measure(places=run)
    advance(1)
    return found


def bar(title: str, count: int, ranks: Distributed) -> AbstractContextManager[Callable[..., Any]]:
    """A progress bar on rank 0 for its share, if it has one."""
    return progress_bar(title, count) if count and not ranks.rank else nullcontext(lambda n: None)
