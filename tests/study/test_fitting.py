"""The defaults for a model of that size: what takes seconds a call gets fewer batch sizes and trials, unless told."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.study import node
from tuner.decide.doubts import PLAUSIBLE, about_reach
from tuner.goal import Goal
from tuner.request import compose
from tuner.request.request import Request
from tuner.search.recipe import BATCH_SIZE
from tuner.search.space import Space
from tuner.study.fitting import LEAST_TRIALS, LONGEST_MS, OURS, fitting, most_batch, trial_seconds
from tuner.testing.fakes import Null

SIZES = [1, 2, 4, 8, 16, 32, 64]


@pytest.fixture(scope="module")
def request_as_it_comes() -> Request:
    return compose.request(["search_space=quick"])


def with_(request: Request, *overrides: str, **changes: object) -> Request:
    return replace(request, overrides=(*request.overrides, *overrides), **changes)


def test_a_model_of_milliseconds_has_all_there_is(request_as_it_comes: Request) -> None:
    fit = fitting(request_as_it_comes, SIZES, call_ms=5.0, samples=100_000)
    assert (fit.most_batch, fit.trials, fit.left_out) == (64, 40, {})


def test_a_model_of_seconds_has_fewer_batch_sizes_and_trials_and_says_so(request_as_it_comes: Request) -> None:
    fit = fitting(request_as_it_comes, SIZES, call_ms=500.0, samples=100)
    assert fit.most_batch == 4
    assert LEAST_TRIALS <= fit.trials < 40
    batches, trials = fit.left_out.items()
    assert batches == (
        "batch sizes above 4",
        "a call of the float model takes 500 ms with one sample, so one with 8 about 4.0 s, long for a search; "
        "search_space.batch_size= tries others",
    )
    assert trials[0] == f"{40 - fit.trials} of 40 trials"
    assert "100 evaluation samples" in trials[1] and "timeout_s=360; n_trials= asks for more" in trials[1]


def test_batch_sizes_that_no_gain_could_bring_within_the_limit_are_left_out(request_as_it_comes: Request) -> None:
    limited = with_(request_as_it_comes, goal=Goal({"latency_ms": 20.0}))
    fit = fitting(limited, SIZES, call_ms=100.0, samples=10)
    assert fit.most_batch == 4  # 600 ms is 30 times 20
    assert "more than 30 times latency_ms=20" in fit.left_out["batch sizes above 4"]


@pytest.mark.parametrize("said", ["search_space.batch_size=[1,64]", "search_space={batch_size:64,deploy:[]}"])
def test_what_the_user_sets_wins(request_as_it_comes: Request, said: str) -> None:
    fit = fitting(with_(request_as_it_comes, said, "n_trials=40"), SIZES, call_ms=2000.0, samples=1000)
    assert (fit.most_batch, fit.trials, fit.left_out) == (64, 40, {})
    own = Space.parse({"batch_size": {"low": 8, "high": 64, "factor": 2}, "deploy": [{"backend": node(Null)}]})
    fit = fitting(with_(request_as_it_comes, space=own), [8, 16, 32, 64], call_ms=2000.0, samples=1)
    assert fit.most_batch == 64
    assert fitting(with_(request_as_it_comes, n_trials=90), [1], call_ms=2000.0, samples=1000).trials == 90


@pytest.mark.parametrize("name", ["default", "quick", "careful", "gpu"])
def test_the_batch_sizes_of_the_bundled_spaces_are_known_as_such(name: str) -> None:
    assert compose.request([f"search_space={name}"]).space.ranges[BATCH_SIZE] in OURS


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 512), min_size=1, unique=True),
    st.floats(0.01, 1e5),
    st.none() | st.floats(0.1, 1e4),
    st.floats(1.0, 10.0),
)
def test_slower_calls_never_have_larger_batches(
    sizes: Sequence[int], call_ms: float, limit_ms: float | None, slower: float
) -> None:
    most = most_batch(sizes, call_ms, limit_ms)
    assert most in sizes
    assert most_batch(sizes, call_ms * slower, limit_ms) <= most <= most_batch(sizes, call_ms, None)
    assert most == min(sizes) or most * call_ms <= LONGEST_MS
    assert trial_seconds(most, call_ms * slower, 100) >= trial_seconds(most, call_ms, 100)


@settings(max_examples=60)
@given(st.integers(1, 100), st.integers(0, 100), st.integers(1, 100))
def test_a_space_up_to_a_batch_size_has_its_points_up_to_there(low: int, wide: int, size: int) -> None:
    bounds = {"low": low, "high": low + wide, "factor": 2}
    tree = {"batch_size": bounds, "deploy": [{"backend": node(Null)}, {"batch_size": 8, "backend": node(Null, ms=2.0)}]}
    space = Space.parse(tree)
    kept = {candidate for _, candidate in space.points() or [] if candidate.batch_size <= size}
    assert {candidate for _, candidate in space.up_to(size).points() or []} == kept


def test_a_limit_far_below_what_the_float_model_takes_is_said_before_the_search() -> None:
    goal = Goal({"latency_ms": 5.0})
    assert list(about_reach(15.0, 1, goal)) == [] == list(about_reach(2000.0, 1, Goal()))
    (far,) = about_reach(50.0, 1, goal)
    assert far.sentence == (
        "the float model takes 50 ms at batch 1, 10.0 times latency_ms=5: only a candidate that is so much faster is "
        "within it"
    )
    (hopeless,) = about_reach(PLAUSIBLE * 5.0 + 1850, 1, goal)
    assert (
        "takes 2,000 ms at batch 1, 400 times latency_ms=5: that takes a larger limit or a smaller" in hopeless.sentence
    )
