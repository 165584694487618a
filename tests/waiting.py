"""Waits for what happens, not for seconds: on a busy machine these are long or short."""

import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0  # seconds; only a test that fails waits so long


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Waits for what another process or thread does; returns what the condition gives."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"in vain for {seconds:g} s"
        time.sleep(0.01)
    return found


def held_after(scheduler: Any, turns: int) -> threading.Event:
    """Lets a scheduler wait for the event after so many turns."""
    turn, left, goes_on = scheduler.turn, iter(range(turns)), threading.Event()

    def held() -> None:
        if next(left, None) is None:
            goes_on.wait(PATIENCE)
        turn()

    scheduler.turn = held
    return goes_on
