"""How many queries a deployed artifact holds, and how many such are needed for a rate.

From how long its calls took when it was measured, by the model of `tuner.measure.queueing`: queries of one sample come
at random, and go to a free session when `tune serve` would send them. What a server does besides (reading requests,
writing answers) is not in it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.measure.queueing import largest_rate

PERCENTILE = 99
_POINTS = 2_000  # of a curve between the percentiles that were recorded


@dataclass(frozen=True)
class Calls:
    """How long calls with a whole batch took, ms, and `source` from where that is known. `sessions` run side by side,
    and `evenness` is theirs (`tuner.measure.timing.Timing`)."""

    ms: NDArray[Any]
    batch_size: int
    sessions: int
    evenness: float
    source: str

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self.ms, PERCENTILE))

    @property
    def throughput(self) -> float:
        """Samples per second of all sessions, every batch full."""
        return self.evenness * self.sessions * self.batch_size / float(self.ms.mean()) * 1e3


@dataclass(frozen=True)
class Capacity:
    """The largest `rate` (samples per second) at which one deployed artifact answers within `limit_ms` of a query's
    arrival, at the 99th percentile; `source` is from where that is known."""

    rate: float
    limit_ms: float
    source: str

    def copies(self, rate: float) -> int:
        """How many hold that rate between them, and one to spare."""
        return math.ceil(rate / self.rate) + 1

    def sentence(self, rate: float) -> str:
        copies = self.copies(rate)
        return (
            f"{rate:,.0f} samples/s at p99 within {self.limit_ms:g} ms: {copies} replicas, one of them to spare; "
            f"each holds {self.rate:,.0f} ({self.source})"
        )


def capacity(calls: Calls, limit_ms: float, paced: bool = True) -> Capacity:
    """`paced` is False where another server than `tune serve` calls the sessions, whenever they are free. Raises
    RequestError where a query misses the limit whatever the rate."""
    served = largest_rate(calls.ms, calls.batch_size, limit_ms, PERCENTILE, replicas=calls.sessions, paced=paced)
    if served is None:
        raise RequestError(
            f"p99 within {limit_ms:g} ms holds at no rate: a call takes {calls.p99_ms:.3g} ms at p99, and who comes "
            "during one waits for its end; give a wider --latency-ms, or tune for it with scenario=Server"
        )
    source = f"simulated from {calls.source}, without what a server adds"
    return Capacity(calls.evenness * served.rate, limit_ms, source)


def between(percentiles: dict[float, float]) -> NDArray[Any]:
    """Durations whose percentiles are those, along straight lines between them, shuffled; the least that was recorded
    stands for all that were shorter, the greatest for all that were longer."""
    points = (np.arange(_POINTS) + 0.5) / _POINTS * 100
    durations = np.interp(points, list(percentiles), list(percentiles.values()))
    return np.random.default_rng(0).permutation(durations)
