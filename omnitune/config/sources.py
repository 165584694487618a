"""The settings of a run's own sources: where their records are, and how they are read."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from omnitune.config.base import Config, Count, Language, refuse_bool
from omnitune.config.settings import UNKNOWN_NAME
from omnitune.sources import SOURCES, Source

# Names of the own sources of the configuration that is being checked.
own_names: ContextVar[tuple[str, ...]] = ContextVar("own_names", default=())


def _check_source(name: str) -> str:
    """A source that is registered now, or one of the run's own."""
    known = [*SOURCES, *(own for own in own_names.get() if own not in SOURCES)]
    if name not in known:
        told = {"known": ", ".join(known)}
        raise PydanticCustomError(UNKNOWN_NAME, "unknown source; expected one of {known}", told)
    return name


def _check_new_name(name: str) -> str:
    if not name.strip() or not set(name).isdisjoint("/\\:*?[]{}"):
        raise ValueError("a name of letters, digits, - and _ is needed: files are named after it")
    if name in SOURCES:
        raise ValueError(f"{name} is a source of the embedded layout; give yours another name")
    return name


SourceName = Annotated[str, AfterValidator(_check_source), Field(title="SOURCE")]
NewName = Annotated[str, AfterValidator(_check_new_name), Field(title="NAME")]
Weight = Annotated[float, BeforeValidator(refuse_bool), Field(ge=0, allow_inf_nan=False)]
KeyName = Annotated[str, Field(title="KEY")]


class SourceSettings(Config):
    """One of a run's own sources."""

    path: str = Field(min_length=1)
    """file, folder or pattern (shards-*.tar) of the records"""
    format: str = ""
    """format of the records, such as llava or openai (docs/data.md) [default: as they look]"""
    weight: Weight = 1.0
    """sampling weight, as in data_mix"""
    task: str = ""
    """task of records that name none, such as transcription [default: as their media have it]"""
    prompt: list[str] = Field([])
    """question of records that have none, such as "Transcribe the speech."; each record gets one of
    several"""
    columns: dict[KeyName, str] = Field({})
    """by key of a record (image, audio, question, answer, transcript, split, ...), the name that
    these records have for it"""
    limit: Count | None = None
    """number of records to read, from the first on [default: all]"""
    split: str = ""
    """split that all of these records are in, such as test; auto holds out five in a hundred
    [default: as they, or their files, say, else auto]"""
    language: Language | None = None
    """language code of the answers of records that name none, such as hi"""
    media_dir: str = ""
    """folder that paths of media are relative to [default: that of the file, or one above it]"""
    allow_outside: bool = False
    """whether paths of media may be absolute, or lead out of that folder"""

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, value: Any) -> Any:
        """One text is a list of one."""
        return [value] if isinstance(value, str) else value

    def source(self, name: str, seed: int) -> Source:
        """What reads it."""
        return Source(
            name,
            path=self.path,
            format=self.format,
            task=self.task,
            prompts=tuple(self.prompt),
            columns=tuple(self.columns.items()),
            limit=self.limit,
            split=self.split,
            language=self.language or "",
            media_dir=self.media_dir,
            allow_outside=self.allow_outside,
            seed=seed,
        )
