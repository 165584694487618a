"""The ranks that were started together find each other, in a store that may remember earlier ones.

``torchrun`` on each machine counts its restarts by itself, so the counts differ where a machine was
lost and came back: they cannot tell which ranks belong together. Rank 0 opens a meeting under a
name that was never used, each other rank answers with a name of its own, and rank 0 closes the
list. A rank that does not find its name in the list has met a rank 0 of before, and waits on.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from omnitune.sample import UserError

_OPEN = "omnitune/meeting"  # name of the newest meeting
_PAUSE = 0.1  # seconds between two looks
_NAMED = 8  # ranks that a message names, at most


class NoMeetingError(UserError):
    """Not all ranks have come."""


def meet(store: dist.Store, rank: int, size: int, limit: timedelta) -> dist.Store:
    """A part of the store that belongs to these ranks alone.

    Raises:
        NoMeetingError: some of them do not come within the limit.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + limit.total_seconds()
    if rank == 0:
        _hold(store, own, size, deadline)
        return dist.PrefixStore(own, store)
    return dist.PrefixStore(_attend(store, own, rank, deadline), store)


def _hold(store: dist.Store, name: str, size: int, deadline: float) -> None:
    """Opens a meeting and closes its list when all others have answered."""
    store.set(_OPEN, name)
    missing, found = list(range(1, size)), {}
    while missing:
        for other in [other for other in missing if store.check([f"{name}/{other}"])]:
            found[other] = store.get(f"{name}/{other}").decode()
            missing.remove(other)
        if missing and time.monotonic() > deadline:
            named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if missing[_NAMED:] else "")
            raise NoMeetingError(
                f"rank 0 waited in vain for {len(missing)} of {size} ranks to start ({named}); see "
                "what torchrun says on their machines"
            )
        if missing:
            time.sleep(_PAUSE)
    store.set(f"{name}/all", json.dumps(list(found.values())))


def _attend(store: dist.Store, own: str, rank: int, deadline: float) -> str:
    """Answers to the newest meeting, again where a newer one opens; returns its name."""
    answered = ""
    while time.monotonic() < deadline:
        name = store.get(_OPEN).decode() if store.check([_OPEN]) else ""
        if name != answered:
            store.set(f"{name}/{rank}", own)
            answered = name
        listed = f"{name}/all"
        if name and store.check([listed]) and own in json.loads(store.get(listed)):
            return name
        time.sleep(_PAUSE)
    raise NoMeetingError(
        f"rank {rank} waited in vain for rank 0 to start; see what torchrun says on its machine"
    )
