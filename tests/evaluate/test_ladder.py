"""Where a trial is refused: what is known of a candidate may be too little to say, and is never held against it."""

import math

import pytest

from tuner.evaluate.ladder import WIDE_MARGIN, WORTH, refusal
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement

GOAL = Goal({"latency_ms": 5.0, "accuracy_drop": 0.01, "size_mb": 2.0})
BEST = math.log(1000.0)


def probed(ms: float, rate: float = 1000.0) -> Measurement:
    return Measurement(latency_ms=Latency(ms, ms, ms, ms, (ms, ms)), throughput=rate, probed=True)


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (Measurement(), None),
        (probed(5.0 * WIDE_MARGIN), None),
        (probed(5.1 * WIDE_MARGIN), "latency_ms"),
        (Measurement(size_mb=2.0), None),
        (Measurement(size_mb=2.1), "size_mb"),
        (Measurement(accuracy_drop=0.01), None),
        (Measurement(accuracy_drop=0.02), "accuracy_drop"),
        (probed(1.0, 1001.0 * math.exp(-WORTH)), None),
        (probed(1.0, 999.0 * math.exp(-WORTH)), "behind"),
        (probed(9.0, 1.0), "latency_ms"),
    ],
)
def test_a_trial_is_refused_for_what_is_too_far_out(measured: Measurement, why: str | None) -> None:
    assert refusal(measured, GOAL, BEST) == why


def test_nothing_is_behind_where_there_is_nothing_to_beat() -> None:
    assert refusal(probed(1.0, 1.0), GOAL, to_beat=None) is None


def test_what_is_half_trained_may_still_recover() -> None:
    half_trained = Measurement(accuracy_drop=0.15)
    assert refusal(half_trained, GOAL, BEST) == "accuracy_drop"
    assert refusal(half_trained, GOAL, BEST, lost_at=20) is None
    assert refusal(Measurement(accuracy_drop=0.25), GOAL, BEST, lost_at=20) == "accuracy_drop"


def test_without_limits_only_what_is_behind_is_refused() -> None:
    measured = Measurement(accuracy_drop=0.9, size_mb=900.0, throughput=1.0)
    assert refusal(measured, Goal(), None) is None
    assert refusal(measured, Goal(), BEST) == "behind"


def test_a_measurement_of_a_few_calls_says_so_and_an_old_one_is_known_by_what_it_lacks() -> None:
    for measured in (probed(1.0), Measurement(accuracy=1.0), Measurement(latency_vs_reference=2.0)):
        assert Measurement.from_json(measured.to_json()) == measured
    old = {name: value for name, value in probed(1.0).to_json().items() if name != "probed"}
    assert Measurement.from_json(old).probed
    assert not Measurement.from_json(old | {"latency_vs_reference": 2.0}).probed
    assert not Measurement.from_json(old | {"latency_ms": None}).probed
