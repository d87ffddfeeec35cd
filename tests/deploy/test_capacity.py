"""How many replicas hold a rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.deploy.capacity import Calls, Capacity, between, capacity
from tuner.errors import RequestError
from tuner.measure.queueing import at_rate


def calls(ms: float, batch_size: int = 8, sessions: int = 1, evenness: float = 1.0) -> Calls:
    return Calls(np.full(200, ms), batch_size, sessions, evenness, "a test")


@given(rate=st.floats(1, 1e6), more=st.floats(0, 1e6), held=st.floats(1, 1e5))
@settings(max_examples=50)
def test_one_may_fail_and_the_others_hold_the_rate(rate: float, more: float, held: float) -> None:
    each = Capacity(held, 10.0, "a test")
    assert (each.copies(rate) - 1) * held >= rate > (each.copies(rate) - 2) * held
    assert each.copies(rate + more) >= each.copies(rate)


def test_what_a_replica_holds_keeps_the_limit_and_a_bit_more_does_not() -> None:
    held = capacity(calls(2.0), 5.0)
    assert at_rate(np.full(200, 2.0), 8, held.rate).p99 <= 5.0
    assert at_rate(np.full(200, 2.0), 8, 1.05 * held.rate).p99 > 5.0


def test_sessions_hold_more_and_uneven_ones_less() -> None:
    alone, two = capacity(calls(2.0), 5.0).rate, capacity(calls(2.0, sessions=2), 5.0).rate
    assert 1.9 * alone < two
    assert capacity(calls(2.0, sessions=2, evenness=0.8), 5.0).rate == pytest.approx(0.8 * two)


def test_no_number_of_replicas_holds_what_a_call_alone_misses() -> None:
    with pytest.raises(RequestError, match="holds at no rate: a call takes 6 ms at p99"):
        capacity(calls(6.0), 5.0)


def test_percentiles_give_calls_with_those_percentiles() -> None:
    recorded = {50.0: 1.0, 90.0: 2.0, 95.0: 3.0, 99.0: 5.0}
    durations = between(recorded)
    np.testing.assert_allclose([np.percentile(durations, q) for q in recorded], list(recorded.values()), rtol=0.02)
