"""The rivals of a champion, and which points a search still has to try."""

from typing import ClassVar

from tests.study import node
from tuner.candidate import Candidate
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement
from tuner.search.space import Space
from tuner.study.baselines import past_its_best, rivals
from tuner.study.plan import Plan
from tuner.testing.fakes import Null, Rounding
from tuner.trial import Failure, Outcome


class Other(Null):
    pass


class Slow(Null):
    slow: ClassVar[bool] = True


def outcome(candidate: Candidate, rate: float) -> Outcome:
    return Outcome(candidate, "complete", Measurement(throughput_normalised=rate))


def at(batch_sizes: list[int], cores: int = 1) -> Space:
    return Space.parse({"batch_size": batch_sizes, "deploy": {"backend": node(Null)}}).shared(cores)


def test_each_baseline_is_tried_with_every_number_of_replicas() -> None:
    tried = rivals([], Null(), at([1, 4], cores=2))
    assert tried == [Candidate((), Null(), size, replicas) for size in (4, 1) for replicas in (2, 1)]


def test_every_runtime_that_ran_is_a_rival_but_one_that_is_slow_to_build_and_not_the_best() -> None:
    fast, other, slow = Null(), Other(), Slow()
    done = [outcome(Candidate((), backend, 1), rate) for backend, rate in ((fast, 100.0), (other, 9.0), (slow, 5.0))]
    assert [c.backend for c in rivals(done, None, at([1, 4]))] == [fast, other]
    best = [outcome(Candidate((), slow, 1), 900.0), *done[:2]]
    assert {c.backend for c in rivals(best, None, at([1, 4]))} == {fast, other, slow}


def test_each_baseline_is_tried_at_every_batch_size_that_was_not() -> None:
    done = [
        outcome(Candidate((), Null(), 1), 100.0),
        outcome(Candidate((Rounding(),), Null(), 8), 900.0),  # compressed: no baseline
    ]
    assert rivals(done, None, at([1, 4, 8])) == [Candidate((), Null(), 4), Candidate((), Null(), 8)]
    eager = Null(ms=3.0)
    assert rivals(done, eager, at([1, 4])) == [
        Candidate((), eager, 1),
        Candidate((), eager, 4),
        Candidate((), Null(), 4),
    ]


def test_one_that_failed_is_not_tried_again_and_is_no_best_runtime() -> None:
    failed = Outcome(Candidate((), Null(), 1), "failed", Measurement(), Failure("crash", "it died"))
    assert rivals([failed], None, at([1, 4])) == []
    assert rivals([failed], Null(), at([1, 4])) == [Candidate((), Null(), 4)]


def test_every_untried_point_is_given_out_once() -> None:
    space = Space.parse({"batch_size": {"low": 1, "high": 8, "factor": 2}, "deploy": [{"backend": node(Null)}]})
    points = space.points()
    assert points is not None
    tried = {points[0][1]}
    plan = Plan("brute", 4, list(points))
    given = []
    while (params := plan.next_untried(tried, lambda candidate: candidate.batch_size == 4)) is not None:
        given.append(space.at(params))
    assert {c.batch_size for c in given} == {c.batch_size for _, c in points[1:]} - {4}, "that one waits"
    assert [c.batch_size for _, c in plan.untried] == [4]
    assert plan.next_untried(tried, lambda candidate: False) is not None
    assert plan.next_untried(tried, lambda candidate: False) is None


def test_a_baseline_that_got_slower_twice_has_seen_its_best() -> None:
    def known(rates: dict[int, float], replicas: int = 1) -> list[Outcome]:
        return [outcome(Candidate((), Null(), size, replicas), rate) for size, rate in rates.items()]

    def skipped(size: int, rates: dict[int, float], replicas: int = 1) -> bool:
        return past_its_best(Candidate((), Null(), size), known(rates, replicas), Goal())

    falling = {8: 100.0, 16: 90.0, 32: 80.0}
    assert skipped(64, falling) and not skipped(4, falling) and not skipped(64, {})
    assert skipped(1, {8: 100.0, 4: 90.0, 2: 80.0})
    assert not skipped(64, {8: 100.0, 16: 90.0}), "one may have been disturbed"
    assert not skipped(64, {8: 100.0, 16: 80.0, 32: 90.0}), "it is faster again"
    assert not skipped(64, falling, replicas=2), "those are others"


def test_what_breaks_a_limit_says_nothing_of_a_baselines_best() -> None:
    goal = Goal({"latency_ms": 5.0})

    def done(size: int, rate: float, ms: float) -> Outcome:
        latency = Latency(ms, ms, ms, ms, (ms, ms))
        return Outcome(
            Candidate((), Null(), size), "complete", Measurement(latency_ms=latency, throughput_normalised=rate)
        )

    over = [done(64, 900.0, 70.0), done(32, 800.0, 40.0), done(16, 700.0, 20.0)]
    assert not past_its_best(Candidate((), Null(), 1), over, goal)
