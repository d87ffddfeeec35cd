"""How artifacts are timed: each in a process of its own, taking turns.

A drifting machine moves all contenders alike, because they alternate every few dozen milliseconds. Those that wait
are stopped (SIGSTOP): the threads of most runtimes spin for a while after a call, and on the same cores they
would slow whoever runs next (`benchmarks/interleaving.py` shows by how much, within one process and across two).
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.measure import host
from tuner.measure.statistics import Interval, percentile_interval
from tuner.measure.stream import Turn
from tuner.system.deadline import Waiting
from tuner.system.files import critical_section
from tuner.system.worker import Worker

TURN_S = 0.04
LEAST_CALLS = 3
_LEAST_ROUNDS = 6


@dataclass(frozen=True)
class Timing:
    """The turns one contender had: for each the latencies of its calls in ms, mean CPU time and energy a call, and the
    medians of what its task found out. `evenness` is the median over turns of `Turn.evenness`."""

    wall_ms: tuple[NDArray[Any], ...]
    cpu_ms: tuple[float | None, ...]
    energy_j: tuple[float | None, ...] = ()
    more: tuple[Mapping[str, float], ...] = ()
    evenness: float = 1.0

    def percentile(self, q: float) -> float:
        return float(np.percentile(np.concatenate(self.wall_ms), q))

    def interval(self, q: float) -> Interval:
        """A 95 % interval of a percentile, of calls of this process."""
        return percentile_interval(self.wall_ms, q)

    @property
    def cpu(self) -> float | None:
        """Process CPU time a call, ms: more than the wall-clock time where threads share the work, or spin. None where
        another machine did it."""
        spent = [ms for ms in self.cpu_ms if ms is not None]
        return float(np.median(spent)) if spent else None

    @property
    def energy(self) -> float | None:
        """The machine's energy a call, J; None where it is not exposed."""
        joules = [spent for spent in self.energy_j if spent is not None]
        return float(np.median(joules)) if joules else None

    def ratio_to(self, other: "Timing") -> float:
        """The median over turns of the ratio of medians: each pair of turns shares the machine's mood."""
        pairs = zip(self.wall_ms, other.wall_ms, strict=True)
        return float(np.median([np.median(mine) / np.median(theirs) for mine, theirs in pairs]))


@dataclass(frozen=True)
class Turns:
    """What contenders showed in turns, by name: the timings of those that ran to the end, and why the others did not.
    `precise` tells whether the timing ended because every interval was narrow enough."""

    timings: Mapping[str, Timing]
    failures: Mapping[str, CandidateError]
    precise: bool


@contextlib.contextmanager
def device_lock(device: str, waiting: Waiting = contextlib.nullcontext) -> Iterator[None]:
    """Waits until no other process of this user times anything on the device, and keeps the others waiting. Builds go
    on meanwhile: they move the reference too. `waiting` is entered while it waits.
    """
    path = Path(tempfile.gettempdir(), f"inference-tuner-{os.getuid()}-{device}.lock")
    with critical_section(path, waiting):
        yield


def take_turns(
    workers: Mapping[str, Worker],
    *,
    limit_s: float,
    timeout_s: float,
    precision: float = 0.0,
    percentile: float = 50.0,
    least_calls: int = LEAST_CALLS,
    go_on: bool = False,
) -> Turns:
    """Times the artifacts that the workers host, in rounds of one turn each, in alternating order. A turn has
    `least_calls` at least, of each replica and shape.

    Ends when the interval of `percentile` is within ±`precision` of it for every contender, or when the turns have
    taken `limit_s` (and after at least two rounds). A worker that fails, or whose turn outlasts `timeout_s`, raises
    CandidateError; with `go_on`, it is among the failures, and the others go on. Workers are paused before and after.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in workers}
    failures: dict[str, CandidateError] = {}
    taken_s, rounds = 0.0, 0
    while turns:
        names = list(turns)
        for name in names if rounds % 2 == 0 else names[::-1]:
            try:
                turns[name].append(_turn(workers[name], timeout_s, least_calls))
                taken_s += turns[name][-1].seconds
            except CandidateError as error:
                if not go_on:
                    raise
                failures[name] = error
                del turns[name]
        rounds += 1
        timings = {name: _timing(done) for name, done in turns.items()}
        if rounds >= 2 and taken_s >= limit_s:
            return Turns(timings, failures, False)
        looked_at = precision and turns and rounds >= _LEAST_ROUNDS and rounds % 3 == 0
        if looked_at and all(_is_precise(timing, percentile, precision) for timing in timings.values()):
            return Turns(timings, failures, True)
    return Turns({}, failures, False)


def _turn(worker: Worker, timeout_s: float, least_calls: int) -> Turn:
    worker.resume()
    turn = worker.run_for(timeout_s, host.turn, TURN_S, least_calls)
    worker.pause()
    return turn


def _timing(turns: Sequence[Turn]) -> Timing:
    return Timing(
        tuple(turn.wall_ms for turn in turns),
        tuple(turn.cpu_ms for turn in turns),
        tuple(turn.energy_j for turn in turns),
        tuple(turn.more for turn in turns),
        float(np.median([turn.evenness for turn in turns])),
    )


def _is_precise(timing: Timing, percentile: float, precision: float) -> bool:
    low, high = timing.interval(percentile)
    return high - low <= 2 * precision * timing.percentile(percentile)
