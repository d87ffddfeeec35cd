"""What a study's latency and throughput mean, by MLPerf's scenario names.

`SingleStream`: calls one after the other; latency is that of a call with a whole batch, throughput batch size over
the median call. `Offline`: the same calls, and latency does not matter. `Server`: single samples arrive at random
(Poisson), are batched as `tune serve` batches them, and latency includes the wait; throughput is the largest rate at
which the limit holds (`tuner.measure.queueing`). Of several replicas, latency is that of each of their calls while all
are busy, and throughput that of all together.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.candidate import Candidate
from tuner.goal import Goal
from tuner.measure import queueing
from tuner.measure.statistics import Interval, percentile_interval
from tuner.measure.stream import whole_rounds
from tuner.measurement import Latency

_IDLE = 0.01  # of the rate of single calls: where Server is hopeless, what a lone query sees


def figures(
    goal: Goal, turns: Sequence[NDArray[Any]], candidate: Candidate, *, evenness: float = 1.0, resamples: int = 0
) -> tuple[Latency, float]:
    """Latency in ms, and samples per second, of the candidate's calls (in ms), which came in turns. The latency's
    interval is had by resampling the turns so many times; without, and of a queue, it has none. Of several lengths,
    latency is that of all calls, and throughput that of whole rounds of them. Replicas were at work all at once, and
    `evenness` is theirs (`Timing.evenness`)."""
    calls = np.concatenate(turns)
    a_round = whole_rounds(calls)  # of several lengths, each as often as it was declared
    if goal.scenario != "Server":
        p50, p90, p95, p99 = (float(np.percentile(calls, q)) for q in (50, 90, 95, 99))
        ci95 = percentile_interval(turns, goal.percentile, resamples) if resamples else None
        rate = evenness * candidate.at_once / float(np.median(a_round)) * 1e3
        return Latency(p50, p90, p95, p99, ci95), rate
    size, replicas = candidate.batch_size, candidate.replicas
    served = queueing.largest_rate(calls, size, goal.limits["latency_ms"], goal.percentile, replicas=replicas)
    if served is None:
        served = queueing.at_rate(calls, size, _IDLE * 1e3 / float(calls.mean()), replicas=replicas)
    return Latency(served.p50, served.p90, served.p95, served.p99, None), evenness * served.rate


def interval(
    goal: Goal,
    rounds: Sequence[Sequence[NDArray[Any]]],
    candidate: Candidate,
    rate: float,
    drift: Interval = (0.0, 0.0),
) -> Interval:
    """The interval of the declared percentile, ms: of what rounds of fresh processes gave, their least and greatest,
    widened by the drift of the machine (logarithms, from `statistics.drift`): a race lasts half a minute, and the
    machine's mood for longer.

    The least and the greatest of six or more hold the median at 97 % and more, whatever the distribution (order
    statistics: Conover, Practical Nonparametric Statistics, 1999, section 3.2).
    """
    if goal.scenario != "Server":
        latencies = [float(np.percentile(np.concatenate(turns), goal.percentile)) for turns in rounds]
    else:
        size, replicas = candidate.batch_size, candidate.replicas
        served = [queueing.at_rate(np.concatenate(turns), size, rate, replicas=replicas) for turns in rounds]
        latencies = [float(getattr(each, f"p{goal.percentile}")) for each in served]
    centre = float(np.median(latencies))
    low, high = math.log(min(latencies) / centre), math.log(max(latencies) / centre)
    return centre * math.exp(-math.hypot(low, drift[0])), centre * math.exp(math.hypot(high, drift[1]))
