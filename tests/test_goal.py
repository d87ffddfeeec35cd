"""What is feasible, and how far the rest is from it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import RequestError
from tuner.goal import PERCENTILES, Goal
from tuner.measurement import Latency, Measurement
from tuner.system.digests import digest

positive = st.floats(1e-3, 1e3)
share = st.floats(0, 1)


def optional(strategy: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.none() | strategy


@st.composite
def latencies(draw: st.DrawFn) -> Latency:
    p50, p90, p95, p99 = sorted(draw(st.tuples(positive, positive, positive, positive)))
    return Latency(p50, p90, p95, p99, (p50, p99))


measurements = st.builds(
    Measurement,
    latency_ms=st.none() | latencies(),
    throughput=optional(positive),
    accuracy_drop=optional(st.floats(-1, 1)),
    size_mb=optional(positive),
    memory_mb=optional(positive),
    more=st.dictionaries(st.sampled_from(["jitter", "tokens_per_s"]), positive),
)
limits = st.builds(
    Goal,
    st.fixed_dictionaries(
        {
            "latency_ms": optional(positive),
            "accuracy_drop": optional(share),
            "size_mb": optional(positive),
            "memory_mb": optional(positive),
        }
    ),
    latency_percentile=st.sampled_from(PERCENTILES),
)


@given(goal=limits, measured=measurements)
def test_feasible_means_that_every_limit_was_measured_and_holds(goal: Goal, measured: Any) -> None:
    seen = {
        "latency_ms": measured.latency_ms and measured.latency_ms.percentile(goal.latency_percentile),
        "accuracy_drop": measured.accuracy_drop,
        "size_mb": measured.size_mb,
        "memory_mb": measured.memory_mb,
    }
    declared = goal.limits
    holds = all(seen[name] is not None and seen[name] <= limit for name, limit in declared.items())
    assert goal.feasible(measured) == holds
    excess = goal.violations(measured)
    assert excess.keys() == {name for name in declared if seen[name] is not None}
    assert all((excess[name] <= 0) == (seen[name] <= declared[name]) for name in excess)


@given(goal=limits, measured=measurements)
def test_a_miss_of_nothing_is_feasible(goal: Goal, measured: Measurement) -> None:
    miss = goal.miss(measured)
    assert (miss == 0) == goal.feasible(measured)
    assert miss >= 0
    unmeasured = goal.violations(measured).keys() != goal.limits.keys()
    assert math.isinf(miss) == unmeasured


@given(goal=limits, measured=measurements, more=positive)
def test_what_is_worse_misses_by_no_less(goal: Goal, measured: Measurement, more: float) -> None:
    if measured.size_mb is None:
        return
    worse = Measurement(**{**vars(measured), "size_mb": measured.size_mb + more})
    assert goal.miss(worse) >= goal.miss(measured)


def test_the_declared_percentile_is_the_one_that_counts() -> None:
    measured = Measurement(latency_ms=Latency(1, 2, 3, 4, (3, 3)))
    feasible = [q for q in PERCENTILES if Goal({"latency_ms": 2.5}, latency_percentile=q).feasible(measured)]
    assert feasible == [50, 90]


def test_a_point_of_accuracy_counts_for_as_much_as_the_whole_limit() -> None:
    excess = Goal({"accuracy_drop": 0}).violations(Measurement(accuracy_drop=0.02))
    assert excess == {"accuracy_drop": pytest.approx(2)}
    excess = Goal({"accuracy_drop": 0.1}).violations(Measurement(accuracy_drop=0.12))
    assert excess == {"accuracy_drop": pytest.approx(0.2)}


@given(measured=measurements)
def test_a_measurement_survives_json(measured: Measurement) -> None:
    assert Measurement.from_json(json.loads(json.dumps(measured.to_json()))) == measured


@pytest.mark.parametrize("field", ["latency_ms", "size_mb", "memory_mb"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_limit_is_a_positive_number(field: str, value: float) -> None:
    with pytest.raises(RequestError, match=field):
        Goal({field: value})


@pytest.mark.parametrize("value", [-0.01, math.inf, math.nan])
def test_a_limit_out_of_range_is_refused_by_name(value: float) -> None:
    with pytest.raises(RequestError, match="accuracy_drop"):
        Goal({"accuracy_drop": value})


def test_a_percentile_that_is_not_measured_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="latency_percentile"):
        Goal(latency_percentile=42)


def test_what_cannot_be_limited_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RequestError, match="latency: no figure of that name can be limited; did you mean latency_ms"):
        Goal({"latency": 5})


def test_a_goal_keeps_the_digest_that_registered_champions_have_of_it() -> None:
    """Their record holds one of these keys and values: whoever changes it forgets every registered champion."""
    goal = Goal({"latency_ms": 5.0, "accuracy_drop": 0.01}, latency_percentile=99)
    before = {
        "latency_ms": 5.0, "latency_percentile": 99, "scenario": "SingleStream", "accuracy_drop": 0.01,
        "size_mb": None, "memory_mb": None, "objective": "throughput",
    }  # fmt: skip
    assert goal.to_json() == before
    assert digest(goal.to_json()) == digest(before) == "457ec92bbc102897"


@given(one=measurements, other=measurements)
def test_objectives_prefer_what_their_names_say(one: Measurement, other: Measurement) -> None:
    for name, value, sign in (
        ("throughput", lambda m: m.throughput, 1),
        ("latency", lambda m: m.latency_ms and m.latency_ms.p50, -1),
        ("size_mb", lambda m: m.size_mb, -1),
    ):
        goal = Goal(objective=name)
        first, second = goal.score(one), goal.score(other)
        assert (first is None) == (value(one) is None)
        if first is not None and second is not None and sign * value(one) > sign * value(other):
            assert first >= second


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(RequestError, match="throughput, latency or size_mb"):
        Goal(objective="speed")
