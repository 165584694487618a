"""What the commands of the benchmarks have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps

from omnitune.sample import UserError

Arguments = Sequence[str] | None


def command(main: Callable[[Arguments], None]) -> Callable[..., int]:
    """A command whose user's mistakes are told in a sentence; gives the exit status."""

    @wraps(main)
    def run(arguments: Arguments = None) -> int:
        try:
            main(arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return run


def numbers(option: str, text: str) -> list[int]:
    """The whole numbers of an option, between commas.

    Raises:
        UserError: one of them is none.
    """
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: expected whole numbers, such as 0,1,2") from None
