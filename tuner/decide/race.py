"""The last comparison: a few contenders, timed side by side in rounds of fresh processes until the order is clear.

Two processes of the very same artifact differ by some per cent, for as long as they live: memory layout, page colours,
which thread sits where. Only fresh processes show that part of the noise, so a round starts every contender anew,
and the rounds are the independent draws.

A round that somebody else's work disturbs can cost one contender a third of its speed. So everything here is by
medians: a contender is behind another by the median, over rounds, of the difference of their scores, and the noise is
the spread of those differences about their medians. The same artifact entered twice (the twin) checks it. On a busy
machine, with means and standard deviations in their place, a rival with 10 % less work was found in four races of five.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.measure.statistics import t95
from tuner.measure.timing import Timing

TWIN = "twin"
LEAST_ROUNDS = 6  # the least and the greatest of so many are a 95 % interval of their median
MOST_ROUNDS = 8
_CLEAR_ROUNDS = 4  # after so many, who is clearly behind drops out
FLOOR = 0.02  # ratios closer than this are never told apart: a point of measurement, not of engineering
_DROP = 1.5  # a rival this many times the noise behind is out: several looks are taken
Score = Callable[[str, Timing], float]


@dataclass
class Race:
    """What a race found: the timings and scores of the contenders, round by round, less those that had dropped out.

    `twin_of` names the contender that also ran as `TWIN`; `dropped` and `failed` say why a contender is out.
    """

    twin_of: str
    rounds: list[dict[str, Timing]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def noise(self) -> float:
        """The 95 % half-width of a difference of two contenders' scores, and no less than the twin's distance from
        itself. Scores are logarithms, so 0.02 is a ratio of 1.02.

        The spread is the median absolute deviation, scaled to a standard deviation (1.4826). Of normal values it knows
        as much as a standard deviation of 0.37 times as many, and the median is 1.25 times as uncertain as the mean
        (Huber & Ronchetti, Robust Statistics, 2009, chapters 1 and 5).
        """
        for rounds in (self.scores, self.scores[:_CLEAR_ROUNDS]):  # a leader left alone has no one to differ from
            complete = [name for name in self.rounds[0] if all(name in scores for scores in rounds)]
            if len(complete) > 1:
                break
        count = len(rounds)
        if count < 2 or len(complete) < 2:
            return math.inf
        deviations: list[float] = []
        for one, other in itertools.combinations(complete, 2):
            gaps = np.array([scores[one] - scores[other] for scores in rounds])
            # of an odd number, the middle one deviates by nothing: it says nothing
            deviations += sorted(np.abs(gaps - np.median(gaps)))[count % 2 :]
        degrees = max(1, round(0.37 * (count - 1) * (len(complete) - 1)))
        half = t95(degrees) * 1.25 * 1.4826 * float(np.median(deviations)) / math.sqrt(count)
        return max(FLOOR, half, abs(self.twin_gap))

    @property
    def twin_gap(self) -> float:
        """The distance of the same artifact from itself; 0 where its twin did not run."""
        return -self.behind(TWIN, self.twin_of) if any(TWIN in done for done in self.rounds) else 0.0

    def behind(self, name: str, other: str) -> float:
        """How far the score of `name` is behind that of `other`, in the rounds both ran."""
        return float(np.median([s[other] - s[name] for s in self.scores if name in s and other in s]))

    def ranked(self, names: Sequence[str]) -> list[str]:
        """Best first, by the distance from one that ran every round."""
        ran = [name for name in names if any(name in done for done in self.rounds)]
        anchor = next(name for name in self.rounds[0] if all(name in done for done in self.rounds))
        return sorted(ran, key=lambda name: self.behind(name, anchor))

    def turns(self, name: str) -> list[Sequence[NDArray[Any]]]:
        """Its calls in ms, by turn and by round."""
        return [timing.wall_ms for timing in self._timings(name)]

    def cpu(self, name: str) -> float:
        return float(np.median([timing.cpu for timing in self._timings(name)]))

    def _timings(self, name: str) -> list[Timing]:
        return [done[name] for done in self.rounds if name in done]


def run(
    finalists: Sequence[str],
    baselines: Sequence[str],
    round_of: Callable[[Sequence[str], dict[str, str]], dict[str, Timing]],
    score: Score,
    say: Callable[[str], None],
) -> Race:
    """Races the finalists, the likely best first, beside the baselines; the twin is of the first.

    `round_of(names, failed)` times them once, each in a fresh process, and notes those that failed in `failed`.
    Finalists clearly behind drop out; baselines run to the end. Ends when one finalist is left, but not before
    `LEAST_ROUNDS`, or after `MOST_ROUNDS`.
    """
    race = Race(finalists[0])
    active = list(dict.fromkeys([*finalists, *baselines]))
    while len(race.rounds) < MOST_ROUNDS:
        failed: dict[str, str] = {}
        twin = [TWIN] if race.twin_of in active and TWIN not in race.failed else []
        done = round_of([*active, *twin], failed)
        race.failed |= failed
        active = [name for name in active if name not in failed]
        left = [name for name in finalists if name in active]
        if not left:
            return race
        ran = {name: timing for name, timing in done.items() if name not in failed}
        race.rounds.append(ran)
        race.scores.append({name: score(name, timing) for name, timing in ran.items()})
        if len(race.rounds) < _CLEAR_ROUNDS:
            continue
        leader = race.ranked(left)[0]
        noise = race.noise
        say(f"round {len(race.rounds)}: {len(left)} in the race, {100 * noise:.1f} % noise")
        for name in left:
            if race.behind(name, leader) > _DROP * noise:
                race.dropped[name] = f"{100 * race.behind(name, leader):.0f} % behind"
                if name not in baselines:
                    active.remove(name)
        if len(race.rounds) >= LEAST_ROUNDS and sum(name not in race.dropped for name in left) == 1:
            return race
    return race
