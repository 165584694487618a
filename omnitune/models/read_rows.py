"""The last layer computes only the rows whose logits are asked for.

Shape suffixes: B rows of a batch, T positions, R positions that are read, E width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class ReadRows:
    """Lets a feed-forward part compute the rows that are read, and give zeros for the others.

    After the last layer's attention nothing passes between positions: the rest of it concerns
    only the positions whose logits are asked for.

    Attributes:
        read_R: positions that are read, each once; None for all.
    """

    def __init__(self, feed_forward: Any) -> None:
        self.read_R: Tensor | None = None
        self._length = 0
        self._hooks = (
            feed_forward.register_forward_pre_hook(self._choose),
            feed_forward.register_forward_hook(self._place),
        )

    def close(self) -> None:
        """Leaves the feed-forward part as it was."""
        for hook in self._hooks:
            hook.remove()

    def _choose(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        if self.read_R is None:
            return None
        self._length = inputs[0].shape[1]
        return (inputs[0].index_select(1, self.read_R),)

    def _place(self, module: nn.Module, inputs: object, output_BRE: Tensor) -> Tensor | None:
        if self.read_R is None:
            return None
        batch, _, width = output_BRE.shape
        zeros_BTE = output_BRE.new_zeros(batch, self._length, width)
        return zeros_BTE.index_copy(1, self.read_R, output_BRE)
