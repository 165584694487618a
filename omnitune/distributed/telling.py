"""A mistake that all processes meet before they have met each other is told once."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

from omnitune.config.parallel import RESTARTS, own_rank, world_size
from omnitune.sample import UserError

ASKING = timedelta(seconds=10)


def is_first_to_tell(error: Exception, reason: str) -> bool:
    """Whether this process shall tell of an error: no other one has, nor did an earlier start.

    Errors of the moment, such as a lost rank, are told each time. So is everything where torchrun
    keeps no store that can be asked.
    """
    if world_size() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    import torch.distributed as dist  # where nothing is wrong before it, no time is lost

    from omnitune.distributed.meeting import NoMeetingError
    from omnitune.distributed.watch import HangError, LostRankError

    if not isinstance(error, UserError | OSError):
        return True
    if isinstance(error, NoMeetingError | HangError | LostRankError):
        return True
    key = f"omnitune/told/{hashlib.sha256(reason.encode()).hexdigest()}"
    own = f"rank {own_rank()} of start {os.environ.get(RESTARTS, '0')}"
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=ASKING)
        return store.compare_set(key, "", own).decode() == own
    except (KeyError, ValueError, RuntimeError):
        return True
