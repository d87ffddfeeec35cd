"""The Server scenario: the largest rate of queries that a session serves within a latency limit, by simulation.

MLPerf's Server scenario (Reddi et al., MLPerf Inference Benchmark, ISCA 2020) sends queries of one sample each at
Poisson arrivals and asks for the largest rate at which a percentile of their latency, waiting included, holds. Here it
is found from the durations of calls that were measured anyway, in a fraction of a second for each candidate.
`tuner.measure.loadgen` checks a rate with real arrivals and real calls.

The model is the bulk-service queue M/G(1,b)/r (of one replica: Bailey, J. Royal Statistical Society B 16, 1954;
Neuts, Annals of Mathematical Statistics 38, 1967; of inference servers: Inoue, Performance Evaluation 147, 2021). Each
of r replicas is a session with a fixed batch. Whether what waits goes to a free one, at most a batch, is asked of
`tuner.measure.batching`, as `tune serve` does. Its queries end together.

Assumed, and therefore optimistic where it fails:

- A call takes under load what it took when it was timed back to back. Assembling a batch and answering its queries
  take nothing; arrivals take no processor time from the session. For calls well under a millisecond neither is so.
  On a machine that others load too, a session that has just been paused is preferred by the scheduler: short turns
  look better than sustained work.
- Queries do not know of each other, none is refused, and the queue has no end.
- The policy knows the mean call; a server estimates it from the last 200 calls.

Assumed, and therefore pessimistic where it fails: a short batch is padded, and a call takes as long whatever it holds.
A package with smaller recipes answers a short batch in less.

Against LoadGen with calls that sleep 2 ms in batches of 8, median and mean batch agreed within a tenth and p95 and
p99 mostly within a quarter. Announce a rate for a real session only once `tuner.measure.loadgen.server`
has shown that it holds.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from heapq import heapreplace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.measure.batching import Pace

_QUERIES = 20_000  # simulated at least, at every rate
_CALLS = 16_000  # and at least: large batches need more queries for as many calls, …
_MOST_QUERIES = 500_000  # … up to here
_WARM = 10  # the first tenth of the queries finds an emptier queue than those that follow: not counted
_FULLEST = 0.99  # a session busier than this never settles in so few calls: not promised
_EMPTIEST = 0.01  # the lowest rate worth telling: this share of the session's time, with one query a call
_SPARSE = 0.25  # as a share of the same; at lower rates so few meet that latency only grows with the rate
_STEP = 1.01  # the rate is found to one per cent


@dataclass(frozen=True)
class Served:
    """What queries get at `rate` samples per second: latency from arrival to answer in ms, waiting included.

    `batch_fill` is the mean number of queries in a call.
    """

    rate: float
    p50: float
    p90: float
    p95: float
    p99: float
    batch_fill: float


def largest_rate(
    service_ms: NDArray[Any],
    batch_size: int,
    limit_ms: float,
    percentile: float,
    seed: int = 0,
    *,
    replicas: int = 1,
    paced: bool = True,
) -> Served | None:
    """The largest rate up to which that percentile of latency stays within the limit: at that rate, and at lower ones.

    Latency may be longer at a lower rate: replicas that never wait are slowest at a tenth to a half of their load. So
    the rate is doubled for as long as the limit holds, from one at which few queries meet, or below it, and found
    between the last two by bisection. Rates between those are not simulated: of `tune serve`'s replicas the percentile
    may be a per cent above the limit there, of replicas that never wait some per cent.

    `service_ms` are durations of calls with a whole batch, in the order they were measured. Every rate meets the same
    arrivals, only denser, and the same calls, and all limits try the same rates: a wider limit never gets a lower rate.
    Seeds differ by some per cent, by more where the limit is barely more than a call takes or cuts into a long tail.
    `paced` is False for servers other than `tune serve`, whose replicas take what waits whenever they are free.

    None where a lone query misses the limit already, or where it is missed in a session that idles 99 % of its time.
    Raises ValueError where there is no call or one took no time.
    """
    traffic = _Traffic(service_ms, batch_size, seed, replicas, paced)
    if np.percentile(traffic.measured_ms, percentile) > limit_ms:
        return None

    def within(rate: float) -> Served | None:
        latency_ms, fill = traffic.at(rate)
        return _served(rate, latency_ms, fill) if np.percentile(latency_ms, percentile) <= limit_ms else None

    fullest = _FULLEST * traffic.capacity
    rate = fullest / 2 ** int(math.log2(_FULLEST * batch_size / _SPARSE))
    while not (served := within(rate)):
        rate /= 2
        if rate < _EMPTIEST * traffic.capacity / batch_size:
            return None
    high = 2 * rate
    while high <= fullest and (better := within(high)):
        served, high = better, 2 * high
    if high > fullest:
        return served
    while high > _STEP * served.rate:
        rate = math.sqrt(served.rate * high)
        better = within(rate)
        served, high = (better, high) if better else (served, rate)
    return served


def at_rate(
    service_ms: NDArray[Any], batch_size: int, rate: float, seed: int = 0, *, replicas: int = 1, paced: bool = True
) -> Served:
    """What queries get at a given rate, samples per second.

    At rates of `batch_size` times `replicas` over the mean call and more the queue grows without end: the latencies
    then only tell how long was simulated. `paced`, and what it raises, as of `largest_rate`.
    """
    return _served(rate, *_Traffic(service_ms, batch_size, seed, replicas, paced).at(rate))


class _Traffic:
    """Arrivals and calls, drawn once, for any rate. Time runs in mean gaps between arrivals: a rate only stretches
    the calls, and the arrivals stay as they are."""

    def __init__(self, service_ms: NDArray[Any], batch_size: int, seed: int, replicas: int, paced: bool) -> None:
        self.measured_ms = np.asarray(service_ms, dtype=np.float64).ravel()
        if not len(self.measured_ms) or not (self.measured_ms > 0).all():
            raise ValueError("durations of calls must be more than 0 ms, and at least one")
        self._mean_s = float(self.measured_ms.mean()) / 1e3
        self.capacity = replicas * batch_size / self._mean_s
        """Samples per second with every batch full: at this rate and beyond the queue grows without end."""
        self._batch_size = batch_size
        self._replicas = replicas
        self._paced_for = replicas if paced else 1  # the pace of a single one never waits
        random = np.random.default_rng(seed)
        self._calls = min(_CALLS, _MOST_QUERIES // batch_size)
        self._arrivals = np.cumsum(random.exponential(size=max(_QUERIES, self._calls * batch_size)))
        self._arrival_list: list[float] = self._arrivals.tolist()
        self._service_s: list[float] = (_resampled(self.measured_ms, _QUERIES, random) / 1e3).tolist()

    def at(self, rate: float) -> tuple[NDArray[Any], float]:
        """The latencies of the queries in ms, in order of arrival, and the mean number in a call."""
        arrivals, most = self._arrival_list, self._batch_size
        pace = Pace.of(most, self._paced_for, rate * self._mean_s)  # in mean gaps
        ends: list[float] = []
        taken = [0]
        free = [0.0] * self._replicas  # when each is, a heap
        first, went = 0, -math.inf
        for service_s in self._service_s:
            start = max(free[0], arrivals[first])
            last = min(first + most, len(arrivals))
            upto = bisect_right(arrivals, start, first, last)
            idle = max(free)  # from then on no replica is busy
            if (hold := pace.hold(upto - first, start - went if start < idle else math.inf)) > 0:
                # asked at each arrival, it would say the same until a batch is whole
                start = min(start + hold, arrivals[last - 1], idle)
                upto = bisect_right(arrivals, start, upto, last)
            first, went = upto, start
            ends.append(start + rate * service_s)
            heapreplace(free, ends[-1])
            taken.append(first)
            if first == len(arrivals) or (first >= _QUERIES and len(ends) >= self._calls):
                break
        sizes = np.diff(taken)
        latency = (np.repeat(ends, sizes) - self._arrivals[:first]) / rate * 1e3
        return latency[first // _WARM :], float(sizes.mean())


def _resampled(measured: NDArray[Any], count: int, random: np.random.Generator) -> NDArray[Any]:
    """Draws from the measured calls, in runs of successive ones.

    Slow calls come in clusters, and a cluster makes a longer queue than the same calls scattered would: the circular
    block bootstrap keeps clusters together (Politis & Romano, in Exploring the Limits of Bootstrap, 1992), in blocks
    of the cube root of their number. Every call is drawn equally often (Davison, Hinkley & Schechtman, Biometrika 73,
    1986): the tail is as long as it was measured, whatever the seed.
    """
    length = max(1, round(len(measured) ** (1 / 3)))
    blocks = -(-count // length)
    rounds = -(-blocks // len(measured))
    starts = np.concatenate([random.permutation(len(measured)) for _ in range(rounds)])[:blocks]
    picks = (starts[:, None] + np.arange(length)) % len(measured)
    return np.asarray(measured[picks.ravel()[:count]])


def _served(rate: float, latency_ms: NDArray[Any], fill: float) -> Served:
    p50, p90, p95, p99 = (float(p) for p in np.percentile(latency_ms, (50, 90, 95, 99)))
    return Served(rate, p50, p90, p95, p99, fill)
