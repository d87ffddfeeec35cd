"""A range of a space, and the numbers that a trial gives for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from tuner.system.fields import Above, AtLeast
from tuner.system.loader import Checked

_MOST = 10_000  # values that are counted one by one

Params = dict[str, Any]
"""What a trial says: the recipe's name and a number for every range, by name."""


@dataclass(frozen=True)
class Range(Checked):
    """Numbers from `low` to `high`, ends included. With `factor`, each is the one before times the factor."""

    low: int | float
    high: int | float
    step: Annotated[int, Above(0)] | Annotated[float, Above(0)] | None = None
    factor: Annotated[int, AtLeast(2)] | None = None
    log: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise ValueError(f"low={self.low} high={self.high}: low must not exceed high")
        if (self.step is not None) + (self.factor is not None) + self.log > 1:
            raise ValueError("a range takes one of step, factor and log")
        if self.factor is not None and self.low < 1:
            raise ValueError(f"factor={self.factor} low={self.low}: with a factor, low is 1 or more")
        if self.log and self.low <= 0:
            raise ValueError(f"log=true low={self.low}: with log, low is more than 0")

    @property
    def integral(self) -> bool:
        return all(isinstance(v, int) for v in (self.low, self.high, self.step or 0))

    @property
    def exponents(self) -> int:
        """The largest k with low·factor^k ≤ high."""
        assert self.factor is not None
        return math.floor(math.log(self.high / self.low, self.factor) + 1e-9)

    def values(self) -> list[float] | None:
        """Every value in order, or None where they are not countable, or too many."""
        if self.factor is not None:
            return [self.low * self.factor**k for k in range(self.exponents + 1)]
        step = self.step or (1 if self.integral and not self.log else None)
        if step is None or (self.high - self.low) / step > _MOST:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9)
        return [round(self.low + k * step, 10) if not self.integral else self.low + k * step for k in range(count + 1)]

    @property
    def middle(self) -> float:
        """The middle one of its values, or the mean of its ends where they are not countable."""
        grid = self.values() or [self.low, (self.low + self.high) / 2, self.high]
        return int(grid[len(grid) // 2]) if self.integral else grid[len(grid) // 2]

    def end(self, name: Literal["low", "high"]) -> float:
        """Its lowest or its highest value."""
        grid = self.values() or [self.low, self.high]
        return grid[0 if name == "low" else -1]

    def holds(self, value: float) -> bool:
        """Whether it is one of the range's values."""
        grid = self.values()
        return self.low <= value <= self.high if grid is None else value in grid

    def suggest(self, trial: "Trial", name: str) -> float:
        if self.factor is not None:
            exponent = trial.suggest_int(f"log{self.factor} {name}", 0, self.exponents)
            power: int = self.factor**exponent
            return self.low * power
        if self.integral:
            step = 1 if self.log else int(self.step or 1)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        return value if self.step is None else round(value, 10)

    def param(self, name: str, value: float) -> Params:
        """What `suggest` must answer for it to give `value`."""
        if self.factor is not None:
            return {f"log{self.factor} {name}": round(math.log(value / self.low, self.factor))}
        return {name: int(value) if self.integral else value}


class Trial(Protocol):
    """The part of `optuna.Trial` that a space uses."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class KnownTrial:
    """A trial that answers as it is told."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return str(self._params[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._params[name])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._params[name])
