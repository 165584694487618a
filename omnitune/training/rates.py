"""Which weights learn at which rate."""

from __future__ import annotations

from omnitune.config.sft import SftConfig
from omnitune.models import adapters
from omnitune.models.omni import OmniModel


def peak_rates(config: SftConfig, model: OmniModel) -> dict[str, float]:
    """Peak rates of a model's weights, adapters among them, by prefix of the weight's name."""
    rates = learning_rates(config, model.thinker.config.hidden_size)
    if config.lora is None:
        return rates
    # First, as the first prefix that fits a weight counts.
    return dict.fromkeys(adapters.adapted_prefixes(model), config.lora.learning_rate) | rates


def learning_rates(config: SftConfig, width: int) -> dict[str, float]:
    """Peak rates by prefix of the weight's name.

    ``learning_rate`` is meant at ``lr_base_width``; a narrower thinker takes proportionally larger
    steps: Adam's best rate for hidden matrices goes as one over the width (Yang et al. 2022,
    "Tensor Programs V"). So one configuration serves the tiny thinker and a real one.
    """
    thinker = min(1.0, config.learning_rate * max(1.0, config.lr_base_width / width))
    return {
        "thinker": thinker,
        "proj": config.projector_learning_rate or min(1.0, 2.5 * thinker),
        "encoders": config.encoder_learning_rate or config.learning_rate,
    }
