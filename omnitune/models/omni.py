"""The assembly: encoders and projectors write into the sequence that the thinker reads.

Shape suffixes: T row tokens, E embedding width, R feature rows, N supervised tokens, G groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from omnitune.data.packing import Batch, MediaRows
from omnitune.data.segments import Segments
from omnitune.encoders.base import Encoder
from omnitune.encoders.projectors import Projector
from omnitune.encoders.registry import build_encoder
from omnitune.encoders.vocab_head import VocabHead
from omnitune.models import families, fusion, parity
from omnitune.models.adapters import Adapters, parts_of
from omnitune.models.bases import Base
from omnitune.models.kernels import cpu as operators
from omnitune.models.kernels import flash4
from omnitune.models.read_rows import ReadRows
from omnitune.sample import UserError

# Share of the rows up to which it pays to compute only those that are read.
WORTH_CHOOSING = 0.7


class OmniConfig(PretrainedConfig):
    """Settings from which the whole model can be built again.

    Args:
        thinker: the language model's configuration as a dictionary with ``model_type``.
        encoders: each modality's encoder settings.
        projectors: each modality's projector settings; without, the encoder's own choice.
    """

    model_type = "omnitune"

    def __init__(
        self,
        thinker: dict[str, Any] | None = None,
        encoders: dict[str, dict[str, Any]] | None = None,
        projectors: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.thinker = thinker or {}
        self.encoders = encoders or {}
        self.projectors = projectors or {}
        super().__init__(**kwargs)


class TokenScores(NamedTuple):
    """Of each supervised token: negative log-likelihood (nats) and whether the argmax is right."""

    nll_N: Tensor
    correct_N: Tensor


class OmniModel(PreTrainedModel):
    """A thinker with, for each modality, an encoder and a projector (``proj_v``, ``proj_a``).

    Args:
        thinker: of this configuration; a fresh one if None.
    """

    config_class = OmniConfig
    _supports_sdpa = True

    def __init__(self, config: OmniConfig, thinker: Any = None) -> None:
        super().__init__(config)
        self.thinker = families.build(config.thinker) if thinker is None else thinker
        operators.install_cpu_kernels(self.thinker)
        self._has_plain_head = families.has_plain_head(self.thinker)
        self.modalities: dict[str, Encoder] = {
            name: build_encoder(name, encoder, config.projectors.get(name))
            for name, encoder in config.encoders.items()
        }
        # As resolved: what is saved says all, and defaults may change.
        self.config.encoders = {name: m.config for name, m in self.modalities.items()}
        self.config.projectors = {name: m.projector for name, m in self.modalities.items()}
        width = self.thinker.config.hidden_size
        self.encoders = nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.encoders[name] = modality.build()
            self.add_module(modality.medium.projector_part, modality.build_projector(width))
        self.bases: dict[str, Base] = {}  # by part, what it began with if that was pretrained
        self.adapters: Adapters | None = None
        self._compiled: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._losses = self._nll  # of logits; compiled on a GPU
        self._computes_anew = False
        last = families.last_feed_forward(self.thinker)
        self._last_layer = None if last is None else ReadRows(last)
        self.post_init()
        if self.thinker.config.model_type not in families.KNOWN:
            self.check_thinker()

    def check_thinker(self) -> None:
        """Compares the thinker, as it is used here, with its library's own forward pass.

        Raises:
            UserError: they differ; names the family, the reason and what to take instead.
        """
        parity.check(self.thinker, self._logits, self.predict)

    def init_weights(self) -> None:
        """Does nothing: each part has the weights that it was built with.

        The library would draw some of them anew, by rules that differ from version to version.
        """

    def projector(self, name: str) -> Projector:
        """The projector of a modality."""
        return getattr(self, self.modalities[name].medium.projector_part)

    def readout(self, name: str) -> VocabHead | None:
        """What names the thinker's words in a modality's slots, if anything does.

        A resampler's slots are no feature rows, so nothing names words in them.
        """
        keeps_rows = self.modalities[name].keeps_rows
        return getattr(self.encoders[name], "readout", None) if keeps_rows else None

    def trunks(self) -> dict[str, nn.Module]:
        """What can have adapters, by the name of the part: thinker and encoders."""
        encoders = {m.medium.encoder_part: self.encoders[n] for n, m in self.modalities.items()}
        return {"thinker": self.thinker, **encoders}

    def parts(self) -> dict[str, nn.Module]:
        """What can be trained or frozen by itself, by name: together all the weights."""
        parts: dict[str, nn.Module] = {"thinker": self.thinker}
        for name, modality in self.modalities.items():
            parts[modality.medium.projector_part] = self.projector(name)
            parts[modality.medium.encoder_part] = self.encoders[name]
        return parts_of(parts, self.adapters)

    def compile_decoder(self) -> None:
        """Compiles the decoder's layers for training, at their first call, for rows of any length.

        One layer's code serves all, so that compiling does not take longer for a deeper thinker.
        Scoring stays as it is: it comes in other shapes, and each would be compiled. Where
        compiling fails a warning says so and training goes on without.
        """
        # Otherwise the backward pass is compiled when it runs, where a failure cannot be caught.
        torch._functorch.config.force_non_lazy_backward_lowering = True
        # Otherwise lengths that are equal in the first row are taken to be so in every row.
        torch.fx.experimental._config.use_duck_shape = False
        if self.device.type == "cuda":
            flash4.load()
        if self._last_layer is not None:
            self._last_layer.close()  # its rows would be traced apart
            self._last_layer = None
        layers = self.thinker.get_decoder().layers
        self._compiled = [(layer, torch.compile(layer.forward, dynamic=True)) for layer in layers]
        self._place_compiled(self.training)
        if self.device.type == "cuda":  # in one pass over the logits in place of eight
            self._losses = torch.compile(self._nll, dynamic=True)

    def _place_compiled(self, training: bool) -> None:
        """Layers run compiled in training: backward too, where they may be computed anew."""
        for layer, compiled in self._compiled:
            if training:
                layer.forward = compiled
            else:
                layer.__dict__.pop("forward", None)

    def checkpoint_activations(self) -> None:
        """Keeps each layer's input only, and computes the rest of it anew in the backward pass."""
        before = self.thinker.gradient_checkpointing_enable  # its name in older transformers
        enable = getattr(self.thinker, "activation_checkpointing_enable", before)
        enable({"use_reentrant": False})
        self._computes_anew = True

    def match_projector_scales(self) -> None:
        """Brings fresh projectors to the loudness of the thinker's own embeddings.

        Where a readout speaks for the encoder the projector has, at first, nothing to add.
        """
        weight = self.word_embeddings()
        for name in self.modalities:
            projector = self.projector(name)
            if self.readout(name) is not None:
                projector.zero_init_()
            else:
                projector.match_scale(weight)

    def freeze_encoders(self) -> None:
        """No gradients, and ``train()`` leaves the encoders in evaluation mode."""
        self.encoders.requires_grad_(False)
        self.encoders.eval()

    def train(self, mode: bool = True) -> OmniModel:
        """Sets the mode of every part, but see ``fusion.keep_statistics`` for encoders."""
        self._place_compiled(super().train(mode).training)
        fusion.keep_statistics(self.encoders)
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of the supervised tokens' losses and of their weights, by group: ``[G]`` each."""
        logits_NV = self._logits(batch)
        losses = self._losses if self.training else self._nll
        nll_N = losses(logits_NV, batch.labels_N)
        zeros = torch.zeros(batch.num_groups, device=nll_N.device)
        loss_sums = zeros.index_add(0, batch.group_N, nll_N * batch.weight_N)
        counts = zeros.index_add(0, batch.group_N, batch.weight_N)
        return loss_sums, counts

    @torch.no_grad()
    def token_scores(self, batch: Batch) -> TokenScores:
        """Likelihood and correctness of each supervised token under the reference's history."""
        logits_NV = self._logits(batch)
        correct_N = logits_NV.argmax(dim=-1) == batch.labels_N
        return TokenScores(self._nll(logits_NV, batch.labels_N), correct_N)

    def embed_batch(self, batch: Batch) -> Tensor:
        """What the decoder reads of a batch: tokens, media, words heard along: ``[T, E]``."""
        embeds_TE = self.embed(batch.tokens_T, batch.media)
        if batch.added_M.numel():
            added_ME = self.thinker.get_input_embeddings()(batch.added_M)
            embeds_TE = embeds_TE.index_add(0, batch.at_M, added_ME)
        return embeds_TE

    def embed(self, tokens_T: Tensor, media: dict[str, MediaRows]) -> Tensor:
        """Embeds tokens and writes projected features over the placeholders: ``[T, E]``."""
        embeds_TE = self.thinker.get_input_embeddings()(tokens_T)
        for name in self.modalities:
            rows = media.get(name)
            if rows is None:
                if self.training:
                    unused = (self.projector(name), self.encoders[name])
                    embeds_TE = embeds_TE + fusion.zero_term(unused, embeds_TE)
                continue
            rows_RE = self._project(name, rows, embeds_TE)
            # Slots may be padded beyond what is projected.
            embeds_TE = embeds_TE.index_put((rows.slots_R[: len(rows_RE)],), rows_RE)
        return embeds_TE

    def _project(self, name: str, rows: MediaRows, embeds_TE: Tensor) -> Tensor:
        """What stands in the slots of a batch's media, words of a readout included: ``[R, E]``."""
        features_RD, rows_M = rows.features_RD, rows.rows_M
        if features_RD is None:
            encoded = self.encode(name, rows.inputs)
            features_RD, rows_M = torch.cat(encoded), [len(found_ND) for found_ND in encoded]
        readout = self.readout(name)
        silence_R = rows.slots_R if readout is not None else rows.slots_R[:0]
        rows_RE = fusion.project(
            features_RD,
            rows_M,
            self.projector(name),
            readout,
            self.word_embeddings,
            embeds_TE.index_select(0, silence_R),
        )
        expected_M = [self.modalities[name].slots_for(count) for count in rows_M]
        if expected_M != rows.slots_M or len(rows_RE) > len(rows.slots_R):
            raise UserError(
                f"{sum(rows_M)} {name} feature rows, which take {sum(expected_M)} slots, for "
                f"{min(sum(rows.slots_M), len(rows.slots_R))} slots"
            )
        return rows_RE

    def word_embeddings(self) -> Tensor:
        """How the decoder reads each word of the vocabulary: ``[V, E]``."""
        return fusion.word_embeddings(self.thinker.get_input_embeddings())

    def encode(self, name: str, inputs: list[Tensor]) -> list[Tensor]:
        """Runs a modality's encoder; without graph if it is frozen."""
        encoder = self.encoders[name]
        trained = any(p.requires_grad for p in encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            return self.modalities[name].encode_checked(encoder, inputs)

    def _logits(self, batch: Batch) -> Tensor:
        """Logits at the supervised positions only: ``[N, V]``."""
        with self._reading(batch):
            hidden_TE = self._hidden(self.embed_batch(batch), batch.positions_T, batch.segments)
        return self.head(hidden_TE.index_select(0, batch.predict_N))

    def head(self, hidden_NE: Tensor) -> Tensor:
        """Logits of last hidden states: ``[N, V]``."""
        if self._has_plain_head:
            return self.thinker.get_output_embeddings()(hidden_NE)
        return families.logits_of(self.thinker, hidden_NE.unsqueeze(0))[0]

    def predict(
        self, embeds_BPE: Tensor, valid_BL: Tensor | None, positions_BP: Tensor, cache: Cache
    ) -> Tensor:
        """Logits of each sequence's last position; what is read goes into the cache: ``[B, V]``.

        Args:
            valid_BL: whether each of the L positions in the cache, and of the P read here, is
                more than padding; None where all are, and the cache is empty or P is 1.
        """
        mask_B1PL = None if valid_BL is None else _mask(valid_BL, embeds_BPE.shape[1])
        hidden_BPE = self.thinker.get_decoder()(
            inputs_embeds=embeds_BPE,
            attention_mask=mask_B1PL,
            position_ids=positions_BP,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self.head(hidden_BPE[:, -1])

    @contextmanager
    def _reading(self, batch: Batch) -> Iterator[None]:
        """Tells the last layer which rows are read, where leaving the others out is worth it."""
        rows = self._last_layer
        if rows is not None and not self._computes_anew and batch.tokens_T.device.type == "cpu":
            read_R = batch.predict_N.unique()
            rows.read_R = read_R if len(read_R) < WORTH_CHOOSING * len(batch.tokens_T) else None
        try:
            yield
        finally:
            if rows is not None:
                rows.read_R = None

    def _hidden(self, embeds_TE: Tensor, positions_T: Tensor, segments: Segments) -> Tensor:
        """The decoder's last hidden states ``[T, E]``; compiled where that was asked for."""
        embeds_1TE = embeds_TE.unsqueeze(0)
        if self._compiled and self.training:
            try:
                # A view would be traced apart from what one layer hands to the next.
                return self._decode(embeds_1TE.clone(), positions_T, segments)
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"not compiled, going on without: {reason}", stacklevel=2)
                self._place_compiled(False)
                self._compiled, self._losses = [], self._nll
        return self._decode(embeds_1TE, positions_T, segments)

    def _decode(self, embeds_1TE: Tensor, positions_T: Tensor, segments: Segments) -> Tensor:
        return self.thinker.get_decoder()(
            inputs_embeds=embeds_1TE,
            position_ids=positions_T.unsqueeze(0),
            segments=segments,
            use_cache=False,
        ).last_hidden_state[0]

    @staticmethod
    def _nll(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits_NV.float(), labels_N, reduction="none")


def _mask(valid_BL: Tensor, read: int) -> Tensor:
    """Which of L positions each of the last, which are read, sees: ``[B, 1, P, L]``."""
    mask = valid_BL[:, None, None]
    if read > 1:
        place_L = torch.arange(valid_BL.shape[1], device=valid_BL.device)
        behind = place_L[-read:, None] - place_L
        # A padding position sees itself: a row of scores without any key would be NaN.
        mask = ((behind >= 0) & mask) | (behind == 0)
    return mask
