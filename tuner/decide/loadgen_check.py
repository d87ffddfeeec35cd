"""The champion once more, by MLCommons LoadGen's clock and queries: an opinion that owes nothing to our own timing."""

from dataclasses import asdict, replace
from typing import Any

from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig
from tuner.goal import Goal
from tuner.measure import host, loadgen
from tuner.measure.timing import device_lock
from tuner.measurement import Measurement
from tuner.system.deadline import Deadline
from tuner.system.worker import Worker
from tuner.verdict import Finding

_LONGER = 2.0  # times as long as a trial is timed
_LIMIT_S = 120.0
_SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3)
_QUERIES = 3500  # enough for LoadGen to judge a 99th percentile with a few late ones


def check(rig: Rig, winner: Finding, goal: Goal, call_s: float) -> tuple[Measurement, dict[str, Any] | None]:
    """The measurement, and what LoadGen says of it; None where it is not installed, the artifact keeps a clock of its
    own, or its calls are of several lengths. Where it could not run, what it says is the `problem`.

    One query at a time would leave replicas idle: what has several is driven Offline. In the Server scenario the
    simulated rate is a promise that only real arrivals can keep: it is lowered to the largest share of it at which the
    limit held. `call_s` is the mean call of the race.
    """
    measured = winner.measurement
    if loadgen.available() is not None:
        return measured, None
    try:
        folder = rig.built(winner.candidate)
        with (
            device_lock(rig.device_lock),
            rig.hosting(folder, winner.candidate, Deadline(_LIMIT_S)) as worker,
        ):
            if worker.run(host.beyond_loadgen):
                return measured, None
            worker.run_for(_LIMIT_S, host.warm_up, 1.0)
            seconds = _LONGER * rig.limits.measure_s
            if goal.scenario == "Server":
                return _served(worker, goal, measured, seconds, call_s)
            alone = goal.scenario == "SingleStream" and winner.candidate.replicas == 1
            run = worker.run_for(
                _LIMIT_S, loadgen.single_stream if alone else loadgen.offline, _LONGER * rig.limits.measure_s
            )
            return measured, {**asdict(run), "scenario": "SingleStream" if alone else "Offline"}
    except CandidateError as error:
        return measured, {"problem": error.sentence}


def _served(
    worker: Worker, goal: Goal, measured: Measurement, least_s: float, call_s: float
) -> tuple[Measurement, dict[str, Any]]:
    """The rate and the latency under real arrivals, and LoadGen's run at the largest share of the simulated rate at
    which the limit held, or else at the least that was tried. Of one run there is no interval: its latencies hang
    together, as those of a queue do."""
    assert measured.throughput and measured.latency_ms
    limit_ms = goal.limits["latency_ms"]
    for share in _SHARES:
        rate = share * measured.throughput
        seconds = max(least_s, _QUERIES / rate)
        run = worker.run_for(_LIMIT_S, loadgen.server, rate, limit_ms, float(goal.percentile), seconds, call_s)
        if getattr(run, f"p{goal.percentile}") <= limit_ms:
            break
    latency = replace(measured.latency_ms, p50=run.p50, p90=run.p90, p95=run.p95, p99=run.p99, ci95=None)
    return replace(measured, throughput=rate, latency_ms=latency), {**asdict(run), "share": share}
