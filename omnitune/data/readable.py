"""Which records a model can read: those whose media it has encoders for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from omnitune.data.samples import Samples
from omnitune.media.base import counted


def leave_out_unreadable(
    samples: Mapping[str, Samples], readable: Collection[str]
) -> tuple[dict[str, Samples], str]:
    """Leaves out the records that show media of other kinds than a model reads; says which.

    Args:
        samples: whole sources by name.
        readable: the kinds that the model has encoders for.

    Returns:
        the sources that are left, and a line on what is not; "" if nothing is left out.
    """
    kept, kinds, told = dict(samples), set[str](), []
    for source, found in samples.items():
        [(file, numbers)] = found.pieces
        others = [name for name in file.index.modalities if name not in readable]
        if not others:
            continue
        kinds.update(others)
        out = np.unique(np.concatenate([file.index.records_showing(name) for name in others]))
        if len(out) == len(found):
            del kept[source]
            told.append(f"all {counted(len(found), 'record')} of {source}")
        else:
            kept[source] = Samples([(file.without(out), numbers)])
            told.append(f"{len(out):,} of {counted(len(found), 'record')} of {source}")
    why = f"left out, as the model has no encoder for {', '.join(sorted(kinds))}"
    return kept, f"{why}: {', '.join(told)}" if told else ""
