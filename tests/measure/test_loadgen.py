"""LoadGen, as it is installed: what it is told, what it gives the session, and what is made of its answers.

How long its own clock says that a call took is no matter of these tests: `benchmarks/loadgen.py` compares it with ours.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import Waking
from tuner import artifact
from tuner.candidate import Candidate
from tuner.measure import host, loadgen
from tuner.plugin import Session
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.task import Call
from tuner.tensors import Arrays, TensorSpec
from tuner.testing.fakes import INPUTS, WEIGHTS, Linear, Null, Points
from tuner.workload import Workload

BATCH, CALL_MS = 4, 5.0

missing = loadgen.available()
needs_loadgen = pytest.mark.skipif(missing is not None, reason=missing or "")


class Sleeping(Session):
    """By its own clock a call takes exactly `call_ms`, and never less by LoadGen's, unless it is not to sleep. It keeps
    what it was given."""

    def __init__(self) -> None:
        self.given: list[Arrays] = []
        self.fails_after: int | None = None
        self.call_ms, self.sleeps = CALL_MS, True

    def run(self, inputs: Arrays) -> list[np.ndarray]:
        if self.fails_after is not None and len(self.given) >= self.fails_after:
            raise ValueError("three is not a colour")
        self.given.append(inputs)
        if self.sleeps:
            time.sleep(self.call_ms / 1e3)
        return [np.zeros(BATCH)]

    def now(self) -> float:
        return len(self.given) * self.call_ms / 1e3


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Sleeping:
    """Hosted in this process, whose working directory is empty; one replica, or as many as the parameter says."""
    monkeypatch.chdir(tmp_path)
    slow = Sleeping()
    pool = [{"x": np.arange(BATCH, dtype=np.float32)[:, None] + 10 * i} for i in range(3)]
    cpu = Target("cpu", "cpu", threads=1)
    candidate = Candidate((), Null(CALL_MS), BATCH, replicas=getattr(request, "param", 1))
    deployed = artifact.Artifact(candidate, cpu, (TensorSpec("x", (1,), "float32"),), slow)
    hosted = host.Hosted(deployed, cpu.hardware, Call(), [[batch] for batch in pool])
    monkeypatch.setattr(loadgen, "hosted", lambda: hosted)
    return slow


def test_where_it_is_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    assert "pip install 'inference-tuner[loadgen]'" in (loadgen.available() or "")


def probes(session: Sleeping) -> int:
    """How many calls of a whole batch of the first sample came before LoadGen's: so many tell how long one takes."""
    first = [bool((inputs["x"] == inputs["x"][0]).all()) for inputs in session.given[:100]]
    return next((number for number, alike in enumerate(first) if not alike), len(first))


@needs_loadgen
def test_single_stream_is_the_latency_of_a_call(session: Sleeping) -> None:
    session.call_ms, session.sleeps = 0.005, False  # else a busy machine makes too few queries of it
    found = loadgen.single_stream(0.7)
    assert found.valid, found.problem
    assert 0 < found.p50 <= found.p90 <= found.p95 <= found.p99
    assert found.service_ms == pytest.approx(0.005)
    assert found.samples == len(session.given) - probes(session)
    assert found.batch_fill == 1
    assert {len(inputs["x"]) for inputs in session.given} == {BATCH}, "padded"
    assert not list(Path.cwd().iterdir()), "nothing is left in the working directory"


@needs_loadgen
def test_too_few_queries_for_early_stopping_are_not_valid(session: Sleeping) -> None:
    found = loadgen.single_stream(0.1)
    assert not found.valid
    assert "queries for early stopping" in (found.problem or "")


@needs_loadgen
def test_offline_fills_its_batches(session: Sleeping) -> None:
    found = loadgen.offline(0.5)
    assert found.valid, found.problem
    assert 0 < found.qps <= BATCH / CALL_MS * 1e3
    assert found.batch_fill > 0.9 * BATCH
    assert found.service_ms == pytest.approx(CALL_MS)
    rows = np.concatenate([inputs["x"] for inputs in session.given])
    assert set(rows.ravel()) == {0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23}, "every sample is asked for"


@needs_loadgen
@pytest.mark.parametrize("session", [1, 2], indirect=True)
def test_a_server_gets_as_many_samples_as_that_rate_makes(session: Sleeping) -> None:
    session.sleeps = False
    rate = 0.7 * BATCH / CALL_MS * 1e3
    found = loadgen.server(rate, 60_000, 90, 1.5, CALL_MS / 1e3)
    assert found.samples == pytest.approx(1.5 * rate, rel=0.2)
    assert 1 <= found.batch_fill <= BATCH
    assert found.valid, found.problem
    assert "batching" not in {t.name for t in threading.enumerate()}


@needs_loadgen
def test_more_than_it_can_serve_is_not_valid(session: Sleeping) -> None:
    found = loadgen.server(2 * BATCH / CALL_MS * 1e3, 2 * CALL_MS, 99, 0.3, CALL_MS / 1e3)
    assert not found.valid
    assert "Reduce target QPS" in (found.problem or "")
    assert found.p99 > 10 * CALL_MS
    assert found.batch_fill > 0.9 * BATCH


@needs_loadgen
@pytest.mark.parametrize("after", [0, 20])
def test_a_session_that_fails_ends_the_run(session: Sleeping, after: int) -> None:
    session.fails_after = after
    with pytest.raises(ValueError, match="not a colour"):
        loadgen.server(100, 100, 90, 0.5, CALL_MS / 1e3)


@needs_loadgen
def test_it_runs_where_an_artifact_is_hosted(tmp_path: Path) -> None:
    (tmp_path / artifact.FILES).mkdir()
    np.save(tmp_path / artifact.FILES / WEIGHTS, np.ones((4, 3), np.float32))
    artifact.write_manifest(tmp_path, Candidate((), Waking(1.0), 2), Target("cpu", "cpu", threads=1), INPUTS, {})
    with Launcher(4096).open(tmp_path / "log") as worker:
        worker.run(host.open_artifact, tmp_path, Workload(Linear(), Points()))
        found = worker.run_for(30, loadgen.single_stream, 0.2)
    assert found.p50 >= 1 and found.samples > 0
    assert (tmp_path / "log").read_text() == "", "LoadGen is quiet"
