"""The race, on made-up timings: what is found, what is a tie, what drops out."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tuner.decide import race
from tuner.measure.timing import Timing

Round = Callable[[Sequence[str], dict[str, str]], dict[str, Timing]]


def field(medians_ms: dict[str, float], noise: float, seed: int = 0, disturbed: float = 0.0) -> Round:
    """Rounds in which each process is off by `noise` for as long as it lives, and all share the round's mood. A share
    of the processes is `disturbed`: it loses a third of its speed to somebody else."""
    generator = np.random.default_rng(seed)

    def round_of(names: Sequence[str], failed: dict[str, str]) -> dict[str, Timing]:
        mood = math.exp(generator.normal(0, 0.2))
        found = {}
        for name in names:
            true_ms = medians_ms["a" if name == race.TWIN else name]
            if generator.random() < disturbed:
                true_ms *= 1.5
            calls = true_ms * mood * math.exp(generator.normal(0, noise)) * np.exp(generator.normal(0, 0.02, (5, 40)))
            found[name] = Timing(tuple(calls), (0.0,) * 5)
        return found

    return round_of


def score(name: str, timing: Timing) -> float:
    return -math.log(timing.percentile(50))


def held(round_of: Round, finalists: Sequence[str], baselines: Sequence[str] = ()) -> race.Race:
    return race.run(finalists, baselines, round_of, score, lambda text: None)


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


def test_the_hopeless_drop_out_and_baselines_stay() -> None:
    found = held(field({"a": 1.0, "b": 0.97, "slow": 2.0, "base": 5.0}, 0.02), ["a", "b", "slow"], ["base"])
    assert "slow" in found.dropped and "slow" not in found.rounds[-1]
    assert "base" in found.rounds[-1]


def test_one_that_fails_leaves_the_race_to_the_others() -> None:
    sound = field({"a": 1.0, "b": 1.0}, 0.01)

    def round_of(names: Sequence[str], failed: dict[str, str]) -> dict[str, Timing]:
        if "b" in names:
            failed["b"] = "its process died"
        return sound([name for name in names if name != "b"], failed)

    found = held(round_of, ["a", "b"])
    assert found.failed == {"b": "its process died"} and found.ranked(["a", "b"]) == ["a"]


def test_no_one_left_is_no_race() -> None:
    def round_of(names: Sequence[str], failed: dict[str, str]) -> dict[str, Timing]:
        failed.update(dict.fromkeys(names, "gone"))
        return {}

    assert held(round_of, ["a"]).rounds == []
