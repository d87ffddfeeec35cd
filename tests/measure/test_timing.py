"""Turns of artifacts whose clocks are driven: how many there are, and what they give."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tuner import artifact
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.measure import host
from tuner.measure.stream import LEAD
from tuner.measure.timing import LEAST_CALLS, TURN_S, take_turns
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.testing.fakes import INPUTS, WEIGHTS, Linear, Null, Points
from tuner.workload import Workload


def hosting(tmp_path: Path, name: str, ms: float) -> Worker:
    """One that hosts an artifact whose calls take so long."""
    folder = tmp_path / name
    (folder / artifact.FILES).mkdir(parents=True)
    np.save(folder / artifact.FILES / WEIGHTS, np.ones((4, 3), np.float32))
    artifact.write_manifest(folder, Candidate((), Null(ms), 2), Target("cpu", "cpu", threads=1), INPUTS, {})
    worker = Launcher(4096).open(tmp_path / f"{name}.log")
    worker.run(host.open_artifact, folder, Workload(Linear(), Points()))
    return worker


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[dict[str, Worker]]:
    """Two, paused."""
    with ExitStack() as stack:
        workers = {}
        for name, ms in (("fast", 1.0), ("slow", 2.0)):
            workers[name] = stack.enter_context(hosting(tmp_path, name, ms))
            workers[name].pause()
        yield workers


def test_they_alternate_until_their_time_is_up(workers: dict[str, Worker]) -> None:
    turns = take_turns(workers, limit_s=10 * (1 + LEAD) * TURN_S, timeout_s=60)
    fast, slow = turns.timings["fast"], turns.timings["slow"]
    assert len(fast.wall_ms) == len(slow.wall_ms) == 5
    assert {len(turn) for turn in fast.wall_ms} == {40} and {len(turn) for turn in slow.wall_ms} == {20}
    assert fast.percentile(50) == pytest.approx(1, rel=1e-3)
    assert slow.ratio_to(fast) == pytest.approx(2, rel=1e-3)
    assert not turns.precise


def test_they_end_as_soon_as_every_interval_is_narrow(workers: dict[str, Worker]) -> None:
    turns = take_turns(workers, limit_s=3600, timeout_s=60, precision=0.01)
    assert turns.precise
    low, high = turns.timings["slow"].interval(50)
    assert 2 <= low <= high <= 2.002


def test_there_are_two_rounds_however_short_the_time(workers: dict[str, Worker]) -> None:
    turns = take_turns(workers, limit_s=0, timeout_s=60)
    assert [len(timing.wall_ms) for timing in turns.timings.values()] == [2, 2]


def test_a_turn_has_some_calls_however_long_they_take(workers: dict[str, Worker]) -> None:
    workers["slow"].resume()
    turn = workers["slow"].run(host.turn, 0.001, LEAST_CALLS)
    assert len(turn.wall_ms) == LEAST_CALLS
    assert turn.seconds == pytest.approx(4 * 2e-3, rel=1e-3), "one came before, unrecorded"


def test_nothing_comes_before_a_long_call_and_one_may_be_enough(tmp_path: Path) -> None:
    with hosting(tmp_path, "long", 500.0) as worker:
        worker.run(host.warm_up, 0.1)
        turn = worker.run(host.turn, TURN_S, LEAST_CALLS)
        assert len(turn.wall_ms) == LEAST_CALLS and turn.seconds == pytest.approx(1.5, rel=1e-3)
        worker.pause()
        turns = take_turns({"long": worker}, limit_s=0, timeout_s=60, least_calls=1)
    assert [len(turn) for turn in turns.timings["long"].wall_ms] == [1, 1]


def test_one_that_dies_leaves_the_others_their_turns(workers: dict[str, Worker]) -> None:
    workers["slow"].close()
    turns = take_turns(workers, limit_s=1, timeout_s=60, go_on=True)
    assert turns.timings.keys() == {"fast"} and turns.failures.keys() == {"slow"}
    with pytest.raises(CandidateError):
        take_turns(workers, limit_s=1, timeout_s=60)


def test_it_is_warm_when_two_windows_of_calls_agree(workers: dict[str, Worker]) -> None:
    workers["fast"].resume()
    assert workers["fast"].run(host.warm_up, 3600) == pytest.approx(1, rel=1e-3)
