"""Open-loop load: requests come at random times, whatever became of those before, and a latency counts from when its
request was due. A client that waited for answers first would leave out those who wait longest (coordinated omission).

A request that gets no answer, or any but 200, counts as one that took the whole time-out.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.measure.statistics import Interval, percentile_interval
from tuner.serve.client import Endpoint, Request, authorization, sentence

TIMEOUT_S = 30.0
PERCENTILE = 99
FEWEST = 300
"""Requests of a rate: of fewer, the slowest of a hundred say nothing."""
_WARM = 10  # the first tenth finds an emptier queue: not counted
_TURNS = 20  # in so many stretches of time, one after the other, latencies are independent enough
_TICK_S = 1e-3  # event loops wake no finer; who is due meanwhile is sent together, late
_STEP = 1.05  # the rate is found to so much


@dataclass
class Run:
    """What came of one rate: requests a second that were due, how each ended, and for each in the order they were due
    its latency and how late the client sent it, both in ms; and the most that were under way at once."""

    rate: float
    latency_ms: NDArray[Any]
    late_ms: NDArray[Any]
    statuses: Counter[str] = field(default_factory=Counter)
    at_once: int = 0

    @property
    def answered(self) -> float:
        """The share that got its answer."""
        return self.statuses["200"] / max(1, self.statuses.total())

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.latency_ms, q))

    @property
    def interval(self) -> Interval:
        """Of the 99th percentile, 95 %."""
        return percentile_interval(np.array_split(self.latency_ms, _TURNS), PERCENTILE)

    @property
    def client_ms(self) -> float:
        """How late the client sent, at the same percentile: it is in the latencies."""
        return float(np.percentile(self.late_ms, PERCENTILE))


def connected(connections: int = 256) -> aiohttp.ClientSession:
    """What a load is sent over, to be used in an `async with` block; it shows the key of the environment."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers=authorization(),
    )


class Load:
    """Sends requests in turn to one model, over at most so many connections as `session` has."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, requests: Sequence[Request]) -> None:
        self._session, self._url, self._requests = session, f"{endpoint.url}/infer", requests

    async def alone(self, count: int = 20) -> float:
        """The median latency of requests one after the other, ms. Raises RequestError where one is not answered."""
        latencies = []
        for number in range(count):
            start = time.monotonic()
            status, text = await self._send(number)
            latencies.append((time.monotonic() - start) * 1e3)
            if status != "200":
                raise RequestError(f"{self._url}: {status}, {sentence(text)}")
        return float(np.median(latencies))

    async def at(self, rate: float, seconds: float, seed: int, limit_ms: float = math.inf) -> Run:
        """So many requests a second at Poisson arrivals, for that long. It ends early once so many took longer than
        `limit_ms` that the percentile cannot hold."""
        count = max(FEWEST, round(rate * seconds))
        due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count)) + time.monotonic() + _TICK_S
        warm, too_many = count // _WARM, (100 - PERCENTILE) / 100 * count
        latency_ms, late_ms = np.full(count, np.nan), np.full(count, np.nan)
        statuses: Counter[str] = Counter()
        misses = under_way = at_once = 0

        async def one(number: int) -> None:
            nonlocal misses, under_way, at_once
            late_ms[number] = (time.monotonic() - due[number]) * 1e3
            under_way += 1
            at_once = max(at_once, under_way)
            status, _ = await self._send(number)
            under_way -= 1
            statuses[status] += 1
            taken_ms = (time.monotonic() - due[number]) * 1e3
            latency_ms[number] = taken_ms if status == "200" else TIMEOUT_S * 1e3
            misses += bool(latency_ms[number] > limit_ms and number >= warm)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                while (wait_s := due[number] - time.monotonic()) > 0:
                    await asyncio.sleep(max(wait_s, _TICK_S))
                if misses > too_many:
                    break
                group.create_task(one(number))
                if number % 50 == 49:
                    await asyncio.sleep(0)  # a client that falls behind must not stop to read answers
        kept = np.isfinite(latency_ms) & (np.arange(count) >= warm)
        return Run(rate, latency_ms[kept], late_ms[kept], statuses, at_once)

    async def _send(self, number: int) -> tuple[str, str]:
        """The status, or the name of what went wrong, and what the server said for an error."""
        body, headers = self._requests[number % len(self._requests)]
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                content = await response.read()
                text = "" if response.status == 200 else content.decode(errors="replace")
                return str(response.status), text
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__, str(error)


@dataclass(frozen=True)
class Held:
    """The largest rate whose 99th percentile is within the limit, requests a second, and its 95 % interval: from the
    largest that surely held to the least that surely did not."""

    rate: float
    interval: Interval


async def largest_rate(run: Callable[[float, int], Awaitable[Run]], start: float, limit_ms: float) -> Held | None:
    """By doubling or halving from `start`, then bisection; `run` is given a rate and a seed. The rate that is told held
    twice. None where even a hundredth of `start` does not hold."""
    runs: list[Run] = []

    async def holds(rate: float) -> bool:
        runs.append(await run(rate, len(runs)))
        return runs[-1].percentile(PERCENTILE) <= limit_ms

    low, high = start, start
    if await holds(start):
        while await holds(2 * high):
            high *= 2
        low, high = high, 2 * high
    else:
        while not await holds(low / 2):
            low /= 2
            if low < start / 100:
                return None
        low, high = low / 2, low
    while high > _STEP * low:
        rate = math.sqrt(low * high)
        low, high = (rate, high) if await holds(rate) else (low, rate)
    while not await holds(low):  # of many tries the luckiest would be told
        low /= _STEP
        if low < start / 100:
            return None
    surely = [r.rate for r in runs if r.interval[1] <= limit_ms]
    surely_not = [r.rate for r in runs if r.interval[0] > limit_ms]
    return Held(low, (min(low, max(surely, default=0.0)), max(low, min(surely_not, default=math.inf))))
