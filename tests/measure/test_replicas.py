"""The processes that run an artifact side by side: what is timed is all of them at once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tuner import artifact
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.goal import Goal
from tuner.measure import host
from tuner.measure.replicas import Replicas
from tuner.measure.scenario import figures
from tuner.measure.timing import TURN_S
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.testing.fakes import INPUTS, WEIGHTS, Linear, Null, Points
from tuner.workload import Workload

TWICE = Candidate((), Null(1.0), 2, replicas=2)


def packaged(folder: Path, candidate: Candidate = TWICE) -> Path:
    (folder / artifact.FILES).mkdir(parents=True)
    np.save(folder / artifact.FILES / WEIGHTS, np.ones((4, 3), np.float32))
    artifact.write_manifest(folder, candidate, Target("cpu", "cpu", threads=2), INPUTS, {})
    return folder


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    """Two, of whose calls each takes 1 ms."""
    folder = packaged(tmp_path / "artifact")
    with Replicas([Launcher(4096).open(tmp_path / f"{number}.log") for number in range(2)]) as replicas:
        replicas.begin(folder, Workload(Linear(), Points()))
        replicas.opened(60)
        yield replicas


def test_a_turn_has_the_calls_of_all_and_throughput_is_of_all(replicas: Replicas) -> None:
    replicas.pause()
    turn = replicas.turn(60, TURN_S, 3)
    assert len(turn.wall_ms) == 2 * 40
    latency, rate = figures(Goal({"latency_ms": 5}), [turn.wall_ms], TWICE)
    assert latency.p50 == pytest.approx(1, rel=1e-3)
    assert rate == pytest.approx(2 * 2 / 1e-3, rel=1e-3)


def test_memory_is_that_of_all(replicas: Replicas) -> None:
    assert replicas.memory_mb() > 1.5 * replicas.first.run(host.memory_mb)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_each_has_cores_of_its_own(tmp_path: Path) -> None:
    folder, cores = packaged(tmp_path / "artifact"), set()
    for number in range(2):
        with Launcher(4096).open(tmp_path / "log") as worker:
            worker.run(host.open_artifact, folder, Workload(Linear(), Points()), number)
            mine = worker.run(os.sched_getaffinity, 0)
            assert len(mine) == 1 and worker.run(os.getenv, "OMP_NUM_THREADS") == "1"
            cores |= mine
    assert len(cores) == 2


def test_where_one_dies_all_are_ended(replicas: Replicas) -> None:
    os.kill(replicas.first.run(os.getpid), signal.SIGKILL)
    with pytest.raises(CandidateError, match="killed"):
        replicas.turn(60, TURN_S, 3)
    assert not replicas.alive
    with pytest.raises(CandidateError):
        replicas.warm_up(60, 1)


def test_the_machines_energy_is_counted_once() -> None:
    turns = [host.Turn(np.ones(n), 1.0, joules / n, 1.0) for n, joules in ((10, 4.0), (30, 4.0))]
    joined = host.joined(turns)
    assert joined.energy_j == pytest.approx(4.0 / 40)
    assert len(joined.wall_ms) == 40
