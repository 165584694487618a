"""Packages that some containers need and that are not always installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from omnitune.sample import UserError


def optional(name: str, why: str) -> Any:
    """A module of a package of the extra ``data``.

    Args:
        why: begins the error where it is missing.

    Raises:
        UserError: it is not installed; says how to have it.
    """
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(
            f"{why}, and the package {package} is not installed; install the extra that has it: "
            'pip install "omnitune[data]"'
        ) from None
