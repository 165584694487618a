"""What a user should know of their files though they can be read: told once."""

from __future__ import annotations

import sys
from functools import lru_cache


@lru_cache(maxsize=1024)
def note(text: str) -> None:
    """Tells something; on standard error, as standard output may be read as JSON."""
    print(f"note: {text}", file=sys.stderr, flush=True)
