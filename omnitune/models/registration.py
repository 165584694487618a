"""Makes the standard model known to transformers' Auto classes."""

from __future__ import annotations

from functools import cache

import transformers
from transformers import AutoConfig, AutoModel, AutoProcessor

from omnitune.models.processor import OmniProcessor
from omnitune.models.standard import OmniBackbone, OmniForConditionalGeneration
from omnitune.models.standard_config import MODEL_TYPE, OmniConfig

# The newer of these Auto classes are not in every version.
GENERATING = ("AutoModelForMultimodalLM", "AutoModelForImageTextToText")


@cache
def register() -> None:
    """Registers configuration, models and processor; once."""
    AutoConfig.register(MODEL_TYPE, OmniConfig, exist_ok=True)
    AutoProcessor.register(OmniConfig, OmniProcessor, exist_ok=True)
    AutoModel.register(OmniConfig, OmniBackbone, exist_ok=True)
    for name in GENERATING:
        if auto := getattr(transformers, name, None):
            auto.register(OmniConfig, OmniForConditionalGeneration, exist_ok=True)


def register_for_engines() -> None:
    """As ``register``, in the processes of vLLM, which calls it through an entry point.

    vLLM looks for the class that config.json names among the library's own, and nowhere else
    unless it may execute code that lies beside the weights.
    """
    register()
    model = OmniForConditionalGeneration
    setattr(transformers, model.__name__, model)
