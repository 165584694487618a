"""What is wrong for every process is printed by one of them."""

import signal
from pathlib import Path

import pytest
import torch.distributed as dist

from omnitune import cli
from omnitune.config.parallel import RESTARTS
from omnitune.distributed import telling
from omnitune.distributed.watch import LostRankError
from omnitune.sample import UserError
from omnitune.training import stopping

WRONG = UserError("batch_sise: unknown key")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """A store as torchrun keeps it, and what it tells a rank of it."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
    for name, value in (given | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    return store


def tells(monkeypatch: pytest.MonkeyPatch, error: Exception, rank: int, start: int = 0) -> bool:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv(RESTARTS, str(start))
    return telling.is_first_to_tell(error, str(error))


@pytest.mark.usefixtures("agent")
def test_a_mistake_is_told_by_one_rank_and_at_one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [tells(monkeypatch, WRONG, rank, start) for start in (0, 1) for rank in (1, 0)]
    assert said == [True, False, False, False]
    assert tells(monkeypatch, UserError("another one"), 0, 1)


@pytest.mark.usefixtures("agent")
def test_what_may_be_over_at_the_next_start_is_told_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in (LostRankError("rank 0 lost another rank"), RuntimeError("a fault")):
        assert all(tells(monkeypatch, error, 0, start) for start in (0, 1))


def test_where_nobody_can_be_asked_each_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tells(monkeypatch, WRONG, 0)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert tells(monkeypatch, WRONG, 1)


@pytest.mark.usefixtures("agent")
def test_the_command_prints_a_mistake_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "wrong.json").write_text('{"batch_sise": 3}', encoding="utf-8")
    before = {number: signal.getsignal(number) for number in stopping.STATUS}
    try:
        for rank in (0, 1):
            monkeypatch.setenv("RANK", str(rank))
            assert cli.main(["sft", "--config", str(tmp_path / "wrong.json")]) == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err.count("batch_sise: unknown key") == 1
