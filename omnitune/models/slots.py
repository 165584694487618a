"""Keys and values of answers that come and go, in which a step writes one position of each.

The library's own cache is copied whole at every step: with 32 answers that takes as long as the
attention does. Here room is kept ahead. All rows end at the same position, and each has a beginning
of its own; what lies before that is padding.

Shape suffixes: B rows, K key-value heads, P positions of prompts, L positions that are seen, D head
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

AHEAD = 32  # positions for which there is room at least, when room is made; and a quarter more


@dataclass
class Window:
    """What is in use of each layer's room: so many rows, and positions ``first`` to ``end``."""

    rows: int = 0
    first: int = 0
    end: int = 0

    @property
    def length(self) -> int:
        """Positions in use."""
        return self.end - self.first


class SlotLayer(DynamicLayer):
    """Of one layer: ``keys`` and ``values`` are the whole room, ``[rows, K, positions, D]``."""

    keys: Tensor
    values: Tensor

    def __init__(self, window: Window, like: Any) -> None:
        super().__init__()
        self.window, self.is_initialized = window, True
        self.dtype, self.device = like.dtype, like.device
        self.keys, self.values = (x.new_zeros(0, *x.shape[1:]) for x in (like.keys, like.values))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes behind the end; returns what is seen from there: ``[B, K, L, D]`` each."""
        rows, first, end = self.window.rows, self.window.first, self.window.end
        reach = end + key_states.shape[-2]
        self.keys[:rows, :, end:reach] = key_states
        self.values[:rows, :, end:reach] = value_states
        return self.keys[:rows, :, first:reach], self.values[:rows, :, first:reach]

    def get_seq_length(self) -> int:
        """Positions in use."""
        return self.window.length

    def make_room(self, rows: int, positions: int, end: int) -> None:
        """Takes other room; what is in use ends at another position there."""
        window = self.window
        self.keys, self.values = (
            self._moved(room, rows, positions, window, end) for room in (self.keys, self.values)
        )

    @staticmethod
    def _moved(room: Tensor, rows: int, positions: int, window: Window, end: int) -> Tensor:
        # Zeros: what is masked is added too, and would be NaN if anything at all stood there.
        fresh = room.new_zeros(rows, room.shape[1], positions, room.shape[3])
        used = room[: window.rows, :, window.first : window.end]
        fresh[: window.rows, :, end - window.length : end] = used
        return fresh


class Slots(Cache):
    """A cache of answers that are decoded together.

    Attributes:
        begins: each row's first position.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.window = Window()
        self.begins: list[int] = []
        self._own: list[SlotLayer] = []
        self._begin_B: Tensor | None = None

    def join(self, prompts: DynamicCache, lengths: Sequence[int], which: Sequence[int]) -> None:
        """Puts new rows behind the others.

        Args:
            prompts: keys and values of prompts, their ends lined up.
            lengths: of each prompt, without its padding.
            which: the prompt of each new row.
        """
        news: list[Any] = prompts.layers
        if not self.layers:
            self.layers = [
                SlotLayer(self.window, layer) if layer.is_initialized else DynamicLayer()
                for layer in news  # some families' last layers read an earlier one's
            ]
            self._own = [layer for layer in self.layers if isinstance(layer, SlotLayer)]
        window, longest = self.window, max(lengths)
        old, rows = window.rows, window.rows + len(which)
        if rows > self._room[0] or window.end < longest or window.end >= self._room[1]:
            self._make_room(rows, max(longest, window.length))
        source = torch.tensor(which, device=self._own[0].device)
        first, before = window.first, window.end - longest
        window.first = min(first, before)
        for layer, new in zip(self.layers, news, strict=True):
            if not isinstance(layer, SlotLayer):
                continue
            for room, prompt in ((layer.keys, new.keys), (layer.values, new.values)):
                room[:old, :, window.first : first] = 0  # left there by others
                room[old:rows, :, window.first : before] = 0
                room[old:rows, :, before : window.end] = prompt[source]
        window.rows = rows
        self.begins += [window.end - lengths[place] for place in which]
        self._begin_B = None

    def keep(self, places: Sequence[int]) -> list[int]:
        """Keeps some rows; the last ones move to where others were.

        Returns:
            where each row that is left, in order, was before.
        """
        kept, count = set(places), len(places)
        late = [place for place in sorted(kept) if place >= count]
        order = [place if place in kept else late.pop() for place in range(count)]
        window = self.window
        seen = slice(window.first, window.end)
        for to, place in enumerate(order):
            if to != place:
                for layer in self._own:
                    layer.keys[to, :, seen] = layer.keys[place, :, seen]
                    layer.values[to, :, seen] = layer.values[place, :, seen]
        self.begins = [self.begins[place] for place in order]
        window.rows, window.first = count, min(self.begins, default=window.end)
        self._begin_B = None
        return order

    def open_step(self) -> tuple[Tensor | None, Tensor]:
        """Makes room for one more position of each row.

        Returns:
            which positions a row sees, the new one included, ``[B, L]``, None for all of them; and
            the new one's number in its row ``[B]``.
        """
        window, device = self.window, self._own[0].device
        if window.end >= self._room[1]:
            self._make_room(window.rows, window.length)
        if self._begin_B is None:
            self._begin_B = torch.tensor(self.begins, device=device)
        position_B = window.end - self._begin_B
        if max(self.begins) == window.first:
            return None, position_B
        place_L = torch.arange(window.first, window.end + 1, device=device)
        return place_L >= self._begin_B[:, None], position_B

    def close_step(self) -> None:
        """What was written since ``open_step`` belongs to the rows now."""
        self.window.end += 1

    @property
    def _room(self) -> tuple[int, int]:
        """Rows and positions for which there is room."""
        keys = self._own[0].keys
        return keys.shape[0], keys.shape[2]

    def _make_room(self, rows: int, end: int) -> None:
        """Takes room for so many rows that end there, and for some positions more."""
        for layer in self._own:
            layer.make_room(rows + rows // 4, end + end // 4 + AHEAD, end)
        moved = end - self.window.end
        self.begins = [begin + moved for begin in self.begins]
        self.window.first, self.window.end = self.window.first + moved, end
        self._begin_B = None
