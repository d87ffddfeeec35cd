"""Doubts: each is raised by what it is about, and by nothing less."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.candidate import Candidate
from tuner.decide import doubts
from tuner.goal import Goal
from tuner.judging import Judging
from tuner.measurement import Latency, Measurement
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.system import machine
from tuner.testing.fakes import Null
from tuner.trial import Failure, Outcome
from tuner.verdict import Doubt, Finding, Verdict

TOP1 = Judging("tuner.metrics:top1")


def outcome(candidate: Candidate, rate: float, reference_ms: float = 1.0) -> Outcome:
    latency = Latency(1.0, 1.0, 1.0, 1.0, (1.0, 1.0))
    measured = Measurement(
        latency_ms=latency, throughput=rate, throughput_normalised=rate, latency_vs_reference=1 / reference_ms
    )
    return Outcome(candidate, "complete", measured)


@pytest.mark.parametrize(("count", "raised"), [(50, True), (99, True), (380, True), (1000, False)])
def test_too_few_samples_are_told(count: int, raised: bool) -> None:
    told = list(doubts.about_samples(TOP1, np.ones(count), count, Goal({"accuracy_drop": 0.01})))
    assert [d.name for d in told] == ["evaluation_too_small"] * raised


def test_samples_of_two_roles_are_told() -> None:
    samples = {"evaluation": 100, "calibration": 40, "training": 500}
    assert not list(doubts.about_roles({"calibration": 0, "training": 0}, samples))  # type: ignore[dict-item]
    (told,) = doubts.about_roles({"calibration": 3, "training": 0}, samples)  # type: ignore[dict-item]
    assert told.name == "seen_before" and told.sentence.startswith("3 of 40 calibration samples have")


@pytest.mark.parametrize("scores", [None, np.full(99, 0.5)])
def test_too_few_to_resample_are_told(scores: Any) -> None:
    goal = Goal({"accuracy_drop": 0.01})
    assert [d.name for d in doubts.about_samples(TOP1, scores, 99, goal)] == ["evaluation_too_small"]
    assert not list(doubts.about_samples(TOP1, scores, 1000, goal)) and not list(
        doubts.about_samples(TOP1, scores, 99, Goal())
    )


@pytest.mark.parametrize(("metric", "itself"), [("cosine", np.ones), ("relative_error", np.zeros)])
def test_what_the_float_model_scores_beside_itself_says_not_how_many_samples_certify(metric: str, itself: Any) -> None:
    judging, goal = Judging(f"tuner.fidelity:{metric}"), Goal({"accuracy_drop": 0.01})
    assert not list(doubts.about_samples(judging, itself(320), 320, goal))
    assert [d.name for d in doubts.about_samples(judging, itself(99), 99, goal)] == ["evaluation_too_small"]


def test_a_limit_far_below_what_the_metric_measures_is_told_and_so_is_fidelity() -> None:
    goal, rmse = Goal({"accuracy_drop": 0.01}), Judging("tuner.metrics:rmse")
    assert [d.name for d in doubts.about_metric(rmse, 53.2, goal)] == ["limit_unit"]
    assert not list(doubts.about_metric(rmse, 0.5, goal)) and not list(doubts.about_metric(rmse, 53.2, Goal()))
    assert not list(doubts.about_metric(Judging("tuner.metrics:top1"), 0.9, goal))
    assert [d.name for d in doubts.about_metric(Judging("tuner.fidelity:cosine"), 1.0, goal)] == ["fidelity"]


def test_int8_that_does_not_pay_is_told() -> None:
    plain, quantized = Candidate((), Null(), 8), Candidate((OnnxStaticInt8(),), Null(), 8)

    def told(outcomes: list[Outcome], raced: dict[Candidate, float], cause: str | None = None) -> list[Doubt]:
        return list(doubts.about_int8(outcomes, raced, lambda candidate: cause))

    slower = told([outcome(plain, 100), outcome(quantized, 50)], {})
    assert [d.name for d in slower] == ["int8_slower"] and slower[0].sentence.endswith(
        "0.50× the speed of the same without quantization"
    )
    (explained,) = told([outcome(plain, 100), outcome(quantized, 50)], {}, "its layers stay in float")
    assert explained.sentence == f"{slower[0].sentence}: its layers stay in float"
    assert not told([outcome(plain, 100), outcome(quantized, 150)], {})
    told_otherwise = {plain: 100.0, quantized: 140.0}  # by the race, in which they ran side by side
    assert not told([outcome(plain, 100), outcome(quantized, 50)], told_otherwise)
    (raced,) = told([outcome(plain, 100), outcome(quantized, 150)], {plain: 100.0, quantized: 80.0})
    assert "0.80×" in raced.sentence
    twice = replace(plain, replicas=2)
    assert not told([outcome(plain, 100), outcome(twice, 50)], {}), "nothing here is quantized"


def test_int8_that_keeps_no_limit_as_it_comes_is_told_with_what_is_more_careful() -> None:
    goal = Goal({"accuracy_drop": 0.01})

    def losing(transform: OnnxStaticInt8, drop: float) -> Outcome:
        return Outcome(Candidate((transform,), Null(), 1), "stopped_early", Measurement(accuracy_drop=drop))

    lost = [losing(OnnxStaticInt8(), 0.08)]
    [doubt] = doubts.about_quantized(lost, goal)
    assert doubt.name == "int8_loses" and "0.0800" in doubt.sentence and "search_space=careful" in doubt.sentence
    assert not list(doubts.about_quantized([losing(OnnxStaticInt8(), 0.005), *lost], goal))
    assert not list(doubts.about_quantized([*lost, losing(OnnxStaticInt8(max_error=0.1), 0.02)], goal))
    assert not list(doubts.about_quantized(lost, Goal()))


def test_a_machine_that_changes_speed_is_told() -> None:
    candidates = [Candidate((), Null(), batch) for batch in range(1, 11)]
    steady = [outcome(c, 100) for c in candidates]
    drifting = [outcome(c, 100, 1 + 0.1 * i) for i, c in enumerate(candidates)]
    assert not list(doubts.about_speed(steady))
    assert [d.name for d in doubts.about_speed(drifting)] == ["drifting_machine"]


def test_a_busy_machine_and_a_noisy_race_are_told() -> None:
    assert [d.name for d in doubts.about_machine([90.0, 10.0])] == ["busy_machine"]
    assert not list(doubts.about_machine([5.0, 5.0]))
    assert [d.name for d in doubts.about_race(0.3)] == ["noisy_race"]
    assert not list(doubts.about_race(0.02)) and not list(doubts.about_race(None))


def test_throttling_is_counted_where_linux_tells(tmp_path: Path) -> None:
    assert machine.throttle_count(tmp_path) == 0
    for core in ("cpu0", "cpu1"):
        (tmp_path / core / "thermal_throttle").mkdir(parents=True)
        (tmp_path / core / "thermal_throttle/core_throttle_count").write_text("3\n")
    assert machine.throttle_count(tmp_path) == 6
    assert [d.name for d in doubts.about_throttling(4, 6)] == ["throttled"]


def failed(candidate: Candidate, why: str) -> Outcome:
    return Outcome(candidate, "failed", Measurement(), failure=Failure("compile", why))


def test_a_study_whose_candidates_nearly_all_failed_says_so_and_why() -> None:
    ran = [outcome(Candidate((), Null(1.0), 8), 100)]
    quantized = [failed(Candidate((OnnxStaticInt8(),), Null(1.0), size), "no kernel for Frobnicate") for size in (1, 2)]
    (doubt,) = doubts.about_failures([*ran, *quantized])
    assert doubt.name == "mostly_failed"
    assert "2 of 3 candidates failed" in doubt.sentence and "no kernel for Frobnicate (2)" in doubt.sentence
    assert "of int8-static nothing ran" in doubt.sentence and "null-1," not in doubt.sentence


def test_what_never_ran_is_told_and_what_ran_once_is_not() -> None:
    ran = [outcome(Candidate((), Null(1.0), size), 100) for size in (1, 2, 4)]
    (doubt,) = doubts.about_failures([*ran, failed(Candidate((), Null(2.0), 1), "no such driver")])
    assert doubt.name == "never_ran" and "null-2" in doubt.sentence and "no such driver" in doubt.sentence
    assert not list(doubts.about_failures([*ran, failed(Candidate((), Null(1.0), 8), "no room")]))
    assert not list(doubts.about_failures(ran))


@pytest.mark.parametrize(("replicas", "qps", "told"), [(2, 500.0, True), (2, 900.0, False), (1, 500.0, False)])
def test_replicas_whose_calls_are_too_short_to_hand_over_are_told(replicas: int, qps: float, told: bool) -> None:
    champion = Finding(Candidate((), Null(), 1, replicas), Measurement(throughput=1000.0))
    verdict = Verdict("feasible", champion, loadgen={"qps": qps, "valid": True})
    assert [doubt.name for doubt in doubts.about_replicas(verdict)] == ["replicas_cost"] * told
    assert not list(doubts.about_replicas(Verdict("feasible", champion, loadgen={"problem": "it did not run"})))


@pytest.mark.parametrize(("rate", "why"), [(100_000.0, "handing such a short call"), (80.0, "others used the cores")])
def test_a_long_call_does_not_lose_a_second_by_being_handed_over(rate: float, why: str) -> None:
    champion = Finding(Candidate((), Null(), 64, 2), Measurement(throughput=rate))
    (doubt,) = doubts.about_replicas(Verdict("feasible", champion, loadgen={"qps": rate * 0.6, "valid": True}))
    assert why in doubt.sentence


@pytest.mark.parametrize(
    ("metric", "guess", "worse", "like", "better"),
    [("top1", 0.6, 0.03, 0.58, 0.9), ("rmse", 80.0, 120.0, 79.0, 9.0)],
)
def test_what_is_surely_worse_than_guessing_is_told_as_such(
    metric: str, guess: float, worse: float, like: float, better: float
) -> None:
    judging = Judging(f"tuner.metrics:{metric}", guess=guess)

    def told(value: float) -> list[str]:
        ends = (value * 0.9, value * 1.1)
        return [doubt.sentence for doubt in doubts.about_guessing(judging, "the model's", value, ends)]

    assert "surely worse" in told(worse)[0] and "surely worse" not in told(like)[0] and not told(better)
