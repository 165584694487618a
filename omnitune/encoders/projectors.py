"""Projectors: from an encoder's rows of features to the thinker's embeddings, by ``type``.

Shape suffixes: R feature rows of several media end to end, D feature width, E embedding width,
M media, L rows of the longest, S slots of a picture, Q learned queries, K keys, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from omnitune.config.settings import listed
from omnitune.encoders.attention import attend
from omnitune.sample import UserError

MOST = 4096  # of any setting: what is larger is a slip


class FeatureRows(NamedTuple):
    """What a projector is built on.

    Attributes:
        medium: whose encoder gives the rows, for messages.
        dim: width of one row.
        fixed: rows that every medium has; None where their number varies.
    """

    medium: str
    dim: int
    fixed: int | None


class Projector(nn.Module):
    """What all projectors share.

    Attributes:
        type_name: key in ``PROJECTORS``, and ``type`` in the projector's settings (``"mlp"``).
        defaults: its settings, whole numbers from 1 on; None for one that follows from the width.
        encoder_setting: setting of the encoder that ``factor`` sets, which joins rows; "" if none.
        keeps_rows: whether each feature row becomes one slot.
    """

    type_name: ClassVar[str]
    defaults: ClassVar[dict[str, int | None]] = {}
    encoder_setting: ClassVar[str] = ""
    keeps_rows: ClassVar[bool] = True

    def __init__(self, rows: FeatureRows, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.feature_dim = rows.dim

    @classmethod
    def slots_for(cls, rows: int, settings: Mapping[str, Any]) -> int:
        """Number of slots of a medium that has so many feature rows."""
        return rows

    @property
    def last(self) -> nn.Linear | None:
        """The layer that gives the outputs; None where nothing is learned."""
        raise NotImplementedError

    def forward(self, features_RD: Tensor, rows_M: Sequence[int] | None = None) -> Tensor:
        """Projects media that lie end to end to embeddings of their slots, in the same order.

        Args:
            rows_M: number of rows of each medium; None for one medium. Rows behind the last
                medium's are padding.
        """
        raise NotImplementedError

    @torch.no_grad()
    def match_scale(self, embeddings_VE: Tensor) -> None:
        """Scales the outputs to the spread of the thinker's embeddings.

        A fresh projector is many times louder or quieter than words are; the first hundreds of
        steps would go into correcting that.
        """
        if self.last is None:
            return
        probe_RD = torch.randn(256, self.feature_dim, device=embeddings_VE.device)
        found_RE = self(probe_RD.to(self.last.weight.dtype))
        self.last.weight.mul_(embeddings_VE.float().std() / found_RE.float().std())
        self.last.bias.zero_()

    @torch.no_grad()
    def zero_init_(self) -> None:
        """Makes every output zero, to begin with; where nothing is learned, nothing changes."""
        if self.last is not None:
            self.last.weight.zero_()
            self.last.bias.zero_()


class MlpProjector(Projector):
    """LayerNorm, Linear, GELU, Linear (LLaVA-1.5, with a norm): [R, D] -> [R, E]."""

    type_name = "mlp"

    def __init__(self, rows: FeatureRows, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__(rows, width, settings)
        self.norm = nn.LayerNorm(rows.dim)
        self.up = nn.Linear(rows.dim, 2 * width)
        self.down = nn.Linear(2 * width, width)

    @property
    def last(self) -> nn.Linear:
        """The second linear layer."""
        return self.down

    def forward(self, features_RD: Tensor, rows_M: Sequence[int] | None = None) -> Tensor:
        """Each row by itself."""
        return self.down(nn.functional.gelu(self.up(self.norm(features_RD))))


class PixelShuffleProjector(MlpProjector):
    """An ``mlp`` over squares of ``factor`` x ``factor`` patches, which the encoder joins."""

    type_name = "pixel_shuffle_mlp"
    defaults: ClassVar[dict[str, int | None]] = {"factor": 2}
    encoder_setting = "pixel_shuffle"


class StackProjector(MlpProjector):
    """An ``mlp`` over ``factor`` rows that follow each other, which the encoder joins."""

    type_name = "stack_mlp"
    defaults: ClassVar[dict[str, int | None]] = {"factor": 4}
    encoder_setting = "stack"


class GridProjector(MlpProjector):
    """Adds to each slot an embedding of its place, so that "top left" can be looked up at once."""

    type_name = "grid_mlp"

    def __init__(self, rows: FeatureRows, width: int, settings: Mapping[str, Any]) -> None:
        if rows.fixed is None:
            raise UserError(
                f"projectors.{rows.medium}.type is 'grid_mlp', which learns an embedding for "
                f"each place of a grid, but the {rows.medium} encoder gives a number of rows that "
                "varies; take mlp"
            )
        super().__init__(rows, width, settings)
        self.place_SE = nn.Parameter(torch.randn(rows.fixed, width) * 0.02)

    def forward(self, features_RD: Tensor, rows_M: Sequence[int] | None = None) -> Tensor:
        """Projects the rows of whole pictures, ``[pictures * slots, D]``."""
        rows_RE = super().forward(features_RD)
        pictures = -(-len(rows_RE) // len(self.place_SE))
        return rows_RE + self.place_SE.repeat(pictures, 1)[: len(rows_RE)]

    @torch.no_grad()
    def match_scale(self, embeddings_VE: Tensor) -> None:
        """Scales features and places to the spread of the thinker's embeddings."""
        self.place_SE.zero_()
        super().match_scale(embeddings_VE)
        # Two independent parts of half the power each are together as loud as one word.
        self.down.weight.mul_(0.5**0.5)
        self.place_SE.normal_(std=float(embeddings_VE.float().std()) * 0.5**0.5)

    @torch.no_grad()
    def zero_init_(self) -> None:
        """Features and places are zero."""
        super().zero_init_()
        self.place_SE.zero_()


