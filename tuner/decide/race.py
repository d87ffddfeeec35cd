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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.measure.statistics import Interval, t95
from tuner.measure.stream import medians
from tuner.measure.timing import Timing

TWIN = "twin"
LEAST_ROUNDS = 6  # the least and the greatest of so many are a 95 % interval of their median; of fewer they are none
MOST_ROUNDS = 8
LONG_S = 180.0  # a race of slow calls that has taken so long ends: two rounds more seldom part whom six did not
FLOOR = 0.02  # ratios closer than this are never told apart: a point of measurement, not of engineering
_DROP = 1.5  # a rival this many times the noise behind is out: several looks are taken


@dataclass(frozen=True)
class Lap:
    """What one contender did in one round: its calls, the score that they earn (a logarithm; larger is better), and
    samples per second."""

    timing: Timing
    score: float
    rate: float


# times those named, each in a fresh process: the laps of those that came home, and why the others did not
Round = Callable[[Sequence[str]], tuple[Mapping[str, Lap], Mapping[str, str]]]


@dataclass
class Race:
    """What a race found: the laps of the contenders, round by round, less those that had dropped out.

    `twin_of` names the contender that also ran as `TWIN`; `dropped` and `failed` say why a contender is out.
    """

    twin_of: str
    rounds: list[Mapping[str, Lap]] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def noise(self) -> float:
        """The 95 % half-width of a difference of two contenders' scores, and no less than the twin's distance from
        itself. Scores are logarithms, so 0.02 is a ratio of 1.02. Infinite before there are two rounds."""
        return self._noise(self._scores)

    @property
    def twin_gap(self) -> float:
        """The distance of the same artifact from itself; 0 where its twin did not run."""
        return _lead(self._scores, TWIN, self.twin_of) or 0.0

    def behind(self, name: str, other: str) -> float:
        """How far the score of `name` is behind that of `other`, in the rounds both ran."""
        lead = _lead(self._scores, other, name)
        return math.nan if lead is None else lead

    def interval(self, name: str, other: str) -> Interval | None:
        """The 95 % interval of the samples per second of `name` over those of `other`; None where too few rounds had
        both. It is as wide as the noise of such ratios: without 1 in it, the race has told the two apart."""
        if name == other:
            return 1.0, 1.0
        rates = [{runner: math.log(lap.rate) for runner, lap in laps.items()} for laps in self.rounds]
        both = sum(name in laps and other in laps for laps in self.rounds)
        lead, half = _lead(rates, name, other), self._noise(rates, both)
        return None if lead is None or math.isinf(half) else (math.exp(lead - half), math.exp(lead + half))

    def ranked(self, names: Sequence[str]) -> list[str]:
        """Best first, by the distance from one that ran every round."""
        ran = [name for name in names if self.ran(name)]
        anchor = next(name for name in self.rounds[0] if all(name in laps for laps in self.rounds))
        return sorted(ran, key=lambda name: self.behind(name, anchor))

    def ran(self, name: str) -> bool:
        """Whether it came home in some round."""
        return any(name in laps for laps in self.rounds)

    def finished(self, name: str) -> bool:
        """Whether it came home in every round that it was in, and those are enough for an interval."""
        return len(self.turns(name)) >= LEAST_ROUNDS and name not in self.failed

    def turns(self, name: str) -> list[Sequence[NDArray[Any]]]:
        """Its calls in ms, by turn and by round."""
        return [laps[name].timing.wall_ms for laps in self.rounds if name in laps]

    def cpu(self, name: str) -> float | None:
        spent = [ms for laps in self.rounds if name in laps and (ms := laps[name].timing.cpu) is not None]
        return float(np.median(spent)) if spent else None

    def evenness(self, name: str) -> float:
        return float(np.median([laps[name].timing.evenness for laps in self.rounds if name in laps]))

    def more(self, name: str) -> dict[str, float]:
        """What its task found out: the medians over all turns."""
        return medians([turn for laps in self.rounds if name in laps for turn in laps[name].timing.more])

    @property
    def _scores(self) -> list[dict[str, float]]:
        return [{name: lap.score for name, lap in laps.items()} for laps in self.rounds]

    def _noise(self, values: Sequence[Mapping[str, float]], both: int | None = None) -> float:
        """The noise of a difference of two contenders' logarithms, which stand here round by round. `both` is how many
        rounds the two ran; None is all.

        The spread is the median absolute deviation, scaled to a standard deviation (1.4826). Of normal values it knows
        as much as a standard deviation of 0.37 times as many, and the median is 1.25 times as uncertain as the mean
        (Huber & Ronchetti, Robust Statistics, 2009, chapters 1 and 5).
        """
        for rounds in (values, values[:LEAST_ROUNDS]):  # a leader left alone has no one to differ from
            complete = [name for name in self.rounds[0] if all(name in done for done in rounds)]
            if len(complete) > 1:
                break
        count = len(rounds)
        if count < 2 or len(complete) < 2:
            return math.inf
        deviations: list[float] = []
        for one, other in itertools.combinations(complete, 2):
            gaps = np.array([done[one] - done[other] for done in rounds])
            # of an odd number, the middle one deviates by nothing: it says nothing
            deviations += sorted(np.abs(gaps - np.median(gaps)))[count % 2 :]
        degrees = max(1, round(0.37 * (count - 1) * (len(complete) - 1)))
        half = t95(degrees) * 1.25 * 1.4826 * float(np.median(deviations)) / math.sqrt(both or count)
        return max(FLOOR, half, abs(_lead(values, TWIN, self.twin_of) or 0.0))


def _lead(values: Sequence[Mapping[str, float]], name: str, other: str) -> float | None:
    """By how much `name` is ahead of `other`, by the median of the rounds both ran; None where there is none."""
    gaps = [done[name] - done[other] for done in values if name in done and other in done]
    return float(np.median(gaps)) if gaps else None


def run(
    finalists: Sequence[str],
    baselines: Sequence[str],
    time_round: Round,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Race:
    """Races the finalists, the likely best first, beside the baselines; the twin is of the first.

    Finalists clearly behind drop out, baselines run to the end; none drops out before `LEAST_ROUNDS`, for whoever
    leads may prove to be outside the limits, and the next is then announced by what it showed. Ends when one finalist
    is left, or after `MOST_ROUNDS`, or sooner where it has taken `LONG_S`.
    """
    race, start = Race(finalists[0]), clock()
    active = list(dict.fromkeys([*finalists, *baselines]))
    while len(race.rounds) < MOST_ROUNDS:
        twin = [TWIN] if race.twin_of in active and TWIN not in race.failed else []
        laps, failed = time_round([*active, *twin])
        race.failed |= failed
        active = [name for name in active if name not in failed]
        left = [name for name in finalists if name in active]
        if not left:
            return race
        race.rounds.append(laps)
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
        if sum(name not in race.dropped for name in left) == 1 or clock() >= start + LONG_S:
            return race
    return race
