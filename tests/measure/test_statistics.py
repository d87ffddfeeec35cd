"""The intervals: against textbook values, and against simulated truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure import statistics
from tuner.measure.statistics import (
    drift,
    drop_interval,
    mean_interval,
    paired_proportions,
    percentile_interval,
    samples_to_certify,
    score_interval,
    t95,
)


def test_tangos_interval_is_the_published_one() -> None:
    # Tango 1998, table III: crossover trial, b=12, c=2, n=44... and the closed form where no pair differs
    low, high = paired_proportions(0, 0, 50)
    assert high == pytest.approx(1.959964**2 / (50 + 1.959964**2), abs=1e-4)
    assert low == pytest.approx(-high)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(81, 2000))
def test_an_interval_holds_its_estimate_and_mirrors(lost: int, won: int, count: int) -> None:
    low, high = paired_proportions(lost, won, count)
    assert -1 <= low <= (lost - won) / count <= high <= 1
    mirrored = paired_proportions(won, lost, count)
    assert mirrored == pytest.approx((-high, -low), abs=1e-6)


@pytest.mark.parametrize(("lost", "won"), [(0.01, 0.003), (0.05, 0.05), (0.2, 0.1)])
def test_intervals_cover_the_truth(lost: float, won: float) -> None:
    generator = np.random.default_rng(0)
    draws = generator.multinomial(400, (lost, won, 1 - lost - won), size=400)
    intervals = [paired_proportions(a, b, 400) for a, b, _ in draws]
    assert sum(low <= lost - won <= high for low, high in intervals) / 400 >= 0.92


def test_luck_on_fifty_samples_certifies_nothing() -> None:
    perfect = np.ones(50)
    assert drop_interval(perfect, perfect)[1] > 0.01
    assert samples_to_certify(perfect, perfect, 0.01) == 381


@given(st.integers(0, 5), st.floats(0.02, 0.2))
def test_the_samples_asked_for_do_settle_it(lost: int, limit: float) -> None:
    reference, scores = np.ones(200), np.ones(200)
    scores[:lost] = 0
    needed = samples_to_certify(reference, scores, limit)
    if needed is None:  # the estimate is at the limit, or nearer to it than a trillion samples could tell
        assert lost / 200 > limit - 1e-6
    else:
        assert lost / 200 < limit and needed >= 200
        assert paired_proportions(lost / 200 * needed, 0, needed)[1] <= limit


def test_scores_that_are_not_0_or_1_are_bootstrapped() -> None:
    generator = np.random.default_rng(1)
    reference = generator.normal(1.0, 0.1, 500)
    low, high = drop_interval(reference, reference - 0.02 + generator.normal(0, 0.01, 500))
    assert low < 0.02 < high < 0.03


def test_a_bootstrap_in_parts_is_the_one_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    reference, scores = generator.normal(size=(2, 301))
    picks = np.random.default_rng(0).integers(301, size=(2000, 301))
    at_once = tuple(np.percentile((reference - scores)[picks].mean(axis=1), (2.5, 97.5)))
    for together in (5_000_000, 301 * 7, 1):
        monkeypatch.setattr(statistics, "_AT_ONCE", together)
        assert drop_interval(reference, scores) == at_once


def test_very_many_samples_have_the_normal_interval_which_is_the_bootstrap_s(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, scores = np.random.default_rng(1).exponential(size=(2, 20_000))
    bootstrapped = drop_interval(reference, scores)
    monkeypatch.setattr(statistics, "_BOOTSTRAPPED", 10_000)
    low, high = drop_interval(reference, scores)
    assert (low, high) == pytest.approx(bootstrapped, abs=0.1 * (high - low))


def test_a_perfect_score_has_an_interval_too() -> None:
    low, high = score_interval(np.ones(100))
    assert 0.95 < low < 1 and high == pytest.approx(1)


def test_graded_scores_that_are_all_the_same_are_not_right_or_wrong_by_chance() -> None:
    same = np.ones(320)
    assert drop_interval(same, same)[1] > 0.01 and drop_interval(same, same, graded=True) == (0, 0)
    assert samples_to_certify(same, same, 0.01, graded=True) == 320 < (samples_to_certify(same, same, 0.01) or 0)
    assert score_interval(same, graded=True) == (1, 1)


def test_students_t_widens_for_few_values() -> None:
    assert t95(0) == math.inf and t95(2) == pytest.approx(4.303) and t95(1000) == pytest.approx(1.962, abs=1e-3)
    assert mean_interval([1.0]) == (-math.inf, math.inf)
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))


def test_drift_is_how_far_the_machine_went_either_way() -> None:
    assert drift([1.0, 2.0, 3.0, 4.0]) == (0.0, 0.0), "too few to tell"
    low, high = drift([1.0] * 90 + [1.5] * 10)
    assert (low, high) == (0.0, pytest.approx(math.log(1.5)))


def test_calls_of_one_turn_count_as_one_mood() -> None:
    generator = np.random.default_rng(0)
    moods = generator.normal(10, 1, 20)
    turns = [mood + generator.normal(0, 0.01, 200) for mood in moods]
    low, high = percentile_interval(turns, 50)
    assert high - low > 0.3  # 4,000 independent calls would pretend to 0.06


@given(st.lists(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), min_size=1, max_size=6), st.floats(1, 99))
def test_the_bootstrap_is_as_if_every_resample_were_laid_out(calls: list[list[float]], q: float) -> None:
    turns = [np.array(turn) for turn in calls]
    picks = np.random.default_rng(0).integers(len(turns), size=(100, len(turns)))
    draws = [np.percentile(np.concatenate([turns[i] for i in pick]), q) for pick in picks]
    assert percentile_interval(turns, q, 100) == pytest.approx(tuple(np.percentile(draws, (2.5, 97.5))), rel=1e-9)
