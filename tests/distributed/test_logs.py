"""What ranks say, in their files."""

import io
from pathlib import Path

import pytest

from omnitune.distributed.logs import RankLog

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no device that is always full")
def test_a_full_disk_costs_the_lines_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank_0.log").symlink_to(FULL)
    seen = io.StringIO()
    log = RankLog(seen)
    log.write("before\n")
    log.open(tmp_path, 0)
    for n in range(2_000):  # more than any buffer holds
        log.write(f"line {n}\n")
    log.flush()
    log.close()
    assert len(seen.getvalue().splitlines()) == 2_001


def test_where_no_log_can_be_opened_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, no folder")
    seen = io.StringIO()
    log = RankLog(seen)
    log.write("before\n")
    log.open(tmp_path, 0)
    log.write("after\n")
    log.close()
    assert "before\n" in seen.getvalue()
    assert "cannot be written" in seen.getvalue()
    assert "after\n" in seen.getvalue()
