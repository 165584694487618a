"""What a step computes and keeps: counted on models without values, and on measured samples.

Shape suffixes: T tokens of a row, N supervised tokens.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omnitune.data.loader import BatchStream
from omnitune.encoders.base import Encoder
from omnitune.models.omni import OmniModel

EACH = 256  # samples of a source that are measured
WALKED = 4  # times that many samples of the run, at most, are looked at


@dataclass
class Kind:
    """What the samples of a source hold, in sums.

    Attributes:
        squares: of the lengths of its segments: what attention's work grows with.
        slots, media: by modality.
    """

    samples: int = 0
    tokens: int = 0
    longest: int = 0
    supervised: int = 0
    squares: int = 0
    slots: Counter[str] = field(default_factory=Counter)
    media: Counter[str] = field(default_factory=Counter)

    def means(self) -> dict[str, Any]:
        """Per sample."""
        count = max(1, self.samples)
        return {
            "measured": self.samples,
            "tokens": self.tokens / count,
            "longest": self.longest,
            "supervised": self.supervised / count,
            "slots": {name: n / count for name, n in self.slots.items()},
        }


@dataclass
class Measured:
    """Samples of a run.

    Attributes:
        kinds: by source.
        lengths: tokens and supervised tokens of the samples, in the order of the run.
        examples: an input of each modality, of the largest met.
    """

    kinds: dict[str, Kind]
    lengths: list[tuple[int, int]]
    examples: dict[str, Tensor]

    def mean(self, name: str) -> float:
        """Of all samples, in the run's mix."""
        total = sum(kind.samples for kind in self.kinds.values())
        return sum(getattr(kind, name) for kind in self.kinds.values()) / max(1, total)

    def media(self, modality: str) -> float:
        """Media a sample, in the run's mix."""
        total = sum(kind.samples for kind in self.kinds.values())
        return sum(kind.media[modality] for kind in self.kinds.values()) / max(1, total)


def measure_samples(stream: BatchStream, each: int = EACH, first: int = 0) -> Measured:
    """Reads and renders samples of a run from its ``first`` on, ``each`` of a source at most."""
    kinds: dict[str, Kind] = {name: Kind() for name in stream.groups}
    lengths: list[tuple[int, int]] = []
    examples: dict[str, Tensor] = {}
    for k in range(first, first + WALKED * each):
        kind = kinds[stream.mixture.sample_at(k)[0]]
        if kind.samples >= each:
            continue
        items = stream.items_at(k)
        if not items:  # it cannot be read, and is left out
            continue
        tokens = sum(item.row_tokens for item in items)
        supervised = sum(sum(item.rendered.supervised) for item in items)
        kind.samples += 1
        kind.tokens += tokens
        kind.longest = max(kind.longest, tokens)
        kind.supervised += supervised
        kind.squares += sum(item.row_tokens * len(item.rendered.tokens) for item in items)
        for item in items:
            for slots, tensor in zip(item.rendered.slots, item.media, strict=True):
                if slots.start < item.shared:
                    continue
                name = slots.media.modality
                kind.slots[name] += slots.count
                kind.media[name] += 1
                if name not in examples or tensor.numel() > examples[name].numel():
                    examples[name] = tensor
        lengths.append((tokens, supervised))
    return Measured(kinds, lengths, examples)


@dataclass
class ModuleCost:
    """Of one call.

    Attributes:
        flops: of the forward pass. kept: bytes of what its layers give, in fp32.
    """

    flops: float = 0.0
    kept: int = 0


def encoder_cost(encoder: Encoder, module: nn.Module, example: Tensor) -> ModuleCost:
    """What encoding a medium takes, roughly, found without computing anything.

    What an encoder does by values (choosing rows) ends the count; the work is done before it.

    Args:
        module: of the encoder, on the meta device.
        example: an input.
    """
    cost = ModuleCost()

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        cost.kept += output.numel() * 4
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            cost.flops += 2.0 * output.numel() * weight[0].numel()

    leaves = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves]
    try:
        with suppress(Exception):
            encoder.encode(module, [example.to("meta")])
    finally:
        for hook in hooks:
            hook.remove()
    return cost


def thinker_flops(model: OmniModel, tokens: float, supervised: float, squares: float) -> float:
    """Of the forward pass of a row: 2 for each weight and token, and attention's own.

    Args:
        squares: sum over segments of tokens times the tokens they see, the causal half included.
    """
    config = model.thinker.config
    layers = model.thinker.get_decoder().layers
    active = sum(p.numel() * _share_used(name, config) for name, p in layers.named_parameters())
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = 4.0 * squares / 2 * heads * head_dim * config.num_hidden_layers
    head = 2.0 * supervised * config.vocab_size * config.hidden_size
    return 2.0 * active * tokens + attention + head


def _share_used(name: str, config: Any) -> float:
    """Of a weight's, how many a token meets: of experts only those that are chosen."""
    chosen = getattr(config, "num_experts_per_tok", None)
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    return chosen / experts if chosen and experts and "experts" in name else 1.0


def passes(part: nn.Module) -> float:
    """Forward and backward pass, in forward passes: a frozen part hands gradients on only."""
    weights = [(p.numel(), p.requires_grad) for p in part.parameters()]
    total = sum(count for count, _ in weights)
    trained = sum(count for count, is_trained in weights if is_trained)
    return 2.0 + trained / max(1, total)


def parts_table(model: OmniModel) -> dict[str, dict[str, int]]:
    """Weights by part: trained and frozen. Adapters count as what they are: trained weights."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for name, part in model.parts().items():
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in part.parameters())
        table[name] = {"trained": trained, "frozen": whole - trained}
    return dict(table)


def meta_copy(encoder: Encoder) -> nn.Module:
    """The encoder's module without values."""
    with torch.device("meta"):
        return encoder.build().eval()
