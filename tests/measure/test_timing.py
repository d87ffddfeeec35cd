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


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[dict[str, Worker]]:
    """Two that host an artifact each: a call of one takes 1 ms, of the other 2."""
    with ExitStack() as stack:
        hosting = {}
        for name, ms in (("fast", 1.0), ("slow", 2.0)):
            folder = tmp_path / name
            (folder / artifact.FILES).mkdir(parents=True)
            np.save(folder / artifact.FILES / WEIGHTS, np.ones((4, 3), np.float32))
            artifact.write_manifest(folder, Candidate((), Null(ms), 2), Target("cpu", "cpu", threads=1), INPUTS, {})
            hosting[name] = stack.enter_context(Launcher(4096).open(tmp_path / f"{name}.log"))
            hosting[name].run(host.open_artifact, folder, Workload(Linear(), Points()))
            hosting[name].pause()
        yield hosting


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


def test_one_that_dies_leaves_the_others_their_turns(workers: dict[str, Worker]) -> None:
    workers["slow"].close()
    turns = take_turns(workers, limit_s=1, timeout_s=60, go_on=True)
    assert turns.timings.keys() == {"fast"} and turns.failures.keys() == {"slow"}
    with pytest.raises(CandidateError):
        take_turns(workers, limit_s=1, timeout_s=60)


def test_it_is_warm_when_two_windows_of_calls_agree(workers: dict[str, Worker]) -> None:
    workers["fast"].resume()
    assert workers["fast"].run(host.warm_up, 3600) == pytest.approx(1, rel=1e-3)
