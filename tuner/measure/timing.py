"""How artifacts are timed: each in a process of its own, taking turns.

A drifting machine moves all contenders alike, because they alternate every few dozen milliseconds. Those that wait
are stopped (SIGSTOP): the threads of most runtimes spin for a while after a call, and on the same cores they
would slow whoever runs next (`benchmarks/interleaving.py` shows by how much, within one process and across two).
"""

import contextlib
import fcntl
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
from tuner.system.deadline import Waiting
from tuner.system.worker import Worker

TURN_S = 0.04
LEAST_CALLS = 3
_LEAST_ROUNDS = 6


@dataclass(frozen=True)
class Timing:
    """The turns one contender had: for each the latencies of its calls in ms, and mean CPU time and energy a call."""

    wall_ms: tuple[NDArray[Any], ...]
    cpu_ms: tuple[float, ...]
    energy_j: tuple[float | None, ...] = ()

    def percentile(self, q: float) -> float:
        return float(np.percentile(np.concatenate(self.wall_ms), q))

    def interval(self, q: float) -> Interval:
        """A 95 % interval of a percentile, of calls of this process."""
        return percentile_interval(self.wall_ms, q)

    @property
    def cpu(self) -> float:
        """Process CPU time a call, ms: more than the wall-clock time where threads share the work, or spin."""
        return float(np.median(self.cpu_ms))

    @property
    def energy(self) -> float | None:
        """The machine's energy a call, J; None where it is not exposed."""
        told = [joules for joules in self.energy_j if joules is not None]
        return float(np.median(told)) if told else None

    def ratio_to(self, other: "Timing") -> float:
        """The median over turns of the ratio of medians: each pair of turns shares the machine's mood."""
        pairs = zip(self.wall_ms, other.wall_ms, strict=True)
        return float(np.median([np.median(mine) / np.median(theirs) for mine, theirs in pairs]))


@contextlib.contextmanager
def alone(lock_name: str, waiting: Waiting = contextlib.nullcontext) -> Iterator[None]:
    """Waits until no other process of this user times anything under that name, which is a device's `lock`, and keeps
    the others waiting. Builds go on meanwhile: they move the reference too. `waiting` is entered while it waits.
    """
    path = Path(tempfile.gettempdir(), f"inference-tuner-{os.getuid()}-{lock_name}.lock")
    with path.open("a") as lock:
        with waiting():
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def take_turns(
    workers: Mapping[str, Worker],
    *,
    limit_s: float,
    timeout_s: float,
    precision: float = 0.0,
    percentile: float = 50.0,
    failed: dict[str, str] | None = None,
) -> tuple[dict[str, Timing], bool]:
    """Times the artifacts that the workers host, in rounds of one turn each, in alternating order.

    Ends when the interval of `percentile` is within ±`precision` of it for every contender, or when the turns have
    taken `limit_s` (and after at least two rounds); the second value tells whether it was precise. A worker that fails,
    or whose turn outlasts `timeout_s`, raises CandidateError; with `failed`, its sentence is noted there and the others
    go on. All workers are paused before and after.
    """
    workers = dict(workers)
    turns: dict[str, list[host.Turn]] = {name: [] for name in workers}
    taken_s, rounds = 0.0, 0
    while True:
        names: Sequence[str] = list(workers)
        for name in names if rounds % 2 == 0 else names[::-1]:
            try:
                workers[name].resume()
                turns[name].append(workers[name].run_for(timeout_s, host.turn, TURN_S, LEAST_CALLS))
                taken_s += turns[name][-1].seconds
                workers[name].pause()
            except CandidateError as error:
                if failed is None:
                    raise
                failed[name] = error.sentence
                del workers[name], turns[name]
        rounds += 1
        timings = {
            name: Timing(tuple(t.wall_ms for t in done), tuple(t.cpu_ms for t in done), tuple(t.energy_j for t in done))
            for name, done in turns.items()
        }
        if not workers:
            return {}, False
        if rounds >= 2 and taken_s >= limit_s:
            return timings, False
        if precision and rounds >= _LEAST_ROUNDS and rounds % 3 == 0:
            intervals = {name: timing.interval(percentile) for name, timing in timings.items()}
            if all(
                high - low <= 2 * precision * timings[n].percentile(percentile) for n, (low, high) in intervals.items()
            ):
                return timings, True
