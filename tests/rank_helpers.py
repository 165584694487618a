"""Several processes that run a function together, as torchrun would have started them."""

import faulthandler
import io
import multiprocessing
import os
import socket
import sys
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from omnitune.training import checkpoint

SECONDS = 400.0  # after which a rank tells where it is and ends
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="the test forks its ranks")


def hold_port() -> socket.socket:
    """A free port that the system gives to nobody else while this is open.

    It does not listen, so that rank 0 may: both allow the other to use the address.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def whole(found: list[Any]) -> list[Any]:
    """What the ranks returned, none of which may have failed."""
    problems = [f"rank {n}: {x}" for n, x in enumerate(found) if x is None or isinstance(x, str)]
    assert not problems, "\n".join(problems)
    return found


def on_ranks(count: int, function: Callable[[int], Any], seconds: float = SECONDS) -> list[Any]:
    """What a function returns on each rank; what it raises there is returned as its traceback.

    A rank that is killed returns None.
    """
    with hold_port() as held:
        return _on_ranks(count, held.getsockname()[1], function, seconds)


def _on_ranks(count: int, port: int, function: Callable[[int], Any], seconds: float) -> list[Any]:
    context, pipes, others = multiprocessing.get_context("fork"), [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (rank, count, port, function, theirs)
        others.append(context.Process(target=_be_a_rank, args=arguments))
        others[-1].start()
        theirs.close()
        pipes.append(ours)
    found: list[Any] = [f"nothing within {seconds} s"] * count
    waiting, until = dict(zip(pipes, range(count), strict=True)), time.monotonic() + seconds
    while waiting and (ready := wait(list(waiting), until - time.monotonic())):
        for pipe in ready:
            rank = waiting.pop(pipe)  # type: ignore[call-overload]
            found[rank] = _received(pipe)  # type: ignore[arg-type]
    for other in others:
        other.join(20)
        if other.is_alive():
            other.kill()
            other.join()
    return found


def _received(pipe: Connection) -> Any:
    try:
        return torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
    except EOFError:
        return None


def _be_a_rank(
    rank: int, count: int, port: int, function: Callable[[int], Any], pipe: Connection
) -> None:
    os.environ.update(environment(rank, count, port))
    torch.set_num_threads(1)
    checkpoint._WRITER = ThreadPoolExecutor(1)  # the thread of the other was not forked
    faulthandler.dump_traceback_later(SECONDS - 10, exit=True)
    try:
        whole = io.BytesIO()
        torch.save(function(rank), whole)  # a pipe would share tensors' memory, which ends here
        pipe.send_bytes(whole.getvalue())
    except BaseException:
        whole = io.BytesIO()
        torch.save(traceback.format_exc(), whole)
        pipe.send_bytes(whole.getvalue())
    finally:
        pipe.close()
        sys.stdout.flush()
        os._exit(0)  # what gloo does at the end of a process is its own affair


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are there at a time, whatever the allocator does."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.sizes: dict[int, int] = {}
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        resize = torch.UntypedStorage.resize_  # by which torch lets go of what it has gathered

        def noted(memory: torch.UntypedStorage, size: int) -> None:
            resize(memory, size)
            self._note(memory)

        self.patch.setattr(torch.UntypedStorage, "resize_", noted)
        return super().__enter__()

    def __exit__(self, *of_error: Any) -> None:
        self.patch.undo()
        super().__exit__(*of_error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((found, args, kwargs)):
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                own = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
                self._note(own.untyped_storage())
        return found

    def _note(self, memory: torch.UntypedStorage) -> None:
        if id(memory) not in self.sizes:
            weakref.finalize(memory, self._forget, id(memory))
        self.now += memory.nbytes() - self.sizes.get(id(memory), 0)
        self.sizes[id(memory)] = memory.nbytes()
        self.most = max(self.most, self.now)

    def _forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)
