"""Work that ranks may share: the same list of pieces on each, and every result on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Shares out pieces of work and returns the result of each, in order, on every rank.
Deal = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


def _alone(function: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
    return [function(piece) for piece in pieces]


_deal: ContextVar[Deal] = ContextVar("deal", default=_alone)


def dealt(function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """The function of each piece, in order; where ranks share work each computes some of them."""
    return _deal.get()(function, pieces)


@contextmanager
def dealing(deal: Deal) -> Iterator[None]:
    """Work within is dealt; all ranks have to come upon the same pieces in the same order."""
    token = _deal.set(deal)
    try:
        yield
    finally:
        _deal.reset(token)