class LinearProjector(Projector):
    """One linear layer, as in LLaVA: [R, D] -> [R, E]."""

    type_name = "linear"

    def __init__(self, rows: FeatureRows, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__(rows, width, settings)
        self.down = nn.Linear(rows.dim, width)

    @property
    def last(self) -> nn.Linear:
        """The layer."""
        return self.down

    def forward(self, features_RD: Tensor, rows_M: Sequence[int] | None = None) -> Tensor:
        """Each row by itself."""
        return self.down(features_RD)


class IdentityProjector(Projector):
    """The rows as they are, for an encoder that already gives embeddings of the thinker."""

    type_name = "identity"

    def __init__(self, rows: FeatureRows, width: int, settings: Mapping[str, Any]) -> None:
        if rows.dim != width:
            raise UserError(
                f"projectors.{rows.medium}.type is 'identity', but the {rows.medium} encoder's "
                f"rows are {rows.dim} wide and the thinker's embeddings {width}; take linear or mlp"
            )
        super().__init__(rows, width, settings)

    @property
    def last(self) -> None:
        """Nothing is learned."""
        return None

    def forward(self, features_RD: Tensor, rows_M: Sequence[int] | None = None) -> Tensor:
        """The rows."""
        return features_RD


class Resampler(Projector):
    """Learned queries that read all rows of one medium: as many slots, however long it is.

    The Perceiver resampler of Flamingo (Alayrac et al. 2022): in each layer the queries attend to
    the medium's rows and to each other; a feed-forward part follows.
    """

    type_name = "resampler"
    defaults: ClassVar[dict[str, int | None]] = {"queries": 64, "heads": None, "layers": 1}
    keeps_rows = False

    def __init__(self, rows: FeatureRows, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__(rows, width, settings)
        heads = settings["heads"] or _heads_of(width)
        if width % heads:
            raise UserError(
                f"projectors.{rows.medium}.heads is {heads}, which does not divide the thinker's "
                f"width of {width}"
            )
        self.norm = nn.LayerNorm(rows.dim)
        self.up = nn.Linear(rows.dim, width)
        # As loud as a normed row: quiet queries would all read the same.
        self.query_QE = nn.Parameter(torch.randn(settings["queries"], width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(settings["layers"]))
        self.down_norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, width)

    @classmethod
    def slots_for(cls, rows: int, settings: Mapping[str, Any]) -> int:
        """One slot a query."""
        return settings["queries"]

    @property
    def last(self) -> nn.Linear:
        """The layer behind the last norm."""
        return self.down

    def forward(self, features_RD: Tensor, rows_M: Sequence[int] | None = None) -> Tensor:
        """Reads M media to ``[M * Q, E]``; none sees another's rows."""
        rows_M = [len(features_RD)] if rows_M is None else list(rows_M)
        rows_RE = self.up(self.norm(features_RD))[: sum(rows_M)]
        rows_MLE = nn.utils.rnn.pad_sequence(list(rows_RE.split(rows_M)), batch_first=True)
        place_L = torch.arange(rows_MLE.shape[1], device=rows_MLE.device)
        ends_M = torch.tensor(rows_M, device=rows_MLE.device)
        there_ML = place_L < ends_M[:, None]
        queries_MQE = self.query_QE.to(rows_MLE.dtype).expand(len(rows_M), -1, -1)
        for layer in self.layers:
            queries_MQE = layer(queries_MQE, rows_MLE, there_ML)
        return self.down(self.down_norm(queries_MQE)).flatten(0, 1)


class ResamplerLayer(nn.Module):
    """Attention of queries to rows and queries, then a feed-forward part; norms come first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.row_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries_MQE: Tensor, rows_MLE: Tensor, there_ML: Tensor) -> Tensor:
        """One step of reading; ``there_ML`` says which rows are more than padding."""
        normed_MQE = self.query_norm(queries_MQE)
        read_MKE = torch.cat([self.row_norm(rows_MLE), normed_MQE], dim=1)
        mask_MK = nn.functional.pad(there_ML, (0, queries_MQE.shape[1]), value=True)
        keys, values = self.key_value(read_MKE).chunk(2, dim=-1)
        q_MHQD, k_MHKD, v_MHKD = map(self._split, (self.query(normed_MQE), keys, values))
        found_MHQD = attend(q_MHQD, k_MHKD, v_MHKD, attn_mask=mask_MK[:, None, None])
        queries_MQE = queries_MQE + self.out(found_MHQD.transpose(1, 2).flatten(2))
        return queries_MQE + self.feed_forward(queries_MQE)

    def _split(self, x_MKE: Tensor) -> Tensor:
        return x_MKE.unflatten(-1, (self.heads, -1)).transpose(1, 2)


PROJECTORS: dict[str, type[Projector]] = {
    kind.type_name: kind
    for kind in (
        MlpProjector,
        LinearProjector,
        PixelShuffleProjector,
        StackProjector,
        Resampler,
        IdentityProjector,
        GridProjector,
    )
}


def resolve(medium: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A projector's settings with their defaults: ``type`` and the settings of that type.

    Raises:
        UserError: no such type is known, or the type has no such setting or value.
    """
    name = settings.get("type", MlpProjector.type_name)
    if not isinstance(name, str) or name not in PROJECTORS:
        raise UserError(
            f"projectors.{medium}.type: no projector is of the type {name!r}; known: "
            f"{listed(name, PROJECTORS)}"
        )
    defaults = PROJECTORS[name].defaults
    given = {key: value for key, value in settings.items() if key != "type"}
    for key, value in given.items():
        place = f"projectors.{medium}.{key}"
        if key not in defaults:
            raise UserError(
                f"{place}: projectors.{medium}.type {name!r} has no such setting; known: "
                f"{listed(key, defaults)}"
            )
        if value is None and defaults[key] is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise UserError(f"{place} is {value!r}, not a whole number from 1 to {MOST}")
    return {"type": name, **defaults, **given}


def _heads_of(width: int) -> int:
    """Heads of 64 or, where these do not divide the width, the next number below that does."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
