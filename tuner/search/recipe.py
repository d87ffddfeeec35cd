"""One path through the choices of a space, and the ranges that it leaves free."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.plugin import Backend, Plugin, Transform, decode, encode

Params = dict[str, Any]
BATCH_SIZE = "batch_size"
RECIPE = "recipe"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, ends included. With `factor`, each is the one before times the factor."""

    low: float
    high: float
    step: float | None = None
    factor: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise RequestError(f"range low={self.low} high={self.high}: low must not exceed high")
        if (self.step is not None) + (self.factor is not None) + self.log > 1:
            raise RequestError("a range takes one of step, factor and log")
        if self.step is not None and self.step <= 0:
            raise RequestError(f"range step={self.step} must be more than 0")
        if self.factor is not None and (self.factor < 2 or self.low < 1):
            raise RequestError(f"range factor={self.factor} low={self.low}: factor starts at 2, low at 1")
        if self.log and self.low <= 0:
            raise RequestError(f"range log=true low={self.low}: low must be more than 0")

    @property
    def integral(self) -> bool:
        return all(isinstance(v, int) for v in (self.low, self.high, self.step or 0))

    @property
    def exponents(self) -> int:
        """The largest k with low·factor^k ≤ high."""
        assert self.factor is not None
        return math.floor(math.log(self.high / self.low, self.factor) + 1e-9)

    def values(self) -> list[float] | None:
        """Every value in order, or None where they are not countable."""
        if self.factor is not None:
            return [self.low * self.factor**k for k in range(self.exponents + 1)]
        step = self.step or (1 if self.integral and not self.log else None)
        if step is None:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9)
        return [round(self.low + k * step, 10) if not self.integral else self.low + k * step for k in range(count + 1)]

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
        return {name: value}


class Trial(Protocol):
    """The part of `optuna.Trial` that a space uses."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class Given:
    """A trial whose answers are known."""

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


@dataclass(frozen=True)
class Recipe:
    """One path through the choices: plugins as they stand in the tree, with ranges where they are free."""

    transforms: tuple[dict[str, Any], ...]
    backend: dict[str, Any]
    batch_size: Any

    @property
    def name(self) -> str:
        return " + ".join(described(spec) for spec in (*self.transforms, self.backend)) + (
            f" @ b{self.batch_size}" if not isinstance(self.batch_size, Range) else ""
        )

    def free(self) -> Iterator[tuple[str, Range]]:
        for spec in (*self.transforms, self.backend):
            for field, value in spec.items():
                if isinstance(value, Range):
                    yield f"{_class_name(spec)}.{field}", value
        if isinstance(self.batch_size, Range):
            yield BATCH_SIZE, self.batch_size

    @property
    def compressing(self) -> set[str]:
        """The names of its transforms' ranges."""
        return {name for name, _ in replace(self, backend={}, batch_size=None).free()}

    def candidate(self, numbers: Mapping[str, float]) -> Candidate:
        """The point of this recipe at those values of the ranges; other names are ignored."""

        def fix(spec: dict[str, Any]) -> Plugin:
            name = _class_name(spec)
            return decode({f: numbers[f"{name}.{f}"] if isinstance(v, Range) else v for f, v in spec.items()})

        batch = numbers[BATCH_SIZE] if isinstance(self.batch_size, Range) else self.batch_size
        transforms = tuple(cast(Transform, fix(spec)) for spec in self.transforms)
        return Candidate(transforms, cast(Backend, fix(self.backend)), int(batch))

    def numbers(self, candidate: Candidate) -> dict[str, float] | None:
        """The values of the ranges by which this recipe may give the candidate; None where it cannot."""
        plugins = [*candidate.transforms, candidate.backend]
        specs = [*self.transforms, self.backend]
        if [encode(plugin)["_target_"] for plugin in plugins] != [spec["_target_"] for spec in specs]:
            return None
        found: dict[str, float] = {}
        for spec, plugin in zip(specs, plugins, strict=True):
            for name, value in spec.items():
                if isinstance(value, Range):
                    found[f"{_class_name(spec)}.{name}"] = getattr(plugin, name)
        if isinstance(self.batch_size, Range):
            found[BATCH_SIZE] = candidate.batch_size
        return found if all(range_.holds(found[name]) for name, range_ in self.free()) else None


def _class_name(spec: Mapping[str, Any]) -> str:
    return str(spec["_target_"]).rpartition(".")[2]


def described(spec: Mapping[str, Any]) -> str:
    fields = [
        f"{name}={'*' if isinstance(value, Range) else value}" for name, value in spec.items() if name != "_target_"
    ]
    return f"{_class_name(spec)}({', '.join(fields)})"
