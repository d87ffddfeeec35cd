"""Who races and who wins, on made-up outcomes and races."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from tuner.candidate import Candidate
from tuner.decide import choice
from tuner.decide.contest import INCUMBENT, Contest, drift_during, raced_measurement
from tuner.decide.race import FLOOR, LEAST_ROUNDS, TWIN, Lap, Race, run
from tuner.evaluate.ladder import WORTH
from tuner.goal import Goal
from tuner.measure.timing import Timing
from tuner.measurement import Latency, Measurement
from tuner.testing.fakes import Null, Rounding
from tuner.trial import Failure, Outcome
from tuner.verdict import Finding

GOAL = Goal({"latency_ms": 10.0, "accuracy_drop": 0.01})
NO_CALLS = Timing((), ())
NAMES = ("a", "b", "c", "d", INCUMBENT)


def measured(rate: float = 100.0, ms: float = 5.0, drop: float = 0.0, size_mb: float = 1.0) -> Measurement:
    return Measurement(Latency(ms, ms, ms, ms, (ms, ms)), rate, accuracy=1.0, accuracy_drop=drop, size_mb=size_mb)


def contest(
    scores: Mapping[str, float], findings: Mapping[str, Finding], jitter: float = 0.0, seed: int = 0
) -> Contest:
    """A race in which each has its score in every round, less what a normal `jitter` takes; nobody drops out."""
    random = np.random.default_rng(seed)
    rounds = [
        {
            name: Lap(NO_CALLS, noisy := score + random.normal(0, jitter), math.exp(noisy))
            for name, score in scores.items()
        }
        for _ in range(LEAST_ROUNDS)
    ]
    return Contest(Race("a", list(rounds)), findings)


contests = some.builds(
    contest,
    some.fixed_dictionaries({name: some.floats(-0.3, 0.3) for name in NAMES}),
    some.fixed_dictionaries(
        {
            name: some.builds(
                Finding,
                some.builds(
                    Candidate,
                    some.lists(some.just(Rounding()), max_size=2).map(tuple),
                    some.just(Null()),
                    some.integers(1, 64),
                ),
                some.builds(measured, ms=some.sampled_from([5.0, 20.0]), size_mb=some.floats(0.1, 10)),
            )
            for name in NAMES
        }
    ),
    some.floats(0, 0.1),
    some.integers(0, 1000),
)


def simplicity(finding: Finding) -> tuple[int, float]:
    return len(finding.candidate.transforms), finding.measurement.size_mb or 0.0


@given(contests, some.booleans())
def test_all_that_are_within_the_limits_are_ranked_and_nothing_else(held: Contest, favoured: bool) -> None:
    within = {name for name, finding in held.findings.items() if GOAL.feasible(finding.measurement)}
    order = choice.ranked(held, GOAL, favoured=favoured)
    assert len(order) == len(within) and set(order) == within


@given(contests)
def test_a_tie_with_the_best_goes_to_the_simplest(held: Contest) -> None:
    order = choice.ranked(held, GOAL, favoured=False)
    if order:
        best = held.race.ranked(order)[0]
        tied = [name for name in order if held.race.behind(name, best) <= held.race.noise]
        assert order[0] in tied
        assert simplicity(held.findings[order[0]]) == min(simplicity(held.findings[name]) for name in tied)


@given(contests)
def test_behind_the_ties_the_order_is_that_of_the_race(held: Contest) -> None:
    order = choice.ranked(held, GOAL, favoured=False)
    by_race = held.race.ranked(order) if order else []
    behind = [name for name in by_race if held.race.behind(name, by_race[0]) > held.race.noise]
    assert order[len(order) - len(behind) :] == behind


@given(contests)
def test_before_a_favoured_incumbent_come_those_better_beyond_the_noise_alone(held: Contest) -> None:
    order = choice.ranked(held, GOAL, favoured=True)
    if INCUMBENT in order:
        place = order.index(INCUMBENT)
        better = [held.race.behind(INCUMBENT, name) > held.race.noise for name in order if name != INCUMBENT]
        assert better == [True] * place + [False] * (len(order) - 1 - place)


@given(contests)
def test_favour_changes_nothing_among_the_others(held: Contest) -> None:
    favoured, impartial = (choice.ranked(held, GOAL, favoured=flag) for flag in (True, False))
    if INCUMBENT in favoured:
        place = favoured.index(INCUMBENT)
        for part in (favoured[:place], favoured[place + 1 :]):
            assert part == [name for name in impartial if name in part]


@given(contests, some.permutations(NAMES))
def test_who_is_named_first_does_not_matter(held: Contest, names: list[str]) -> None:
    shuffled = Contest(held.race, {name: held.findings[name] for name in names})
    winners = [order[0] for one in (held, shuffled) if (order := choice.ranked(one, GOAL, favoured=False))]
    assert len({simplicity(held.findings[name]) for name in winners}) <= 1


def test_one_that_dropped_out_is_behind_those_that_did_not() -> None:
    scores = {"a": 0.0, "b": -0.01, "slow": -0.5}
    findings = {name: Finding(Candidate((), Null(), batch), measured()) for batch, name in enumerate(scores, 1)}
    held = contest(scores, findings)
    held.race.rounds[4:] = [{name: laps[name] for name in ("a", "b")} for laps in held.race.rounds[4:]]
    assert choice.ranked(held, GOAL, favoured=False) == ["a", "b", "slow"]


def outcomes(rates: list[float], **more: float) -> list[Outcome]:
    return [Outcome(Candidate((), Null(), n), "complete", measured(rate, **more)) for n, rate in enumerate(rates, 1)]


rates = some.lists(some.floats(1, 1e4), max_size=9)


@given(rates, rates)
def test_finalists_are_the_best_feasible_that_a_race_may_change(feasible: list[float], over: list[float]) -> None:
    chosen = choice.finalists([*outcomes(over, ms=20.0), *outcomes(feasible)], GOAL)
    scores = [choice.score(GOAL, outcome.measurement) for outcome in chosen]
    assert scores == sorted(scores, reverse=True)
    assert len(chosen) <= choice.FINALISTS
    assert all(GOAL.feasible(outcome.measurement) for outcome in chosen)
    assert bool(chosen) == bool(feasible)
    if chosen:
        assert scores[0] >= math.log(max(feasible)) - FLOOR
        batches = {outcome.candidate.batch_size: score for outcome, score in zip(chosen, scores, strict=True)}
        for batch, rate in enumerate(feasible, 1):
            left_out = batch not in batches and math.log(rate) > scores[0] - WORTH
            equalled = any(smaller < batch and at >= math.log(rate) - FLOOR for smaller, at in batches.items())
            assert equalled or not left_out or len(chosen) == choice.FINALISTS


def test_of_batches_that_are_as_good_the_smallest_races() -> None:
    even = outcomes([100.0, 101.0, 101.9, 104.0])  # 102 is equal to 100, 104 is not
    in_two = [replace(outcome, candidate=replace(outcome.candidate, replicas=2)) for outcome in even]
    for done in (even, in_two, even[::-1]):
        assert [o.candidate.batch_size for o in choice.finalists(done, GOAL)] == [4, 1]
        assert [o.candidate.batch_size for o in choice.rivals(done, choice.plain_runtime, GOAL)] == [4, 1]
    assert len(choice.finalists([*even, *in_two], GOAL)) == 4


@given(rates, rates)
def test_rivals_within_the_limits_come_before_faster_ones_outside(feasible: list[float], over: list[float]) -> None:
    best = choice.rivals([*outcomes(over, ms=20.0), *outcomes(feasible)], lambda candidate: True, GOAL)
    within = [GOAL.feasible(outcome.measurement) for outcome in best]
    assert within == sorted(within, reverse=True)
    unequalled: list[float] = []  # by smaller batches
    for rate in feasible:
        if not any(math.log(smaller) >= math.log(rate) - FLOOR for smaller in unequalled):
            unequalled.append(rate)
    assert len(best) == min(choice.RIVALS, len(unequalled) + len(over))
    assert sum(within) == min(choice.RIVALS, len(unequalled))


def test_many_calls_are_needed_where_a_percentile_of_latency_may_decide() -> None:
    near, far = outcomes([1.0], ms=5.1), outcomes([1.0, 2.0], ms=4.9)
    assert choice.latency_matters(GOAL, [*far, *near]) and not choice.latency_matters(GOAL, far)
    assert not choice.latency_matters(Goal({"accuracy_drop": 0.01}), near), "no limit"
    assert choice.latency_matters(replace(GOAL, scenario="Server"), far)
    assert choice.latency_matters(replace(GOAL, objective="latency"), far)


def test_the_best_of_a_kind_is_one_within_the_limits_where_there_is_one() -> None:
    findings = {
        "a": Finding(Candidate((), Null(), 1), measured(ms=20.0)),
        "b": Finding(Candidate((), Null(), 2), measured()),
        "c": Finding(Candidate((Rounding(),), Null(), 2), measured()),
    }
    held = contest({"a": 1.0, "b": 0.5, "c": 2.0}, findings)
    assert choice.best_of(held, choice.plain_runtime, GOAL, "c") == "b"
    assert choice.best_of(held, lambda candidate: candidate.batch_size == 1, GOAL, "c") == "a"
    assert choice.best_of(held, lambda candidate: False, GOAL, "c") is None


def test_an_untuned_winner_gained_nothing_over_the_untuned() -> None:
    """It ties with another that the race saw slightly ahead: what it is compared with is itself."""
    findings = {name: Finding(Candidate((), Null(), 1, count), measured()) for name, count in (("a", 1), ("b", 2))}
    held = contest({"a": 1.0, "b": 1.001}, findings)
    assert held.race.ranked(["a", "b"])[0] == "b"
    assert choice.ranked(held, GOAL, favoured=False)[0] == "a", "ties go to fewer replicas"
    assert choice.best_of(held, choice.plain_runtime, GOAL, "a") == "a"


def test_the_nearest_miss_has_measured_every_limit_where_anything_has() -> None:
    far = Outcome(Candidate((), Null(), 1), "complete", measured(ms=90.0))
    stopped = Outcome(Candidate((), Null(), 2), "stopped_early", Measurement(accuracy_drop=0.02))
    failed = Outcome(Candidate((), Null(), 3), "failed", Measurement(), Failure("error", "no"))
    nearest = choice.nearest_miss([stopped, failed, far], GOAL)
    assert nearest is not None and nearest.candidate == far.candidate
    nearest = choice.nearest_miss([stopped, failed], GOAL)
    assert nearest is not None and nearest.candidate == stopped.candidate
    assert choice.nearest_miss([failed], GOAL) is None


def test_a_race_gives_its_own_figures_and_the_drift_of_the_trials_widens_their_interval() -> None:
    outcome = Outcome(Candidate((), Null(), 4), "complete", measured(size_mb=3.0))
    laps = [{"a": Lap(Timing((np.full(20, ms),), (0.5,)), 0.0, 1.0)} for ms in (2.0, 2.1, 1.9, 2.0, 2.0, 2.05)]
    narrow = raced_measurement(outcome, Race("a", list(laps)), "a", GOAL, (0.0, 0.0))
    trials = [Outcome(outcome.candidate, "complete", Measurement(reference_ms=ms)) for ms in np.linspace(1, 2, 20)]
    wide = raced_measurement(outcome, Race("a", list(laps)), "a", GOAL, drift_during(trials))
    assert narrow.throughput == 2000.0 and narrow.size_mb == 3.0 and narrow.cpu_ms == 0.5
    assert narrow.latency_ms is not None and wide.latency_ms is not None
    assert narrow.latency_ms.ci95 == (1.9, 2.1)
    assert wide.latency_ms.ci95[0] < 1.9 and wide.latency_ms.ci95[1] > 2.1


def test_the_twin_is_nobody_s_rival() -> None:
    held = contest({"a": 0.0, TWIN: 0.5}, {"a": Finding(Candidate((), Null(), 1), measured())})
    assert choice.ranked(held, GOAL, favoured=True) == ["a"]


def race_of(medians_ms: Mapping[str, float], fails: Mapping[str, int]) -> Race:
    """A race of contenders whose calls all take so long; each of `fails` does so in that round, counted from 1."""
    rounds = 0

    def time_round(names: Sequence[str]) -> tuple[dict[str, Lap], dict[str, str]]:
        nonlocal rounds
        rounds += 1
        failed = {name: "its process died" for name in names if fails.get(name) == rounds}
        calls = {name: medians_ms["a" if name == TWIN else name] for name in names if name not in failed}
        laps = {name: Lap(Timing((np.full(9, ms),), (ms,)), -math.log(ms), 1e3 / ms) for name, ms in calls.items()}
        return laps, failed

    return run([name for name in medians_ms if name != "base"], ["base"] * ("base" in medians_ms), time_round, print)


def contested(medians_ms: Mapping[str, float], fails: Mapping[str, int]) -> Contest:
    entrants = {
        name: Outcome(Candidate((), Null(), batch), "complete", measured()) for batch, name in enumerate(medians_ms, 1)
    }
    return Contest.of(race_of(medians_ms, fails), entrants, GOAL, (0.0, 0.0))


def test_the_fastest_that_fails_in_a_late_round_is_not_announced() -> None:
    held = contested({"a": 1.0, "b": 0.5, "base": 1.5}, {"b": 5})
    assert held.race.ranked(["a", "b"])[0] == "b" and "b" in held.race.failed
    assert choice.ranked(held, GOAL, favoured=False) == ["a", "base"]


def test_a_baseline_that_fails_in_the_race_is_nobody_s_rival() -> None:
    held = contested({"a": 1.0, "b": 2.0, "base": 1.5}, {"base": 3})
    assert choice.best_of(held, lambda candidate: candidate.batch_size == 3, GOAL, "a") is None


def test_whoever_is_announced_has_the_rounds_that_its_interval_takes() -> None:
    """The leader may prove to be outside the limits: those that dropped out behind it were in enough rounds."""
    held = contested({"a": 1.0, "b": 0.5, "c": 1.5}, {})
    assert held.race.ranked(["a", "b", "c"]) == ["b", "a", "c"]
    assert {name: len(held.race.turns(name)) >= LEAST_ROUNDS for name in held.findings} == dict.fromkeys("abc", True)


def test_a_baseline_left_alone_after_a_few_rounds_is_not_announced_by_them() -> None:
    held = contested({"a": 1.0, "base": 1.5}, {"a": 4})
    assert len(held.race.turns("base")) == 3 and choice.ranked(held, GOAL, favoured=False) == []
