"""Teach a text language model to see and hear."""

from pkgutil import resolve_name
from typing import Any

from omnitune.hooks import install

__version__ = "0.1.0"

# Named, not imported: they lie above, and torch takes seconds to load.
_LATER = {
    "load_model": "omnitune.serving.python:load_model",
    "ChatModel": "omnitune.serving.python:ChatModel",
}

install()


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'omnitune' has no attribute {name!r}")
    return resolve_name(_LATER[name])


def __dir__() -> list[str]:
    return [*globals(), *_LATER]
