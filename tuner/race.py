"""The last comparison: a few contenders, timed side by side in rounds of fresh processes until the order is clear.

Two processes of the very same artifact differ by some per cent, for as long as they live: memory layout, page colours,
which thread sits where. Only fresh processes show that part of the noise, so a round starts every contender anew,
and the rounds are the independent draws.

The model is the two-way layout score = contender + round + noise. What contenders and rounds do not explain is the
machine's noise; the same artifact entered twice (the twin) checks it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.statistics import t95
from tuner.timing import Timing

TWIN = "twin"
LEAST_ROUNDS = 3
MOST_ROUNDS = 6
FLOOR = 0.01  # ratios closer than this are never told apart: a point of measurement, not of engineering
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
        """The 95 % half-width of the difference of two contenders' scores: what the two-way layout leaves unexplained,
        and no less than the twin's distance from itself. Scores are logarithms, so 0.02 is a ratio of 1.02."""
        complete = [name for name in self.rounds[0] if all(name in done for done in self.rounds)]
        count = len(self.rounds)
        if count < 2 or len(complete) < 2:
            return math.inf
        table = np.array([[scores[name] for name in complete] for scores in self.scores])
        left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        degrees = (count - 1) * (len(complete) - 1)
        spread = math.sqrt(float((left**2).sum()) / degrees)
        return max(FLOOR, t95(degrees) * spread * math.sqrt(2 / count), abs(self.twin_gap))

    @property
    def twin_gap(self) -> float:
        """The mean distance of the same artifact from itself; 0 where its twin did not run."""
        return -self.behind(TWIN, self.twin_of) if any(TWIN in done for done in self.rounds) else 0.0

    def behind(self, name: str, other: str) -> float:
        """How far the score of `name` is behind that of `other`, in the rounds both ran."""
        return float(np.mean([s[other] - s[name] for s in self.scores if name in s and other in s]))

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
    Finalists clearly behind drop out; baselines run to the end. Ends when one finalist is left or after `MOST_ROUNDS`.
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
        if len(race.rounds) < LEAST_ROUNDS:
            continue
        leader = race.ranked(left)[0]
        noise = race.noise
        say(f"round {len(race.rounds)}: {len(left)} in the race, {100 * noise:.1f} % noise")
        for name in left:
            if race.behind(name, leader) > _DROP * noise:
                race.dropped[name] = f"{100 * race.behind(name, leader):.0f} % behind"
                if name not in baselines:
                    active.remove(name)
        if sum(name not in race.dropped for name in left) == 1:
            return race
    return race
