"""Training losses by source and by record: which data a run learns from, and which it does not.

A step computes the loss of each of its samples anyway, so keeping it costs next to nothing. The
loss of a record is that of the questions drawn from it, under the weights of that moment. So
records are compared by how far they lie above their source at the time.

Shape suffixes: R records that are followed, C columns, S samples of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from omnitune.training.run_hash import Read

ROWS = 1 << 16  # records that are followed at most, in all
COLUMNS = ("seen", "first", "last", "excess")
SEEN, FIRST, LAST, EXCESS = range(len(COLUMNS))
SMOOTHING = 0.02  # weight of a sample in its source's running mean
PARTS = 10  # of a run, whose losses are kept by source


class RecordLosses:
    """Follows the training loss of records.

    Args:
        sizes: training records by source. Of very many, evenly spaced ones are followed.
        state: of the run. ``records`` in it has a row for each record that is followed: how often
            it was ``seen``, its ``first`` and ``last`` loss a token, and the ``excess`` of the
            last over its source's mean then. ``source_mean`` and ``source_losses`` are by source.
        total_steps: of the run.
    """

    def __init__(self, sizes: Mapping[str, int], state: dict[str, Any], total_steps: int) -> None:
        self.sizes, self.state, self.total_steps = dict(sizes), state, total_steps
        self.stride = max(1, -(-sum(sizes.values()) // ROWS))
        counts = [-(-size // self.stride) for size in sizes.values()]
        ends = np.cumsum([0, *counts]).tolist()
        self._rows = dict(zip(sizes, map(slice, ends, ends[1:]), strict=True))
        self._count = ends[-1]

    def add(
        self,
        step: int,
        reads: Sequence[Read],
        losses: Sequence[float],
        weights: Sequence[float],
    ) -> None:
        """Takes in the samples of step ``step`` (counted from 1).

        Args:
            losses: of each sample, summed over its supervised tokens by their weights.
            weights: sum of these.
        """
        means = self.state.setdefault("source_mean", {})
        part = str(min(PARTS - 1, (step - 1) * PARTS // max(1, self.total_steps)))
        rows, values = [], []
        for read, loss, weight in zip(reads, losses, weights, strict=True):
            if not weight:
                continue
            source, mean = read.origin.source, loss / weight
            usual = means.get(source, mean)
            means[source] = usual + SMOOTHING * (mean - usual)
            sums = self.state.setdefault("source_losses", {}).setdefault(source, {})
            total, count = sums.get(part, (0.0, 0.0))
            sums[part] = [total + loss, count + weight]
            if read.origin.place % self.stride == 0:
                rows.append(self._rows[source].start + read.origin.place // self.stride)
                values.append((mean, mean - usual))
        if rows:
            self._write(np.array(rows), np.array(values, dtype=np.float32))

    def _write(self, row_S: np.ndarray, value_S2: np.ndarray) -> None:
        table_RC = self._table()
        new_S = table_RC[row_S, SEEN] == 0
        table_RC[row_S[new_S], FIRST] = value_S2[new_S, 0]
        np.add.at(table_RC[:, SEEN], row_S, 1)
        table_RC[row_S, LAST : EXCESS + 1] = value_S2

    def _table(self) -> np.ndarray:
        """The table of the state, which a checkpoint may have replaced."""
        table = self.state.get("records")
        if table is None:
            table = self.state["records"] = torch.zeros(self._count, len(COLUMNS))
        found: np.ndarray = table.numpy()
        return found

    def of(self, source: str) -> np.ndarray:
        """The rows of a source: ``[R, C]``; that of training record n times ``stride`` is n."""
        return self._table()[self._rows[source]]

    def course(self, source: str) -> list[tuple[int, float]]:
        """Mean loss of a source by the part of the run, where it was seen, in order."""
        sums = self.state.get("source_losses", {}).get(source, {})
        return [(int(n), sums[n][0] / sums[n][1]) for n in sorted(sums, key=int)]

    def hardest(self, source: str, count: int) -> list[int]:
        """Places of the training records that lay furthest above their source when last seen."""
        table_RC = self.of(source)
        (seen_R,) = np.nonzero(table_RC[:, SEEN])
        order = np.argsort(-table_RC[seen_R, EXCESS], kind="stable")
        return [int(n) * self.stride for n in seen_R[order[:count]]]

    def not_falling(self, source: str) -> np.ndarray:
        """Places of those seen at least twice whose loss was last no lower than at first."""
        table_RC = self.of(source)
        stayed_R = (table_RC[:, SEEN] > 1) & (table_RC[:, LAST] >= table_RC[:, FIRST])
        return np.nonzero(stayed_R)[0] * self.stride
