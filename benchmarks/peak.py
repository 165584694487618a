"""The rate of a matrix product, which is taken as the peak of a machine."""

from __future__ import annotations

import time

import torch

MATMUL_SIZES = (128, 512, 2048)
MATMUL_SIZES_ON_GPU = (2048, 8192)


def matmul_rate(
    dtype: torch.dtype, device: torch.device | str = "cpu", seconds: float = 0.1
) -> float:
    """Best rate (FLOP/s) of a square matrix product, of growing size, in about so many seconds.

    Without bf16 units a large product would take a minute: a small one tells first. The best of
    many counts, as other work on the machine makes single ones slow.
    """
    best = 0.0
    sizes = MATMUL_SIZES if torch.device(device).type == "cpu" else MATMUL_SIZES_ON_GPU
    for size in sizes:
        a, b = (torch.rand(size, size, device=device).to(dtype) for _ in "ab")
        ends = time.perf_counter() + seconds / len(sizes)
        fastest = min(_timed_product(a, b) for _ in range(3))  # the first builds the kernel
        while time.perf_counter() < ends:
            fastest = min(fastest, _timed_product(a, b))
        best = max(best, 2 * size**3 / fastest)
        if fastest * 64 > 4 * seconds:  # the next is 64 times the work
            break
    return best


def _timed_product(a: torch.Tensor, b: torch.Tensor) -> float:
    started = time.perf_counter()
    a @ b
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    return time.perf_counter() - started
