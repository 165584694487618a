"""What subcommands share: how one is made of its options, and its help."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from omnitune.config.base import C, Config
from omnitune.config.help import asks_for_help, help_text
from omnitune.config.settings import load_config

Command = Callable[[list[str]], int]
SETTINGS = "Settings, which are also the keys of the configuration file"


def about(command: Callable[[Any], int]) -> str:
    """What a subcommand does, in a sentence."""
    return (command.__doc__ or "").partition("\n")[0]


def print_help(
    command: Callable[[Any], int], sections: dict[str, type[Config]], note: str = ""
) -> int:
    print(help_text(command.__name__, about(command), sections, note))
    return 0


def takes(options: type[C]) -> Callable[[Callable[[C], int]], Command]:
    """Makes a subcommand of what is done with its options: reads them, or lists them if asked."""

    def command_of(function: Callable[[C], int]) -> Command:
        @wraps(function)
        def command(arguments: list[str]) -> int:
            if asks_for_help(arguments):
                return print_help(function, {"Options": options})
            return function(load_config(options, None, arguments))

        return command

    return command_of
