"""Why tuning gained little is told in what can be counted in the table of trials."""

from dataclasses import replace

import pytest

from tuner.candidate import Candidate
from tuner.decide.gain import about_gain
from tuner.goal import Goal
from tuner.measure.roofline import Standing
from tuner.measurement import Measurement
from tuner.testing.fakes import Null, Rounding
from tuner.trial import Failure, Outcome
from tuner.verdict import Finding, Verdict

GOAL = Goal({"accuracy_drop": 0.01, "size_mb": 5})
UNTUNED = Candidate((), Null(), 8)


def verdict(gain: float) -> Verdict:
    champion = Finding(Candidate((Rounding(9),), Null(), 8), Measurement(throughput=gain * 100))
    return Verdict("feasible", champion, best_untuned=Finding(UNTUNED, Measurement(throughput=100)))


def tried(decimals: int, drop: float = 0.0, size_mb: float = 1.0, failure: Failure | None = None) -> Outcome:
    measured = Measurement(accuracy_drop=drop, size_mb=size_mb)
    state = "complete" if failure is None else "failed"
    return Outcome(Candidate((Rounding(decimals),), Null(), 8), state, measured, failure)


def test_each_end_is_counted_and_the_roofline_told() -> None:
    outcomes = [
        Outcome(UNTUNED, "complete", Measurement()),
        tried(1, drop=0.2),
        tried(2, drop=0.03),
        tried(3, failure=Failure("crash", "it died")),
        tried(4, size_mb=9),
        tried(5),
        replace(tried(6), state="stopped_early", stopped_by="behind"),
        Outcome(verdict(1.08).champion.candidate, "complete", Measurement()),  # type: ignore[union-attr]
    ]
    standing = Standing("f32", 61e9, 100e9, 4.0, "compute")
    [doubt] = about_gain(verdict(1.08), outcomes, GOAL, {UNTUNED: standing})
    assert doubt.name == "little_gained"
    assert doubt.sentence == (
        "1.08× the best untuned runtime, and why no more: of 6 other compressed or half-precision candidates 2 lost "
        "more than accuracy_drop=0.01, 1 failed, 1 broke size_mb, 1 kept the limits and gained nothing beyond the "
        "noise, 1 fell far behind after a few calls; null-2 · b8 reaches 61 % of what this device can do at f32 "
        "(compute-bound: 61 of 100 GFLOP/s)"
    )


def test_without_a_compressed_candidate_that_is_told() -> None:
    [doubt] = about_gain(verdict(1.0), [Outcome(UNTUNED, "complete", Measurement())], GOAL, {})
    assert doubt.sentence.endswith("why no more: no other compressed or half-precision candidate was tried")


def test_what_would_be_fast_and_lost_least_is_named_with_what_it_lost() -> None:
    def at(outcome: Outcome, rate: float) -> Outcome:
        return replace(outcome, measurement=replace(outcome.measurement, throughput_normalised=rate))

    lost = [at(tried(1, drop=0.03), 350), at(tried(2, drop=0.0156), 300), at(tried(3, drop=0.011), 101)]
    other = [at(tried(4, drop=0.0156), 250), at(tried(5, drop=0.012, size_mb=9), 500), at(tried(6), 105)]
    outcomes = [Outcome(UNTUNED, "complete", Measurement(throughput_normalised=100)), *lost, *other]
    [doubt] = about_gain(verdict(1.0), outcomes, GOAL, {})
    told = f"; the nearest is {lost[1].candidate.label}, 3.0× as fast in its trial, which loses 0.0156"
    assert doubt.sentence.endswith(told)


@pytest.mark.parametrize("shown", [verdict(1.3), Verdict("infeasible"), Verdict("feasible", verdict(1.0).champion)])
def test_else_there_is_nothing_to_say(shown: Verdict) -> None:
    assert not list(about_gain(shown, [], GOAL, {}))


def test_who_wants_small_files_asks_for_no_speed() -> None:
    assert not list(about_gain(verdict(1.0), [], Goal(objective="size_mb"), {}))
