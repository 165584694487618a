"""Jobs beside one another: their order, their cores, their lines, and how they end together."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from omnitune.sample import UserError
from omnitune.storage import cores
from omnitune.tiny import side_by_side
from omnitune.tiny.side_by_side import Job, run_side_by_side
from omnitune.training.stopping import StoppedError

# Each notes in the file of its argument when it began and when it ended.
TIMED = """
import sys, time
from pathlib import Path
begin, own = time.monotonic(), Path(sys.argv[1])
own.with_suffix(".begun").touch()
def wait_for(count, pattern):
    until = time.monotonic() + 60
    while len(list(own.parent.glob(pattern))) < count:
        assert time.monotonic() < until, f"in vain for {{count}} of {{pattern}}"
        time.sleep(0.02)
{work}
own.write_text(f"{{begin}} {{time.monotonic()}}")
"""
# Goes on until it is told to end, takes its time, and notes how often it was told.
PATIENT = """
import signal, sys, time
from pathlib import Path
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
Path(sys.argv[1]).write_text("ready")
while not told:
    time.sleep(0.02)
time.sleep(0.3)
Path(sys.argv[1]).write_text(f"told {len(told)}")
"""


@pytest.fixture(params=[1, 2, 3])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many cores, or what looks like them."""
    monkeypatch.setattr(side_by_side, "cores", lambda: cores()[:1] * request.param)
    return int(request.param)


def job(folder: Path, name: str, work: str = "", **files: Path) -> Job:
    code = TIMED.format(work=work)
    return Job(name, [sys.executable, "-c", code, str(folder / name)], **files)


def patient(folder: Path, name: str = "patient") -> Job:
    return Job(name, [sys.executable, "-c", PATIENT, str(folder / name)])


def times(folder: Path, *names: str) -> list[tuple[float, float]]:
    spans = [(folder / name).read_text().split() for name in names]
    return [(float(begin), float(end)) for begin, end in spans]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)


def test_as_many_run_at_a_time_as_there_are_cores(tmp_path: Path, count: int) -> None:
    work = f"wait_for({count}, '*.begun'); time.sleep(0.3)"  # time for one more to begin
    run_side_by_side([job(tmp_path, name, work) for name in "abc"])
    spans = times(tmp_path, *"abc")
    together = max(sum(a <= begin < b for a, b in spans) for begin, _ in spans)
    assert together == count


def test_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(side_by_side, "cores", lambda: cores()[:1] * 5)
    run_side_by_side(
        [job(tmp_path, name, "import os; print(os.environ['OMP_NUM_THREADS'])") for name in "ab"]
    )
    assert sorted(capfd.readouterr().out.splitlines()) == ["a | 2", "b | 2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no processes")
def test_a_job_stays_on_its_cores_and_the_others_are_free_again(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = cores()
    run_side_by_side(
        [job(tmp_path, name, "import os; print(os.sched_getaffinity(0))") for name in "ab"]
    )
    lines = [line for line in capfd.readouterr().out.splitlines() if "{" in line]
    assert len(lines) == 2
    assert all(len(line.split(",")) <= max(1, len(before) // 2) for line in lines)
    assert cores() == before


def test_a_job_waits_for_the_new_file_of_another(tmp_path: Path, count: int) -> None:
    words = tmp_path / "words"
    words.write_text("of an earlier run")
    writes = f"time.sleep(0.4); Path({str(words)!r}).write_text('new')"
    if count > 1:
        writes += "; wait_for(1, 'reader.begun')"
    reads = f"assert Path({str(words)!r}).read_text() == 'new'"
    run_side_by_side(
        [
            job(tmp_path, "reader", reads, needs=words),
            job(tmp_path, "writer", writes, makes=words),
        ]
    )
    (begin, _), (_, end) = times(tmp_path, "reader", "writer")
    assert (begin < end) == (count > 1)


def test_a_job_that_leaves_its_file_as_it_is_holds_up_nobody(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("of an earlier run")
    run_side_by_side(
        [job(tmp_path, "reader", needs=words), job(tmp_path, "done", "pass", makes=words)]
    )
    assert (tmp_path / "reader").exists()


def test_lines_say_whose_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prints = "print('one', flush=True); print(); print('two', file=sys.stderr)"
    run_side_by_side([job(tmp_path, "a", prints), job(tmp_path, "longer", "print('three')")])
    assert sorted(capfd.readouterr().out.splitlines()) == ["a      | one", "a      | two"] + [
        "longer | three"
    ]


@pytest.mark.parametrize("count", [2], indirect=True)
@pytest.mark.usefixtures("count")
def test_a_failure_ends_the_others_once_and_waits_for_them(tmp_path: Path) -> None:
    ready = f"\nwhile not Path({str(tmp_path / 'patient')!r}).exists(): time.sleep(0.02)"
    bad = job(tmp_path, "bad", f"{ready}\nsys.exit(3)")
    with pytest.raises(UserError, match=r"bad ended with status 3.*--resume"):
        run_side_by_side([patient(tmp_path), bad])
    assert (tmp_path / "patient").read_text() == "told 1"


@pytest.mark.parametrize("count", [2], indirect=True)
@pytest.mark.usefixtures("count")
def test_a_job_whose_time_is_up_stops_all_as_itself(tmp_path: Path) -> None:
    """A script that starts the command again sees that it may."""
    late = Job("late", [sys.executable, "-c", "import sys; sys.exit(75)"])
    with pytest.raises(StoppedError) as stopped:
        run_side_by_side([late, patient(tmp_path)])
    assert stopped.value.status == 75


@pytest.mark.parametrize("count", [2], indirect=True)
@pytest.mark.usefixtures("count")
def test_ctrl_c_ends_all_once_and_waits_for_them(tmp_path: Path) -> None:
    def interrupt() -> None:
        try:
            for name in "ab":
                wait_for(tmp_path / name)
        finally:  # else the jobs would go on for ever
            signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side([patient(tmp_path, "a"), patient(tmp_path, "b")])
    assert [(tmp_path / name).read_text() for name in "ab"] == ["told 1", "told 1"]
