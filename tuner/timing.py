"""How artifacts are timed: each in a process of its own, taking turns.

A drifting machine moves all contenders alike, because they alternate every few dozen milliseconds. Those that wait
are stopped (SIGSTOP): the threads of most runtimes spin for a while after a call, and on the same cores they
would slow whoever runs next (two sessions interleaved within one process ran 1.6 to 2.4 times slower than alone;
`benchmarks/interleaving.py`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import host
from tuner.worker import Worker

TURN_S = 0.04
LEAST_CALLS = 3
_RESAMPLES = 400


@dataclass(frozen=True)
class Timing:
    """The turns one contender had: for each, the latencies of its calls in ms, wall-clock and CPU."""

    wall_ms: tuple[NDArray[Any], ...]
    cpu_ms: tuple[NDArray[Any], ...]

    def percentile(self, q: float) -> float:
        return float(np.percentile(np.concatenate(self.wall_ms), q))

    def cpu_percentile(self, q: float) -> float:
        return float(np.percentile(np.concatenate(self.cpu_ms), q))

    def ci95(self, q: float) -> tuple[float, float]:
        """A 95 % confidence interval of a percentile.

        Cluster bootstrap over turns: calls of one turn share the machine's mood, so turns, not calls, are
        the independent draws (Davison & Hinkley, Bootstrap Methods and their Application, 1997, §3.8).
        """
        generator = np.random.default_rng(0)
        picks = generator.integers(len(self.wall_ms), size=(_RESAMPLES, len(self.wall_ms)))
        draws = [np.percentile(np.concatenate([self.wall_ms[i] for i in pick]), q) for pick in picks]
        low, high = np.percentile(draws, (2.5, 97.5))
        return float(low), float(high)


def take_turns(
    workers: Mapping[str, Worker],
    *,
    limit_s: float,
    timeout_s: float,
    precision: float,
    percentile: float = 50.0,
) -> dict[str, Timing]:
    """Times the artifacts that the workers host, in rounds of one turn each, in alternating order.

    Ends when the interval of `percentile` is within ±`precision` of it for every contender, or when the
    limit is reached (after at least two rounds). All workers are paused before and after.
    """
    turns: dict[str, list[host.Turn]] = {name: [] for name in workers}
    end = time.monotonic() + limit_s
    rounds = 0
    while True:
        order: Sequence[str] = list(workers) if rounds % 2 == 0 else list(reversed(list(workers)))
        for name in order:
            workers[name].resume()
            turns[name].append(workers[name].run_for(timeout_s, host.turn, TURN_S, LEAST_CALLS))
            workers[name].pause()
        rounds += 1
        timings = {
            name: Timing(tuple(t.wall_ms for t in done), tuple(t.cpu_ms for t in done)) for name, done in turns.items()
        }
        if rounds >= 2 and time.monotonic() >= end:
            return timings
        if rounds >= 6 and rounds % 3 == 0 and all(_tight(t, percentile, precision) for t in timings.values()):
            return timings


def _tight(timing: Timing, percentile: float, precision: float) -> bool:
    low, high = timing.ci95(percentile)
    return high - low <= 2 * precision * timing.percentile(percentile)
