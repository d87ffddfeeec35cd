"""The race, on made-up timings: what is found, what is a tie, what drops out."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tuner.decide import race
from tuner.decide.race import Lap
from tuner.measure.timing import Timing


def field(medians_ms: dict[str, float], noise: float, seed: int = 0, disturbed: float = 0.0) -> race.Round:
    """Rounds in which each process is off by `noise` for as long as it lives, and all share the round's mood. A share
    of the processes is `disturbed`: it loses a third of its speed to somebody else."""
    generator = np.random.default_rng(seed)

    def time_round(names: Sequence[str]) -> tuple[Mapping[str, Lap], Mapping[str, str]]:
        mood = math.exp(generator.normal(0, 0.2))
        laps = {}
        for name in names:
            true_ms = medians_ms["a" if name == race.TWIN else name]
            if generator.random() < disturbed:
                true_ms *= 1.5
            calls = true_ms * mood * math.exp(generator.normal(0, noise)) * np.exp(generator.normal(0, 0.02, (5, 40)))
            timing = Timing(tuple(calls), (0.0,) * 5)
            laps[name] = Lap(timing, -math.log(timing.percentile(50)), 1e3 / timing.percentile(50))
        return laps, {}

    return time_round


def held(time_round: race.Round, finalists: Sequence[str], baselines: Sequence[str] = ()) -> race.Race:
    return race.run(finalists, baselines, time_round, lambda text: None)


def test_ten_per_cent_is_found_under_two_per_cent_of_noise() -> None:
    races = [held(field({"a": 1.0, "b": 0.9}, 0.02, seed), ["a", "b"]) for seed in range(20)]
    assert sum(r.ranked(["a", "b"])[0] == "b" and r.behind("a", "b") > r.noise for r in races) >= 19


def test_the_same_is_a_tie() -> None:
    races = [held(field({"a": 1.0, "b": 1.0}, 0.02, seed), ["a", "b"]) for seed in range(20)]
    assert sum(abs(r.behind("a", "b")) <= r.noise for r in races) >= 19


@pytest.mark.parametrize("b, found", [(0.9, True), (1.0, False)])
def test_a_disturbed_process_in_ten_decides_nothing(b: float, found: bool) -> None:
    rounds = [field({"a": 1.0, "b": b}, 0.005, seed, disturbed=0.1) for seed in range(40)]
    assert sum((r.behind("a", "b") > r.noise) == found for r in (held(one, ["a", "b"]) for one in rounds)) >= 38


def test_noise_is_told_in_proportion() -> None:
    quiet, loud = (held(field({"a": 1.0, "b": 1.0}, noise), ["a", "b"]).noise for noise in (0.002, 0.2))
    assert quiet == pytest.approx(race.FLOOR) and loud > 0.1


@pytest.mark.parametrize("base_ms", [1.0, 3.0])
def test_the_interval_of_a_ratio_holds_it(base_ms: float) -> None:
    fields = [field({"a": 1.0, "b": 0.97, "base": base_ms}, 0.03, seed) for seed in range(40)]
    intervals = [held(one, ["a", "b"], ["base"]).interval("a", "base") for one in fields]
    assert sum(low <= base_ms <= high for low, high in filter(None, intervals)) >= 37
    assert np.median([high / low for low, high in filter(None, intervals)]) < 1.2


def test_an_interval_without_1_in_it_is_of_two_that_the_race_told_apart() -> None:
    for seed in range(20):
        one = held(field({"a": 1.0, "b": 0.96}, 0.02, seed), ["a", "b"])
        low, high = one.interval("b", "a") or (0.0, math.inf)
        inverse = one.interval("a", "b") or (0.0, math.inf)
        assert (low > 1) == (one.behind("a", "b") > one.noise)
        assert inverse == (pytest.approx(1 / high), pytest.approx(1 / low))


def test_one_round_gives_no_interval_but_of_one_with_itself() -> None:
    one = race.Race("a", [field({"a": 1.0, "b": 1.0}, 0.02)(["a", "b"])[0]])
    assert one.interval("a", "b") is None and one.interval("a", "a") == (1.0, 1.0)


def test_the_hopeless_drop_out_and_baselines_stay() -> None:
    found = held(field({"a": 1.0, "b": 0.97, "slow": 2.0, "base": 5.0}, 0.02), ["a", "b", "slow"], ["base"])
    assert "slow" in found.dropped and "slow" not in found.rounds[-1]
    assert "base" in found.rounds[-1]


def test_a_long_race_of_equals_ends_with_the_least_rounds() -> None:
    equals = field({"a": 1.0, "b": 1.0}, 0.02)
    seconds = itertools.count(step=race.LONG_S)
    long = race.run(["a", "b"], [], equals, lambda text: None, lambda: float(next(seconds)))
    assert len(long.rounds) == race.LEAST_ROUNDS
    assert len(held(equals, ["a", "b"]).rounds) == race.MOST_ROUNDS


def test_one_that_fails_leaves_the_race_to_the_others() -> None:
    sound = field({"a": 1.0, "b": 1.0}, 0.01)

    def time_round(names: Sequence[str]) -> tuple[Mapping[str, Lap], Mapping[str, str]]:
        failed = {"b": "its process died"} if "b" in names else {}
        return sound([name for name in names if name != "b"])[0], failed

    found = held(time_round, ["a", "b"])
    assert found.failed == {"b": "its process died"} and found.ranked(["a", "b"]) == ["a"]


def test_no_one_left_is_no_race() -> None:
    assert held(lambda names: ({}, dict.fromkeys(names, "gone")), ["a"]).rounds == []


def test_the_interval_of_a_ratio_is_of_the_rounds_that_both_ran() -> None:
    laps = [field({"a": 1.0, "b": 1.0, "base": 2.0}, 0.05, seed)(["a", "b", "base"])[0] for seed in range(8)]
    few = [{name: lap for name, lap in each.items() if n < 2 or name != "base"} for n, each in enumerate(laps)]
    assert log_width(race.Race("a", few), "a", "base") == pytest.approx(2 * log_width(race.Race("a", few), "a", "b"))


def log_width(one: race.Race, name: str, other: str) -> float:
    low, high = one.interval(name, other) or (math.nan, math.nan)
    return math.log(high / low)
