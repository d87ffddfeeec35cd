"""The best of several turns: a peak shows itself only while nobody else is at work, so it has to be seen again."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ALIKE = 0.05  # turns agree that differ by this share of the best
_AGREEING = 3  # turns that must agree on a figure


@dataclass(frozen=True)
class Best:
    """The highest rate of each figure, and how far below it the third highest lay, as a share of it."""

    rates: dict[str, float]
    spread: dict[str, float]

    @property
    def steady(self) -> bool:
        return all(spread <= ALIKE for spread in self.spread.values())


def best_of_turns(
    turn: Callable[[], Mapping[str, float]], *, least: int, limit_s: float, clock: Callable[[], float] = time.monotonic
) -> Best:
    """Takes turns until the three best agree in every figure, `least` of them at any rate, and for so long at most."""
    end = clock() + limit_s
    turns = [turn()]
    while True:
        rates = {name: sorted((turn[name] for turn in turns), reverse=True) for name in turns[0]}
        best = Best(
            {name: ordered[0] for name, ordered in rates.items()},
            {name: 1.0 - ordered[min(_AGREEING, len(ordered)) - 1] / ordered[0] for name, ordered in rates.items()},
        )
        if len(turns) >= least and (best.steady or clock() >= end):
            return best
        turns.append(turn())
