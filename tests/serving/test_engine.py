"""Who waits for whom: fair turns, free places, a line with an end, faults that stay alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from helpers import tiny_model, tiny_renderer
from waiting import held_after

from omnitune import ChatModel
from omnitune.sample import UserError
from omnitune.serving import decoding
from omnitune.serving.decoding import Sampling
from omnitune.serving.engine import Engine
from omnitune.serving.prompts import Turn
from omnitune.serving.scheduler import BusyError, Job, Scheduler
from omnitune.serving.served import Limits, Served


@pytest.fixture(scope="module")
def model() -> ChatModel:
    found = ChatModel(tiny_model(max_positions=512), tiny_renderer())
    found.renderer.ends = frozenset()  # answers last as long as they may
    return found


def scheduler_of(model: ChatModel, **rest: Any) -> Scheduler:
    return Scheduler(model.model, model.renderer, **rest)


def jobs_of(
    scheduler: Scheduler, model: ChatModel, lengths: Sequence[int], text: str = "what is {}?"
) -> list[Job]:
    return [
        scheduler.job(
            model.prompts.prompt([Turn("user", text.replace("{}", str(n)))]), Sampling(length)
        )
        for n, length in enumerate(lengths)
    ]


def test_a_late_one_gets_its_first_token_at_once(model: ChatModel) -> None:
    scheduler = scheduler_of(model)
    scheduler.submit(jobs_of(scheduler, model, [100] * 12))
    for _ in range(5):
        scheduler.turn()
    [late] = jobs_of(scheduler, model, [3])
    scheduler.submit([late])
    scheduler.turn()
    assert len(late.told) == 1
    assert {len(job.told) for job in scheduler.running.values() if job is not late} == {6}


def test_eight_together_take_the_steps_of_one(model: ChatModel) -> None:
    """So throughput grows with the clients as far as a step takes no longer for more of them."""
    steps: list[int] = []
    hook = model.model.thinker.get_decoder().register_forward_hook(lambda *_: steps.append(1))
    taken = []
    try:
        for count in (1, 8):
            scheduler = scheduler_of(model)
            scheduler.submit(jobs_of(scheduler, model, [20] * count))
            while not scheduler.idle:
                scheduler.turn()
            taken.append(len(steps))
            steps.clear()
    finally:
        hook.remove()
    assert taken == [20, 20]


def test_first_come_first_served(model: ChatModel) -> None:
    scheduler = scheduler_of(model, most_rows=2)
    jobs = jobs_of(scheduler, model, [4, 2, 3, 1, 2])
    scheduler.submit(jobs)
    began: list[Job] = []
    while not scheduler.idle:
        scheduler.turn()
        began += [job for job in jobs if job.told and job not in began]
        assert len(scheduler.running) <= 2
    assert began == jobs
    assert [len(job.told) for job in jobs] == [4, 2, 3, 1, 2]


def test_a_long_prompt_does_not_let_the_others_wait_for_more(model: ChatModel) -> None:
    """Of many long prompts at once, some are read between two tokens of the others."""
    scheduler = scheduler_of(model)
    scheduler.submit(jobs_of(scheduler, model, [50]))
    scheduler.turn()
    scheduler.submit(jobs_of(scheduler, model, [2] * 12, "the sky is the air above us. {}" * 20))
    scheduler.turn()
    assert 0 < len(scheduler.waiting) < 12


def test_the_cache_is_not_filled_beyond_its_room(model: ChatModel) -> None:
    scheduler = scheduler_of(model, most_positions=200)
    jobs = jobs_of(scheduler, model, [40] * 8)
    scheduler.submit(jobs)
    most = 0
    while not scheduler.idle:
        scheduler.turn()
        rows = [job.row for job in scheduler.running.values()]
        most = max(most, len(rows) * max((row.most_positions for row in rows), default=0))
    assert 0 < most <= 200
    assert all(len(job.told) == 40 for job in jobs)


def test_a_full_line(model: ChatModel) -> None:
    scheduler = scheduler_of(model, most_rows=2, most_waiting=3)
    scheduler.submit(jobs_of(scheduler, model, [5] * 5))
    with pytest.raises(BusyError, match=r"requests wait already.*ask again in \d+ s"):
        scheduler.submit(jobs_of(scheduler, model, [1]))
    while not scheduler.idle:
        scheduler.turn()
    scheduler.submit(jobs_of(scheduler, model, [1]))


def test_who_hangs_up_frees_the_place(model: ChatModel) -> None:
    scheduler = scheduler_of(model, most_rows=2)
    first, second, third = jobs_of(scheduler, model, [300, 300, 2])
    scheduler.submit([first, second, third])
    scheduler.turn()
    assert not third.told
    first.cancel()
    scheduler.turn()
    scheduler.turn()
    assert third.told
    assert not first.told[3:]


def test_who_hangs_up_in_line_is_passed_over(model: ChatModel) -> None:
    scheduler = scheduler_of(model, most_rows=1)
    jobs = jobs_of(scheduler, model, [2, 9, 2])
    scheduler.submit(jobs)
    jobs[1].cancel()
    while not scheduler.idle:
        scheduler.turn()
    assert [len(job.told) for job in jobs] == [2, 0, 2]


def test_a_prompt_that_cannot_be_read_ends_alone(model: ChatModel) -> None:
    scheduler = scheduler_of(model)
    jobs = jobs_of(scheduler, model, [3, 3, 3])
    jobs[1].item.rendered.tokens[2] = 10**6  # no such token
    scheduler.submit(jobs)
    while not scheduler.idle:
        scheduler.turn()
    assert [len(job.told) for job in jobs] == [3, 0, 3]
    assert isinstance(jobs[1].error, IndexError)


def test_a_fault_in_a_step_ends_who_is_in_it(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = scheduler_of(model, most_rows=2)
    jobs = jobs_of(scheduler, model, [4, 4, 4])
    scheduler.submit(jobs)
    scheduler.turn()
    with monkeypatch.context() as patch:
        patch.setattr(type(model.model), "embed", lambda *_: torch.zeros(1) / "no")
        scheduler.turn()
    while not scheduler.idle:
        scheduler.turn()
    assert [isinstance(job.error, TypeError) for job in jobs] == [True, True, False]
    assert len(jobs[2].told) == 4


def test_who_hangs_up_while_a_step_is_computed_is_not_the_others_end(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = scheduler_of(model)
    one, other = jobs_of(scheduler, model, [6, 6])
    scheduler.submit([one, other])
    step = decoding.decode_step
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_step", lambda *given: (other.cancel(), step(*given))[1])
        scheduler.turn()
    while not scheduler.idle:
        scheduler.turn()
    assert (one.finish, len(one.told), one.error) == ("length", 6, None)
    assert len(other.told) == 1


def test_whose_last_token_was_drawn_hears_of_a_fault_before_it_was_told(model: ChatModel) -> None:
    scheduler = scheduler_of(model)
    one, other = jobs_of(scheduler, model, [3, 1])
    told: list[bool] = []
    other.on_change = lambda job, piece: told.append(job.done)
    one.wording.add = lambda token: [][token]  # type: ignore[method-assign]
    scheduler.submit([one, other])
    scheduler.turn()
    assert told == [True]
    assert isinstance(one.error, IndexError)
    assert isinstance(other.error, IndexError)
    assert scheduler.idle


@asynccontextmanager
async def started(scheduler: Scheduler) -> AsyncIterator[Engine]:
    engine = Engine(scheduler)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def test_the_loop_is_told_of_every_token(model: ChatModel) -> None:
    async def talk() -> None:
        async with started(scheduler_of(model)) as engine:
            item = model.prompts.prompt([Turn("user", "hello")])
            for streams in (True, False):
                jobs = [engine.job(item, Sampling(9), (), streams) for _ in range(2)]
                engine.submit(jobs)
                found = [change async for change in engine.answers(jobs)]
                for job in jobs:
                    own = [change for change in found if change.job is job]
                    assert [change.done for change in own] == [False] * (len(own) - 1) + [True]
                    assert len(own) == (9 if streams else 1)
                    assert job.text == model.chat("hello", max_new_tokens=9)
                    if streams:
                        assert "".join(change.piece for change in own) == job.text
            assert not engine._queues
            assert not engine._streams

    asyncio.run(talk())


def test_who_stops_listening_leaves(model: ChatModel) -> None:
    async def talk() -> None:
        scheduler = scheduler_of(model)
        goes_on = held_after(scheduler, 1)
        async with started(scheduler) as engine:
            item = model.prompts.prompt([Turn("user", "hello")])
            jobs = [engine.job(item, Sampling(400), (), True)]
            engine.submit(jobs)
            changes = engine.answers(jobs)
            await anext(changes)
            await changes.aclose()  # type: ignore[attr-defined]
            goes_on.set()
            while not engine.scheduler.idle:
                await asyncio.sleep(0.01)
            assert len(jobs[0].told) == 1

    asyncio.run(talk())


def test_a_server_that_stops_says_so(model: ChatModel) -> None:
    async def talk() -> None:
        scheduler = scheduler_of(model)
        goes_on = held_after(scheduler, 2)
        engine = Engine(scheduler)
        engine.start()
        jobs = [engine.job(model.prompts.prompt([Turn("user", "a")]), Sampling(400), (), False)]
        engine.submit(jobs)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        while not engine._stopping:
            await asyncio.sleep(0.01)
        goes_on.set()
        await stopping
        assert isinstance(jobs[0].error, RuntimeError)
        assert not engine.alive

    asyncio.run(talk())


def test_a_full_line_is_told_before_media_are_encoded(model: ChatModel) -> None:
    served = Served("tiny", model, Limits(waiting=1, rows=1))
    item = served.prompt([Turn("user", "a")])
    served.engine.scheduler.submit(served.jobs(item, Sampling(5), 2))
    with pytest.raises(BusyError):
        served.prompt([Turn("user", "a")])
    with pytest.raises(UserError, match="n is 9"):
        served.jobs(item, Sampling(5), 9)
