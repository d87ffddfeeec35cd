"""Scenarios: what latency and throughput mean."""

import json
from typing import Any

import numpy as np
import pytest

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.goal import Goal
from tuner.measure.scenario import figures, interval
from tuner.measurement import Measurement
from tuner.testing.fakes import Null

EIGHT = Candidate((), Null(), 8)
CALLS = [np.full(50, 2.0), np.full(50, 2.0)]


def test_single_stream_is_one_call_after_the_other() -> None:
    latency, rate = figures(Goal({"latency_ms": 5}), CALLS, EIGHT)
    assert latency.p95 == 2.0 and rate == pytest.approx(4000)


def test_calls_of_several_lengths_give_the_rate_of_whole_rounds_and_the_latency_of_every_call() -> None:
    rounds = [np.tile([1.0, 1.0, 10.0], (20, 1))] * 2  # two short calls to a long one
    latency, rate = figures(Goal({"latency_ms": 50}), rounds, EIGHT, resamples=50)
    assert (latency.p50, latency.p95) == (1.0, 10.0)
    assert rate == pytest.approx(8 / 4.0 * 1e3)
    assert latency.ci95 == (10.0, 10.0)


def test_a_server_waits_and_serves_less() -> None:
    latency, rate = figures(Goal({"latency_ms": 5}, scenario="Server"), CALLS, EIGHT)
    assert 2.0 < latency.p99 <= 5 and 1000 < rate < 4000


def test_a_server_whose_calls_are_too_slow_is_infeasible() -> None:
    latency, _ = figures(Goal({"latency_ms": 1}, scenario="Server"), CALLS, EIGHT)
    assert latency.p99 > 1


@pytest.mark.parametrize(("limits", "scenario", "resamples"), [({"latency_ms": 5}, "Server", 50), ({}, "Offline", 0)])
def test_what_has_no_interval_says_none_and_is_not_certified(
    limits: dict[str, float], scenario: Any, resamples: int
) -> None:
    """Median and 99th percentile of a queue were given for one."""
    latency, rate = figures(Goal(limits, scenario=scenario), CALLS, EIGHT, resamples=resamples)
    assert latency.ci95 is None
    measured = Measurement(latency_ms=latency, throughput=rate, accuracy_drop=0.0)
    assert Measurement.from_json(json.loads(json.dumps(measured.to_json()))) == measured
    wanted = Goal({"latency_ms": 5})
    assert wanted.feasible(measured) and not wanted.certified(measured)


def test_rounds_that_agree_give_a_narrow_interval() -> None:
    rounds = [[np.full(10, ms)] for ms in (2.0, 2.01, 1.99)]
    low, high = interval(Goal({"latency_ms": 5}), rounds, EIGHT, 4000)
    assert 1.9 < low < 2.0 < high < 2.1


@pytest.mark.parametrize(
    ("goal", "word"),
    [
        ({"scenario": "Offline", "limits": {"latency_ms": 5.0}}, "Offline has no latency"),
        ({"scenario": "Server"}, "latency_ms"),
        ({"scenario": "MultiStream"}, "must be one of"),
    ],
)
def test_a_scenario_that_contradicts_its_limits_is_refused(goal: dict[str, object], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        Goal(**goal)  # type: ignore[arg-type]


def test_the_percentile_is_the_scenarios_own() -> None:
    assert Goal().percentile == 95
    assert Goal({"latency_ms": 5}, scenario="Server").percentile == 99
    assert Goal(latency_percentile=50).percentile == 50
