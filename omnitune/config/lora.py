"""The settings of adapters: what they are added to, how large they are, how they learn."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from omnitune.config.base import Config, Rate

THINKER = "thinker"


def _check_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    return text


PartName = Annotated[str, Field(title="PART")]
Regex = Annotated[str, AfterValidator(_check_regex), Field(title="REGEX")]


class LoraSettings(Config):
    """Low-rank adapters beside frozen weights (Hu et al. 2021, "LoRA")."""

    other_names: ClassVar[dict[str, str]] = {
        "rank": "r",
        "lora_r": "r",
        "lora_rank": "r",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "target_modules": "targets",
        "use_dora": "dora",
        "use_rslora": "rslora",
        "lr": "learning_rate",
    }

    r: int = Field(16, ge=1, le=65_536)
    """rank of the matrices that are added to each layer"""
    alpha: float = Field(32.0, gt=0)
    """what is added is scaled by alpha / r"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """share of an adapted layer's inputs that its adapter does not see in a training step"""
    targets: dict[PartName, Regex | None] = Field({THINKER: None}, title="REGEX")
    """layers to adapt: a regular expression for their names or the ends of them (q_proj|v_proj); of
    several parts an object such as {"thinker": null, "vision_encoder": "fc1|fc2"}, where null is
    all linear layers [default: all linear layers of the thinker but its head]"""
    modules_to_save: list[Regex] = Field([])
    """modules of the thinker to train whole beside the adapters, each a regular expression as in
    targets, separated by commas; embed_tokens for the embeddings"""
    dora: bool = False
    """train the length of each row of the weights apart from its direction (DoRA)"""
    rslora: bool = False
    """scale by alpha / sqrt(r) instead (rsLoRA), for large ranks"""
    learning_rate: Rate = 3e-4
    """peak learning rate of the adapters"""

    @field_validator("targets", mode="before")
    @classmethod
    def _of_the_thinker(cls, value: Any) -> Any:
        """One expression, or none, is for the thinker."""
        return {THINKER: value} if value is None or isinstance(value, str) else value

    @field_validator("targets")
    @classmethod
    def _name_a_part(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        if not value:
            raise ValueError("names no part; leave lora out for a run without adapters")
        return value

    @field_validator("modules_to_save", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """On the command line: names with commas between them."""
        if not isinstance(value, str):
            return value
        return [name.strip() for name in value.split(",") if name.strip()]
