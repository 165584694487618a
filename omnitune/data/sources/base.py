"""What a dialect is: how a program's records are written, and what they mean in our own words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omnitune.sample import UserError
from omnitune.sources import Source

Values = dict[str, Any]  # a JSON object


@dataclass(frozen=True)
class Origin:
    """Where a record comes from.

    Attributes:
        file: that it lies in.
        source: with its settings.
        wrong: makes an error that says which record.
    """

    file: Path
    source: Source
    wrong: Callable[[str], UserError]


class Dialect(ABC):
    """One way to write records: a pure function to ours (the keys of docs/data.md), and back.

    Paths of media stay as they are written. A medium that lies in the record itself (bytes, a data
    URI, base64) is named by :func:`omnitune.containers.address.inside`, a stretch of a sound by
    ``::t=START,STOP`` (seconds) behind its path.

    Attributes:
        name: key in ``DIALECTS``.
        title: as people call it.
        container: of its files, where neither their content nor their name tells; "" if it does.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    container: ClassVar[str] = ""

    @abstractmethod
    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether records are written so.

        Args:
            records: the first ones of a file, all of them objects.
        """

    @abstractmethod
    def native(self, record: Values, origin: Origin) -> Values:
        """A record in our own keys; whatever is of no use to us is left out.

        A record without a question has none here either: the source's prompt is put in later.

        Raises:
            UserError: made by ``origin.wrong``; says what was found, expected, and the mend.
        """

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """One of our records, as this dialect writes it.

        Raises:
            UserError: the dialect cannot say it.
        """
        raise UserError(f"records cannot be written as {self.title}; docs/data.md says what can")

    def passes_over(self, record: Any) -> bool:
        """Whether this is no record at all, such as a comment."""
        return False

    def unread(self, record: Values) -> list[str]:
        """Names of keys that are not read and may hold what a model should see or learn."""
        return []
