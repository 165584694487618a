"""The standard model: the same parts, as models of several media are in transformers.

It takes padded rows, runs with the library's own attention, and loads with ``from_pretrained``.

Shape suffixes: B rows, T tokens, E embedding width, V vocabulary; R slots, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.cache_utils import Cache
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)

from omnitune.encoders.base import Encoder
from omnitune.encoders.projectors import Projector
from omnitune.models import families, fusion
from omnitune.models.bases import beside_statistics, cast_, made_at_once
from omnitune.models.media_tensors import require_media, unstack
from omnitune.models.standard_base import OmniPreTrainedModel
from omnitune.models.standard_config import MODEL_TYPE, OmniConfig

# Files hold the thinker's weights under its own names, so that it loads by itself too.
RENAMED = WeightRenaming(
    source_patterns=r"^model\.(?!language_model\.|encoders\.|projectors\.)",
    target_patterns="model.language_model.",
)
register_checkpoint_conversion_mapping(MODEL_TYPE, [RENAMED], overwrite=True)
GUESSING = ("assistant_model", "prompt_lookup_num_tokens")  # ahead of what is generated
UNUSED = ("mm_token_type_ids", "token_type_ids")  # a processor may give them; nothing reads them


class OmniBackbone(OmniPreTrainedModel):
    """The thinker's decoder with encoders and projectors; ``AutoModel`` gives it.

    Args:
        decoder: of the configuration; a fresh one if None.
    """

    def __init__(self, config: OmniConfig, decoder: nn.Module | None = None) -> None:
        super().__init__(config)
        if decoder is None:
            decoder = AutoModelForCausalLM.from_config(config.text_config).get_decoder()
        self.language_model: Any = decoder
        self._encoders = {name: values.build() for name, values in config.encoders.items()}
        width = config.text_config.hidden_size
        self.encoders, self.projectors = nn.ModuleDict(), nn.ModuleDict()
        # Their buffers may hold what no checkpoint does, so they are made at once; the thinker,
        # whose classes know how to make theirs anew, stays where the library wants it.
        with made_at_once():
            for name, encoder in self._encoders.items():
                formats = config.encoders[name].dtypes
                self.encoders[name] = encoder.build()
                self.projectors[name] = encoder.build_projector(width)
                cast_(self.encoders[name], formats[0])
                cast_(self.projectors[name], formats[1])
        self._keep_in_fp32_modules_strict = beside_statistics(self)
        self._made = {name: buffer.clone() for name, buffer in self._hidden_buffers()}
        self.post_init()

    @property
    def modalities(self) -> dict[str, Encoder]:
        """The encoders without their weights, by medium."""
        return self._encoders

    def _hidden_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers of encoders and projectors that no checkpoint holds."""
        saved = self.state_dict().keys()
        for part in ("encoders", "projectors"):
            for name, buffer in getattr(self, part).named_buffers(prefix=part):
                if name not in saved:
                    yield name, buffer

    @torch.no_grad()
    def restore_buffers(self) -> None:
        """Gives the buffers that no checkpoint holds what they were built with."""
        for name, buffer in self._hidden_buffers():
            buffer.copy_(self._made[name])

    def train(self, mode: bool = True) -> OmniBackbone:
        """As of the packed model: BatchNorm keeps its statistics, frozen encoders do not train."""
        super().train(mode)
        fusion.keep_statistics(self.encoders)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """How the thinker reads words."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces them."""
        self.language_model.set_input_embeddings(value)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The encoder of a medium."""
        if modality is not None and modality in self.encoders:
            return self.encoders[modality]
        return super().get_encoder(modality)

    def encode_media(
        self, name: str, tensor: Tensor, sizes: Tensor | None
    ) -> BaseModelOutputWithPooling:
        """Encodes and projects media of one kind; see ``get_features``."""
        module, encoder = self.encoders[name], self._encoders[name]
        trained = any(p.requires_grad for p in module.parameters())
        first = next(module.parameters(), None)
        inputs = unstack(tensor, sizes)
        if first is not None:
            inputs = [x.to(first.device, first.dtype) for x in inputs]
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            encoded = encoder.encode_checked(module, inputs)
        features_RD, rows_M = torch.cat(encoded), [len(rows_ND) for rows_ND in encoded]
        embeddings = self.get_input_embeddings()
        slot = torch.tensor([self.config.placeholder_id(name)], device=features_RD.device)
        rows_RE = fusion.project(
            features_RD,
            rows_M,
            cast(Projector, self.projectors[name]),
            getattr(module, "readout", None) if encoder.keeps_rows else None,
            partial(fusion.word_embeddings, embeddings),
            embeddings(slot).expand(len(features_RD), -1),
        )
        return BaseModelOutputWithPooling(last_hidden_state=features_RD, pooler_output=rows_RE)

    def embed(self, input_ids_BT: Tensor, media: dict[str, tuple[Tensor, Tensor | None]]) -> Tensor:
        """Embeds tokens and writes projected media over the placeholders: ``[B, T, E]``.

        Raises:
            ValueError: there are more or fewer placeholders than the media fill.
        """
        embeds_BTE = self.get_input_embeddings()(input_ids_BT)
        if self.training:
            names = [name for name in self.encoders if name not in media]
            parts = [part[name] for name in names for part in (self.encoders, self.projectors)]
            embeds_BTE = embeds_BTE + fusion.zero_term(parts, embeds_BTE)
        for name, (tensor, sizes) in media.items():
            rows_RE = cast(Tensor, self.encode_media(name, tensor, sizes).pooler_output)
            slots_BT = input_ids_BT == self.config.placeholder_id(name)
            if int(slots_BT.sum()) != len(rows_RE):
                raise ValueError(
                    f"{len(rows_RE)} {name} feature rows for {int(slots_BT.sum())} placeholders"
                )
            rows_RE = rows_RE.to(embeds_BTE.device, embeds_BTE.dtype)
            embeds_BTE = embeds_BTE.index_put(slots_BT.nonzero(as_tuple=True), rows_RE)
        return embeds_BTE

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The decoder's hidden states.

        Args:
            kwargs: the media's tensors (``pixel_values``, ``input_features``, ...), each with its
                sizes (``pixel_values_sizes``) where media differ in form; anything else goes to
                the decoder.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        media = self._media_of(kwargs)
        if inputs_embeds is None:
            if past_key_values is None:  # else it may have read what was shown
                require_media(cast(Tensor, input_ids), media, self.modalities, self.config)
            inputs_embeds = self.embed(cast(Tensor, input_ids), media)
        for name in UNUSED:
            kwargs.pop(name, None)
        padded = attention_mask is not None and attention_mask.dim() == 2
        if padded and position_ids is None and past_key_values is None:
            # Padding in front takes no positions.
            position_ids = (cast(Tensor, attention_mask).long().cumsum(-1) - 1).clamp(min=0)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class OmniForConditionalGeneration(OmniPreTrainedModel, GenerationMixin):
    """A thinker that sees and hears, for ``generate`` and for training on padded rows."""

    def __init__(self, config: OmniConfig) -> None:
        super().__init__(config)
        thinker = AutoModelForCausalLM.from_config(config.text_config)
        decoder, head = thinker.get_decoder(), thinker.get_output_embeddings()
        names = {id(module): name for name, module in thinker.named_modules()}
        inside = names[id(decoder)]
        if getattr(thinker.config, "tie_word_embeddings", False):
            table = names[id(decoder.get_input_embeddings())].removeprefix(inside)
            self._tied_weights_keys = {"lm_head.weight": f"model.language_model{table}.weight"}
        self.model = OmniBackbone(config, decoder)
        self.lm_head = head
        # What the family does to logits behind the head. Not a module: its parts are above.
        self._thinker = (thinker,)
        self._has_plain_head: bool | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """How the thinker reads words."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces them."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """What makes logits of hidden states."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces it."""
        self.lm_head = value
        self._thinker[0].set_output_embeddings(value)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The encoder of a medium."""
        return self.model.get_encoder(modality)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits and, with labels, the mean loss of the supervised tokens.

        Args:
            pixel_values, input_features: media as the processor gives them; those of other kinds
                are in ``kwargs``, under the names of their media.
            labels: ids, -100 where nothing is learnt; they are shifted here.
            logits_to_keep: how many of the last positions get logits, or which; 0: all.
        """
        named = {"pixel_values": pixel_values, "input_features": input_features}
        kwargs |= {name: tensor for name, tensor in named.items() if tensor is not None}
        loss_options = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
        kwargs.pop("return_dict", None)
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self._logits(out.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            size = self.config.text_config.vocab_size
            loss = self.loss_function(logits, labels, vocab_size=size, **loss_options)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=getattr(out, "hidden_states", None),
            attentions=getattr(out, "attentions", None),
        )

    def _logits(self, hidden_BTE: Tensor) -> Tensor:
        """Some families scale or bound what the head gives (Granite, Cohere, Gemma)."""
        if self._has_plain_head is None:
            self._has_plain_head = families.has_plain_head(self._thinker[0])
        if self._has_plain_head:
            return self.lm_head(hidden_BTE)
        return families.logits_of(self._thinker[0], hidden_BTE)

    @torch.no_grad()
    def generate(  # type: ignore[override]  # the rest goes to the library as it is
        self, inputs: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As of every model of the library: greedy, sampling, beams.

        Media are encoded once and laid into the prompt's embeddings: beams and several answers to
        a prompt multiply rows, and media are not one a row.

        Raises:
            ValueError: placeholders lack their media, or another model is to guess answers.
        """
        media = self._media_of(kwargs)
        for name in UNUSED:
            kwargs.pop(name, None)
        ids = kwargs.pop("input_ids", inputs)
        if media and any(kwargs.get(name) is not None for name in GUESSING):
            raise ValueError(
                f"{' and '.join(GUESSING)} read tokens only; leave them out with media"
            )
        if media and ids is not None:
            kwargs["inputs_embeds"] = self.model.embed(ids.to(self.device), media)
        elif not {"inputs_embeds", "past_key_values"} & kwargs.keys() and ids is not None:
            require_media(ids, media, self.modalities, self.config)
        mixin: Any = super()
        return mixin.generate(ids, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Media are read with the prompt only, for who writes a loop of their own."""
        if not is_first_iteration and kwargs.get("use_cache", True):
            self._media_of(kwargs)
        options = {"inputs_embeds": inputs_embeds, "is_first_iteration": is_first_iteration}
        mixin: Any = super()
        return mixin.prepare_inputs_for_generation(input_ids, *args, **options, **kwargs)
