"""A function that runs in a process of its own, of which nothing stays in this one."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from omnitune.sample import UserError

T = TypeVar("T")


def can_fork(device: torch.device) -> bool:
    """Whether a process that computes on this device can be forked from this one."""
    return sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_initialized()


def call_apart(function: Callable[[], T]) -> T:
    """What a function returns, computed in a forked process: nothing of it stays in this one.

    Raises:
        UserError: the function does. RuntimeError: it raises anything else, or is killed.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    other = context.Process(target=_answer, args=(function, theirs), daemon=True)
    other.start()
    theirs.close()
    try:
        found, problem = ours.recv()
    except EOFError:
        raise RuntimeError(
            "a process that was forked ended as if it had been killed (is there enough memory?)"
        ) from None
    finally:
        ours.close()
        other.terminate()
        other.join()
    if problem is not None:
        raise problem
    return found


def _answer(function: Callable[[], Any], pipe: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):  # the process that forked this one hears it
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # those of a pool are not forked
    try:
        pipe.send((function(), None))
    except UserError as error:
        pipe.send((None, error))
    except Exception:
        pipe.send((None, RuntimeError(traceback.format_exc())))
