"""Batches one ahead: the same ones, in order, with their errors where they are asked for."""

import threading
import time

import pytest

from omnitune.training.prefetch import Prefetcher


def test_numbers_come_in_order_and_one_ahead() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    with Prefetcher(make, stop=5) as ahead:
        assert [ahead(n) for n in range(5)] == [0, 1, 4, 9, 16]
    assert made == list(range(5))  # none past the last, none twice


def test_another_number_than_the_next_may_be_asked_for() -> None:
    with Prefetcher(lambda n: n, stop=100) as ahead:
        assert [ahead(n) for n in (7, 8, 3, 4, 99)] == [7, 8, 3, 4, 99]


def test_errors_come_with_their_number() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("record 2")
        return number

    with Prefetcher(make, stop=9) as ahead:
        assert [ahead(0), ahead(1)] == [0, 1]
        with pytest.raises(ValueError, match="record 2"):
            ahead(2)
        assert ahead(3) == 3


def test_interrupt_leaves_no_thread_behind() -> None:
    def make(number: int) -> int:
        time.sleep(0.01)
        return number

    def interrupted() -> None:
        with Prefetcher(make, stop=9) as ahead:
            ahead(0)
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("feed")]
