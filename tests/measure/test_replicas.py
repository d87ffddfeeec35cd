"""Sessions that run an artifact side by side: what is timed is all of them at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tuner import artifact
from tuner.candidate import Candidate
from tuner.goal import Goal
from tuner.measure import host
from tuner.measure.scenario import figures
from tuner.measure.stream import Turn, joined
from tuner.measure.timing import TURN_S
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.pool import Pool
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.testing.fakes import INPUTS, WEIGHTS, Linear, Null, Points, write_linear
from tuner.workload import Workload

TWICE = Candidate((), Null(1.0), 2, replicas=2)


def packaged(folder: Path, candidate: Candidate) -> Path:
    (folder / artifact.FILES).mkdir(parents=True)
    np.save(folder / artifact.FILES / WEIGHTS, np.ones((4, 3), np.float32))
    artifact.write_manifest(folder, candidate, Target("cpu", "cpu", threads=2), INPUTS, {})
    return folder


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """It hosts two replicas, of whose calls each takes 1 ms."""
    with Launcher(4096).open(tmp_path / "log") as worker:
        worker.run(host.open_artifact, packaged(tmp_path / "artifact", TWICE), Workload(Linear(), Points()))
        yield worker


def test_a_turn_has_the_calls_of_all_and_throughput_is_of_all(worker: Worker) -> None:
    turn = worker.run(host.turn, TURN_S, 3)
    assert len(turn.wall_ms) == 2 * 40
    latency, rate = figures(Goal({"latency_ms": 5}), [turn.wall_ms], TWICE)
    assert latency.p50 == pytest.approx(1, rel=1e-3)
    assert rate == pytest.approx(2 * 2 / 1e-3, rel=1e-3)


def test_what_the_whole_process_used_is_counted_once() -> None:
    turns = [Turn(np.ones(n), 40.0 / n, 4.0 / n, 1.0) for n in (10, 30)]
    whole = joined(turns)
    assert whole.energy_j == pytest.approx(4.0 / 40)
    assert whole.cpu_ms == pytest.approx(40.0 / 40)


@pytest.mark.parametrize("calls_ms", [[1, 2], [1, 1, 10], [3, 3], [1, 2, 3, 4]])
def test_a_slow_replica_is_not_hidden_by_a_fast_one(calls_ms: list[int]) -> None:
    whole = joined([Turn(np.full(120 // ms, float(ms)), 1.0, None, 0.12) for ms in calls_ms])
    candidate = Candidate((), Null(1.0), 2, replicas=len(calls_ms))
    _, rate = figures(Goal({"latency_ms": 50}), [whole.wall_ms], candidate, evenness=whole.evenness)
    assert rate == pytest.approx(sum(2 / ms * 1e3 for ms in calls_ms))


def test_many_threads_get_each_its_own_answer(tmp_path: Path) -> None:
    folder = packaged(tmp_path / "artifact", Candidate((), OnnxRuntime(), 2, replicas=2))
    write_linear(folder / artifact.FILES, np.ones((4, 3), np.float32))
    deployed = artifact.load(folder)
    assert isinstance(deployed.session, Pool) and len(deployed.session.sessions) == 2
    batches = [np.full((1 + n % 2, 4), n, np.float32) for n in range(40)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda batch: deployed.run({"x": batch})[0], batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer, batch @ np.ones((4, 3), np.float32))


@pytest.mark.parametrize(("cores", "replicas", "each"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_they_share_the_cores_evenly(cores: int, replicas: int, each: int) -> None:
    assert Target("cpu", "cpu", threads=cores).share(replicas).cores == each
