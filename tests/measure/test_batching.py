"""When a batch goes to a free replica."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.batching import Pace

sizes, replicas = st.integers(1, 64), st.integers(1, 8)
calls, times = st.floats(0, 10), st.floats(0, 100)


@given(sizes, calls, times, st.integers(1, 64))
def test_a_single_replica_takes_what_waits(size: int, call: float, since: float, waiting: int) -> None:
    assert Pace.of(size, 1, call).hold(waiting, since) == 0


@given(sizes, replicas, calls, times, st.integers(0, 64))
def test_whole_batches_small_ones_and_those_that_come_long_after_the_last_go_at_once(
    size: int, count: int, call: float, since: float, smaller: int
) -> None:
    pace = Pace.of(size, count, call, smaller)
    assert pace.hold(size, since) == 0
    assert pace.hold(1, call / count + since) == 0
    assert pace.hold(1, math.inf) == 0, "no replica is busy"
    assert all(pace.hold(waiting, since) == 0 for waiting in range(1, smaller + 1))


def test_less_than_a_batch_waits_for_the_end_of_the_share() -> None:
    pace = Pace.of(8, 4, call=0.02)  # calls are 5 ms apart
    assert [pace.hold(waiting, 0.002) for waiting in (1, 7, 8)] == [0.003, 0.003, 0]


@given(sizes, replicas, calls, times, st.integers(1, 64), st.floats(1, 1e3))
def test_the_unit_of_time_is_no_matter(
    size: int, count: int, call: float, since: float, waiting: int, unit: float
) -> None:
    unit = 2.0 ** round(math.log2(unit))  # of which products are exact
    one, other = Pace.of(size, count, call), Pace.of(size, count, call * unit)
    assert other.hold(waiting, since * unit) == one.hold(waiting, since) * unit
