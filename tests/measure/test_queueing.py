"""The simulated Server scenario against what is known of queues."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.measure.queueing import at_rate, largest_rate

services = st.builds(
    lambda mean, spread, slow, seed: mean * _lognormal(spread, slow, seed),
    mean=st.floats(0.05, 50),
    spread=st.floats(0, 0.5),
    slow=st.floats(0, 0.03),
    seed=st.integers(0, 100),
)


def _lognormal(spread: float, slow: float, seed: int) -> np.ndarray:
    """300 calls of about 1 ms, that share of them five times slower."""
    random = np.random.default_rng(seed)
    return np.exp(spread * random.normal(size=300)) * np.where(random.random(300) < slow, 5, 1)


quickly = settings(max_examples=8, deadline=None)


@quickly
@given(services, st.integers(1, 64), st.floats(0.8, 30), st.sampled_from([50, 90, 95, 99]))
def test_the_rate_holds_and_is_within_reach(service: np.ndarray, batch: int, over: float, percentile: int) -> None:
    limit_ms = over * float(np.median(service))
    found = largest_rate(service, batch, limit_ms, percentile)
    if np.percentile(service, percentile) > limit_ms:
        assert found is None
    if found is not None:
        assert 0 < found.rate < batch / service.mean() * 1e3
        assert getattr(found, f"p{percentile}") <= limit_ms
        assert found.p50 <= found.p90 <= found.p95 <= found.p99
        assert 1 <= found.batch_fill <= batch
        assert at_rate(service, batch, found.rate) == found


@pytest.mark.slow
@quickly
@given(services, st.integers(1, 32), st.integers(1, 4), st.floats(1, 10), st.floats(1, 3))
def test_a_wider_limit_never_gets_a_lower_rate(
    service: np.ndarray, batch: int, replicas: int, over: float, wider: float
) -> None:
    limit_ms = over * float(np.median(service))
    narrow, wide = (
        largest_rate(service, batch, limit, 95, replicas=replicas) for limit in (limit_ms, wider * limit_ms)
    )
    assert (narrow.rate if narrow else 0) <= (wide.rate if wide else 0)


@quickly
@given(services, st.integers(1, 64))
def test_a_query_that_comes_alone_takes_a_call(service: np.ndarray, batch: int) -> None:
    idle = at_rate(service, batch, 0.001 / service.mean() * 1e3)
    for q in (50, 90, 95):
        low, high = np.percentile(service, (q - 2, q + 2))
        assert 0.999 * low <= getattr(idle, f"p{q}") <= 1.001 * high
    assert idle.batch_fill == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("limit_ms", [20, 40])
def test_it_agrees_with_theory_where_calls_are_exponential(limit_ms: float) -> None:
    """M/M/1: the latency is exponential too, with rate μ - λ (Kleinrock, Queueing Systems, 1975, section 3.2)."""
    service = 2 * -np.log1p(-(np.arange(5000) + 0.5) / 5000)  # mean 2 ms
    np.random.default_rng(0).shuffle(service)
    expected = 500 - math.log(100) / limit_ms * 1e3
    rates = [found.rate for seed in range(4) if (found := largest_rate(service, 1, limit_ms, 99, seed))]
    assert np.mean(rates) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_it_agrees_with_theory_where_calls_take_the_same(load: float) -> None:
    """M/D/1 (Erlang, 1909; Tijms, A First Course in Stochastic Models, 2003, section 9.2.2): with time in calls,
    P(wait <= t) = (1 - load) Σ_k (load (k - t))^k / k! · exp(load (t - k)), over whole k up to t."""

    def waits_at_most(t: float) -> float:
        terms = [(load * (k - t)) ** k / math.factorial(k) * math.exp(load * (t - k)) for k in range(int(t) + 1)]
        return (1 - load) * sum(terms)

    p99_calls = 1 + next(t for t in np.arange(0, 30, 0.01) if waits_at_most(t) >= 0.99)
    found = [at_rate(np.array([2.0]), 1, load / 2e-3, seed).p99 / 2 for seed in range(4)]
    assert np.mean(found) == pytest.approx(p99_calls, rel=0.05)


def test_it_agrees_with_theory_where_a_full_batch_is_always_ready() -> None:
    """Past its capacity a session answers whole batches, back to back."""
    assert at_rate(np.array([2.0]), 8, 100_000).batch_fill == pytest.approx(8, abs=0.1)


def test_calls_that_are_slow_together_cost_more_than_the_same_calls_scattered() -> None:
    calls = np.where(np.arange(1000) % 250 < 10, 10.0, 1.0)
    scattered = np.random.default_rng(0).permutation(calls)
    together, apart = largest_rate(calls, 4, 40, 99), largest_rate(scattered, 4, 40, 99)
    assert together is not None
    assert apart is not None
    assert together.rate < 0.95 * apart.rate


@pytest.mark.parametrize("service", [[], [1.0, 0.0]])
def test_what_was_not_measured_is_refused(service: list[float]) -> None:
    with pytest.raises(ValueError, match="more than 0 ms"):
        largest_rate(np.array(service), 4, 10, 99)


@pytest.mark.slow
@quickly
@given(services, st.integers(1, 32), st.integers(2, 4), st.floats(1.5, 10))
def test_replicas_serve_at_least_as_many_times_more(
    service: np.ndarray, batch: int, replicas: int, over: float
) -> None:
    limit_ms = over * float(np.percentile(service, 99))
    one = largest_rate(service, batch, limit_ms, 95)
    several = largest_rate(service, batch, limit_ms, 95, replicas=replicas)
    assert one is not None and several is not None
    assert several.rate >= 0.9 * replicas * one.rate
    assert several.rate <= replicas * batch / service.mean() * 1e3


# were a hundredth of the calls slow, whether p99 is of them would be a matter of chance
clear = st.builds(_lognormal, spread=st.floats(0, 0.2), slow=st.sampled_from([0, 0.05]), seed=st.integers(0, 100))


@quickly
@given(clear, st.integers(2, 32), st.integers(2, 6), st.floats(0.01, 0.8))
def test_replicas_that_keep_apart_answer_at_most_a_share_later_than_those_that_never_wait_and_busy_ones_no_later(
    service: np.ndarray, batch: int, replicas: int, load: float
) -> None:
    rate = load * replicas * batch / service.mean() * 1e3
    apart, at_once = (at_rate(service, batch, rate, replicas=replicas, paced=paced) for paced in (True, False))
    share_ms = service.mean() / replicas
    assert apart.p50 <= 1.03 * at_once.p50 + share_ms
    assert apart.p99 <= 1.05 * at_once.p99 + (share_ms if load < 0.3 else 0)
    assert apart.batch_fill >= 0.99 * at_once.batch_fill


def test_replicas_that_keep_apart_hold_a_rate_within_a_limit_that_those_who_never_wait_miss() -> None:
    """Who comes when the batch has gone waits for a share of a call rather than for a whole one."""
    apart, at_once = (
        largest_rate(np.array([2.0]), 32, 1.6 * 2.0, 99, replicas=4, paced=paced) for paced in (True, False)
    )
    assert apart is not None and at_once is not None
    assert apart.rate > 2 * at_once.rate


@pytest.mark.slow
@quickly
@given(services, st.integers(1, 32), st.integers(1, 6), st.floats(1.05, 3), st.booleans(), st.floats(0.02, 0.95))
def test_what_is_promised_holds_at_lower_rates_too(
    service: np.ndarray, batch: int, replicas: int, over: float, paced: bool, share: float
) -> None:
    limit_ms = over * float(np.percentile(service, 95))
    found = largest_rate(service, batch, limit_ms, 95, replicas=replicas, paced=paced)
    if found is not None:
        lower = at_rate(service, batch, share * found.rate, replicas=replicas, paced=paced)
        assert lower.p95 <= (1.01 if paced else 1.04) * limit_ms, "between the rates that were tried"


@pytest.mark.parametrize("limit_calls", [1.55, 1.65, 1.8])
@pytest.mark.parametrize("batch", [2, 8, 32])
def test_two_replicas_keep_a_tight_limit_at_every_lower_load(batch: int, limit_calls: float) -> None:
    """Those that never wait are slower at 5 to 20 % of their load than at more."""
    service = 10 * _lognormal(0.03, 0, 0)
    found = largest_rate(service, batch, 10 * limit_calls, 99, replicas=2)
    assert found is not None
    assert found.rate > 0.1 * 2 * batch / service.mean() * 1e3
    for share in (0.5, 0.2, 0.1, 0.05, 0.02):
        assert at_rate(service, batch, share * found.rate, replicas=2).p99 <= 10 * limit_calls


@quickly
@given(services, st.integers(1, 64), st.floats(0.01, 0.9))
def test_a_single_replica_never_waits(service: np.ndarray, batch: int, load: float) -> None:
    rate = load * batch / service.mean() * 1e3
    assert at_rate(service, batch, rate) == at_rate(service, batch, rate, paced=False)
