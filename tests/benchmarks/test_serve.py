"""The benchmark of servers: both are measured, at every number of clients."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import tiny_model, tiny_renderer

from benchmarks import serve
from omnitune.sample import UserError


@pytest.mark.slow
def test_both_are_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SimpleNamespace(model=tiny_model(), renderer=tiny_renderer())
    monkeypatch.setattr(serve, "make", lambda workload, data: bench)
    path = tmp_path / "found.json"
    options = ["--clients", "1,2", "--requests", "1", "--tokens", "6", "--data", str(tmp_path)]
    assert serve.main([*options, "--json", str(path)]) == 0
    found = json.loads(path.read_text())["serve"]
    assert list(found) == ["omnitune", "plain"]
    for rows in found.values():
        assert list(rows) == ["1", "2"]
        for row in rows.values():
            # A busy machine may hand over a whole answer at once: no time between its tokens.
            assert row["token_ms_p95"] >= row["token_ms"] >= 0
            assert row["answer_ms"] >= row["first_ms"] > 0
            assert row["first_ms_p95"] >= row["first_ms"]
            assert row["tokens_per_second"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the clock of another process")
def test_work_of_another_process_is_counted_finely() -> None:
    work = "sum(range(100_000)); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", work], stdin=pipe, stdout=pipe) as process:
        server = serve.Server("", process.pid)
        assert process.stdout is not None
        process.stdout.readline()
        assert 0 < server.cpu_seconds < 60
        process.communicate(b"\n")
    assert math.isnan(serve.Server("", process.pid).cpu_seconds)  # it has ended


def test_every_second_question_has_a_picture_of_its_own() -> None:
    contents = [serve.question(n)["content"] for n in range(4)]
    assert [len(content) for content in contents] == [1, 2, 1, 2]
    assert contents[1][1] != contents[3][1]
    assert serve.question(3) == serve.question(3)


def test_clients_are_numbers() -> None:
    with pytest.raises(UserError, match="whole numbers"):
        serve.numbers("--clients", "1,two")
