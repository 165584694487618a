"""The options of ``omnitune chat``: apart from what they call, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from omnitune.config.base import Config
from omnitune.config.help import help_text
from omnitune.media.registry import MEDIA
from omnitune.serving import paths

MAX_NEW_TOKENS = 256
Pictures = Literal["auto", "kitty", "iterm", "sixel", "blocks", "none"]
CKPT_DIR = Path("checkpoints/omni_sft_tiny")
ABOUT = "Talks to a model: at a prompt, or once if --prompt or a file is given."
AFTER_A_MISTAKE = (
    "After a mistake in the input the exit status is 2, and standard error says what is wrong; "
    'with --json, standard output then holds {"error": ...}.'
)


class ChatOptions(Config):
    """Options of ``omnitune chat``, to which each modality adds one."""

    ckpt_dir: Path = CKPT_DIR
    """folder or file of the model"""
    prompt: str | None = None
    """text to answer, once; it may be empty beside a file [default: a conversation, unless a file
    is given]"""
    as_json: bool = Field(False, alias="json")
    """print the answer as one line of JSON"""
    max_new_tokens: int = Field(MAX_NEW_TOKENS, ge=1)
    """largest length of an answer in tokens"""
    system: str = ""
    """text that stands in front of the conversation, such as who the model is to be"""
    temperature: float = Field(0.0, ge=0, le=100)
    """0 takes the most likely token each time, more draws others"""
    timings: bool = False
    """say after each answer how long it took (/time switches it)"""
    pictures: Pictures = "auto"
    """how the terminal shows pictures; auto finds out which terminal it is"""


def chat_config() -> type[ChatOptions]:
    """The options of the chat: a file for each modality that there is now."""
    files: dict[str, Any] = {
        name: (
            Annotated[list[Path], BeforeValidator(_typed_paths)],
            Field([], title="FILE ...", description=f"{name} files to put before the text"),
        )
        for name in MEDIA
    }
    return create_model("ChatConfig", __base__=ChatOptions, **files)


def _typed_paths(value: Any) -> Any:
    if isinstance(value, list) and "" not in value:
        return [paths.path_of(path) for path in value]
    raise ValueError("a value is missing")


def chat_help() -> str:
    """What ``omnitune chat --help`` prints."""
    return help_text("chat", ABOUT, {"Options": chat_config()}, AFTER_A_MISTAKE)
