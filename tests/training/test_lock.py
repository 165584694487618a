"""Two runs never write to one folder, and a dead one keeps nobody out."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnitune.sample import UserError
from omnitune.training.lock import lock, owner, refuse, unlock

HOLD = "import sys, pathlib; from omnitune.training.lock import lock; "
HOLD += "lock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_run_is_refused_by_name(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    assert owner(tmp_path).startswith(f"process {other.pid} on ")
    with pytest.raises(UserError, match=rf"another run is training into it \(process {other.pid}"):
        lock(tmp_path)
    with pytest.raises(UserError, match="another run"):
        refuse(tmp_path, owner(tmp_path))


def test_a_killed_run_keeps_nobody_out(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    other.kill()
    other.wait()
    assert owner(tmp_path) == ""
    lock(tmp_path)
    lock(tmp_path)  # its own
    unlock(tmp_path)


def test_an_unlocked_folder_is_free(tmp_path: Path) -> None:
    assert owner(tmp_path) == ""
    lock(tmp_path)
    assert owner(tmp_path) == ""  # this process
    unlock(tmp_path)
    lock(tmp_path)
    unlock(tmp_path)
