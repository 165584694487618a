"""What every configuration shares: unknown keys are refused, and each setting knows its origin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeGuard, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from omnitune.sample import LANGUAGE_CODE

COMMAND_LINE = "command line"
MISSING = "a value is missing"
CHECKPOINTS = Path("checkpoints")  # where parts and runs lie unless another folder is given

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Rate = Fraction  # of learning
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]  # what every generator takes

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration: unknown keys are refused.

    A field's docstring is its text in the help. A field may have an alias, which is then its key
    and its option.

    Attributes:
        positional: the field that takes the words without an option in front, if there is one.
        own_options: names that the command takes beside these settings, for hints.
        other_names: what other programs call settings, by that name the own one, for hints.
    """

    model_config = ConfigDict(
        extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    positional: ClassVar[str] = ""
    own_options: ClassVar[tuple[str, ...]] = ()
    other_names: ClassVar[dict[str, str]] = {}
    _origin: dict[str, str] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Settings are the same wherever they were given."""
        return isinstance(other, Config) and vars(self) == vars(other)

    @field_validator("*", mode="before")
    @classmethod
    def _no_value_is_missing(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty text is no path: it would be the folder where the command is given."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        is_path = annotation is Path or Path in get_args(annotation)
        several = value.values() if isinstance(value, dict) else value
        if is_path and (value == "" or (isinstance(value, list | dict) and "" in several)):
            raise ValueError(MISSING)
        is_switch = bool in (annotation, *get_args(annotation))
        return value if is_switch else refuse_bool(value)

    def moved(self: C, folder: Path) -> C:
        """The settings with every default path in ``checkpoints`` in another folder instead."""
        paths = {
            name: folder / value.relative_to(CHECKPOINTS)
            for name, value in self
            if isinstance(value, Path) and not self._origin.get(name)
            if value.is_relative_to(CHECKPOINTS)
        }
        return self.model_copy(update=paths)

    def where(self, section: str, key: str) -> str:
        """Where a setting in a section was given: file and line, command line or the defaults."""
        place = self._origin.get(f"{section}.{key}") or self._origin.get(section)
        others = any(name.startswith(f"{section}.") for name in self._origin)
        if place == COMMAND_LINE and others and f"{section}.{key}" not in self._origin:
            place = None  # laid over the defaults
        if place == COMMAND_LINE:
            return f"--{section}.{key}".replace("_", "-") + " on the command line"
        name = f'"{key}" in "{section}"'
        if not place:
            return f"the default of {name}"
        text = Path(place).read_text(encoding="utf-8-sig")
        first = text.find(f'"{section}"')
        found = re.compile(rf'"{key}"\s*:').search(text, max(0, first))
        line = f", line {text.count(chr(10), 0, found.start()) + 1}" if found else ""
        return f"{place}{line}: {name}"


def is_config(annotation: Any) -> TypeGuard[type[Config]]:
    """Whether a type is a configuration, such as that of a phase."""
    return isinstance(annotation, type) and issubclass(annotation, Config)


def refuse_bool(value: Any) -> Any:
    """Refuses ``true``, which is no 1: it is how an option without its value is read."""
    if isinstance(value, bool):
        raise ValueError(MISSING)
    return value


def split_names(value: Any) -> Any:
    """The names in a text with commas between them; anything else as it is."""
    if not isinstance(value, str):
        return value
    return [name.strip() for name in value.split(",") if name.strip()]


def check_language(code: str) -> str:
    """A language code, such as ``hi`` or ``pt-BR``.

    Raises:
        ValueError: it cannot be one.
    """
    if not LANGUAGE_CODE.fullmatch(code):
        raise ValueError("expected a language code such as en, hi or pt-BR")
    return code


Language = Annotated[str, AfterValidator(check_language), Field(title="CODE")]
