"""What is wrong with several records or files, told at once."""

from __future__ import annotations

from pathlib import Path

from omnitune.sample import UserError

NAMED = 5  # of a file's wrong records
COUNTED = 1000  # more are not looked for


class Faults:
    """Collects the errors that its ``with`` blocks end in, and raises them as one.

    Args:
        path: of the file that all of them name first; None where each names its own.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.start = f"{path}: " if path else ""
        self.told: list[str] = []
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Takes in a UserError, and lets any other pass."""
        if not isinstance(error, UserError):
            return False
        self.take(error)
        return True

    def take(self, error: UserError) -> None:
        """Takes in an error; raises all of them as one when there are very many."""
        self.count += 1
        if len(self.told) < NAMED:
            self.told.append(str(error).removeprefix(self.start))
        if self.count >= COUNTED:
            self.tell()

    def join(self, others: Faults) -> None:
        """Takes in what others have collected since; raises all as one when they are very many."""
        self.told += others.told[: NAMED - len(self.told)]
        self.count = min(COUNTED, self.count + others.count)
        if self.count >= COUNTED:
            self.tell()

    def tell(self) -> None:
        """Raises a UserError if anything was wrong."""
        if not self.count:
            return
        more = self.count - len(self.told)
        least = "at least " if self.count >= COUNTED else ""
        rest = [f"and {least}{more:,} more"] if more else []
        raise UserError(self.start + "\n  ".join([*self.told, *rest]))
