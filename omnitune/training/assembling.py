"""The model of a run on each of its ranks, whose parts are read once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.data.template import ChatRenderer
from omnitune.distributed.protocol import Distributed
from omnitune.models import adapters
from omnitune.models.loading import assemble
from omnitune.models.omni import OmniModel
from omnitune.models.outline import Outline


def assemble_once(config: SftConfig, ranks: Distributed) -> tuple[OmniModel, ChatRenderer]:
    """The model on the CPU and its renderer.

    Rank 0 reads the parts, checks them and draws what is fresh, as one process does. The others
    build the same model from its settings and receive all but the thinker's weights, which have no
    values there until ``ranks.prepare`` brings each rank its share.

    Raises:
        UserError: a part is missing, damaged or does not fit; on the other ranks OfFirstRank.
    """
    made: list[tuple[OmniModel, ChatRenderer]] = []

    def read() -> tuple[Outline, Tensor] | None:
        model, renderer = assemble(
            config.thinker_ckpt,
            config.encoders,
            config.encoder_settings,
            config.projectors,
            config.chat_template,
        )
        if config.lora is not None:
            adapters.add_adapters(model, config.lora)
        made.append((model, renderer))
        alone = ranks.world_size == 1
        return None if alone else (Outline.of(model, renderer), torch.get_rng_state())

    told = ranks.on_first(read)
    if told is not None:
        outline, draws = told
        with ranks.in_turn():
            if not made:
                made.append(outline.build())
                torch.set_rng_state(draws)
        ranks.send(_beside_the_thinker(made[0][0]))
    return made[0]


def _beside_the_thinker(model: OmniModel) -> list[Tensor]:
    """Weights of encoders and projectors, and all buffers."""
    thinkers = {id(weight) for weight in model.thinker.parameters()}
    weights = [weight for weight in model.parameters() if id(weight) not in thinkers]
    return [*weights, *model.buffers()]


def bring_to_device(model: OmniModel, device: torch.device, ranks: Distributed) -> None:
    """Brings a model to the device: of several ranks' all but the thinker, which ``prepare`` does.

    So the device of a rank that holds a share of it never has the whole.
    """
    for module in model.children():
        if ranks.world_size == 1 or module is not model.thinker:
            nn.Module.to(module, device)
