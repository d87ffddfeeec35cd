"""The search space: a tree of choices read from YAML, flattened so that only valid points exist.

A list is a choice. A mapping with `low` and `high` is a range: of integers with `step` (default 1) or `factor`
(1, 2, 4, … for `factor: 2`), of numbers with `step` or `log: true`. A mapping with `_target_` is a plugin, whose
fields may themselves be choices or ranges. Any other mapping groups what is inside it; its names are for readers.
`null` is "nothing here". Transforms apply in the order in which they stand.

Each path through the choices is a *recipe*. The sampler sees one categorical parameter, the recipe, beside the
ranges, and every trial names them all: that is what lets a Gaussian process model the whole space.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.plugin import Backend, Plugin, Transform, as_it_comes, decode, encode

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


class _Given:
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
        return " + ".join(_describe(spec) for spec in (*self.transforms, self.backend)) + (
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


class Space:
    """The recipes of a tree, and the ranges they leave free."""

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        self.recipes = {recipe.name: recipe for recipe in recipes}
        self.ranges: dict[str, Range] = {}
        for recipe in recipes:
            for name, found in recipe.free():
                if self.ranges.setdefault(name, found) != found:
                    raise RequestError(f"search_space: two different ranges for {name}; make them the same")

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> "Space":
        """The space of a YAML tree. Raises RequestError where it is no space, before anything is spent."""
        if not isinstance(tree, Mapping):
            raise RequestError(f"search_space must be a mapping; it is {tree!r}")
        recipes = [_recipe(found) for found in _expand(tree)]
        if not recipes:
            raise RequestError("search_space: it has no recipe: some choice is an empty list")
        space = cls(recipes)
        for recipe in recipes:  # every plugin is built once, at both ends, so that a bad field is told now
            for end in ("low", "high"):
                recipe.candidate({name: getattr(r, end) for name, r in space.ranges.items()})
        return space

    @property
    def plugins(self) -> list[Plugin]:
        """One of every plugin in the space, ranges at their low end, in order of appearance."""
        low = {name: found.low for name, found in self.ranges.items()}
        seen: dict[Plugin, None] = {}
        for recipe in self.recipes.values():
            candidate = recipe.candidate(low)
            seen.update(dict.fromkeys((*candidate.transforms, candidate.backend)))
        return list(seen)

    def without(self, unavailable: set[Plugin]) -> "Space":
        """The space less the recipes that use one of these plugins (ranges at their low end)."""
        low = {name: found.low for name, found in self.ranges.items()}
        kept = []
        for recipe in self.recipes.values():
            candidate = recipe.candidate(low)
            if unavailable.isdisjoint((*candidate.transforms, candidate.backend)):
                kept.append(recipe)
        return Space(kept)

    def sample(self, trial: Trial) -> Candidate:
        """The candidate a trial stands for. Ranges the recipe does not use are asked for, and ignored."""
        recipe = self.recipes[trial.suggest_categorical(RECIPE, list(self.recipes))]
        return recipe.candidate({name: found.suggest(trial, name) for name, found in self.ranges.items()})

    def at(self, params: Params) -> Candidate:
        """The candidate that those parameters give."""
        return self.sample(_Given(params))

    @property
    def parameters(self) -> set[str]:
        """The names that every trial has a value for."""
        low = {name: found.low for name, found in self.ranges.items()}
        return set(self._params(next(iter(self.recipes.values())), low))

    def locate(self, candidate: Candidate) -> Params | None:
        """The parameters that give the candidate; None where it is no point of this space."""
        for recipe in self.recipes.values():
            numbers = recipe.numbers(candidate)
            if numbers is not None:
                settled = {name: found.low for name, found in self.ranges.items()} | numbers
                if recipe.candidate(settled) == candidate:
                    return self._params(recipe, settled)
        return None

    def points(self) -> list[tuple[Params, Candidate]] | None:
        """Every distinct candidate, with the parameters that give it; None where a range is not countable."""
        found: dict[Candidate, Params] = {}
        for recipe in self.recipes.values():
            used = dict(recipe.free())
            grids = [found_range.values() for found_range in used.values()]
            if any(grid is None for grid in grids):
                return None
            for values in itertools.product(*cast(list[list[float]], grids)):
                numbers = {name: r.low for name, r in self.ranges.items()} | dict(zip(used, values, strict=True))
                found.setdefault(recipe.candidate(numbers), self._params(recipe, numbers))
        return [(params, candidate) for candidate, params in found.items()]

    def uncompressed(self) -> list[tuple[Params, Candidate]]:
        """Every recipe without a transform, with its ranges in the middle: what a study tries first."""
        return self._starts(lambda transforms: not transforms)

    def usual(self) -> list[tuple[Params, Candidate]]:
        """Every backend with each quantizer alone, as it comes, ranges in the middle: what an engineer tries next."""
        return self._starts(lambda transforms: len(transforms) == 1 and _quantizes(transforms[-1]))

    def hardest(self) -> list[tuple[Params, Candidate]]:
        """Every backend with a quantizer, as it comes, after all else that compresses, at the far end of its ranges.

        Pruned, then quantized (Han et al., Deep Compression, ICLR 2016), as hard as the space allows: where the
        accuracy bears it, most of what is milder is refused by its draft, and need not be trained.
        """
        most = max(len(recipe.transforms) for recipe in self.recipes.values())
        points = self._starts(
            lambda transforms: len(transforms) == most > 1 and _quantizes(transforms[-1]), lambda grid: grid[-1]
        )
        # of a list of choices, the last is the far end
        return list({(point[1].transforms[-1], point[1].backend): point for point in points}.values())

    def _starts(
        self,
        wanted: Callable[[tuple[Transform, ...]], bool],
        compress: Callable[[Sequence[float]], float] = lambda grid: grid[len(grid) // 2],
    ) -> list[tuple[Params, Candidate]]:
        """The recipes with transforms that are wanted; `compress` chooses of a transform's range, from low to high."""
        low = {name: found.low for name, found in self.ranges.items()}
        points = []
        for recipe in self.recipes.values():
            if wanted(recipe.candidate(low).transforms):
                numbers = {}
                for name, found in self.ranges.items():
                    grid = found.values() or [found.low, (found.low + found.high) / 2, found.high]
                    value = compress(grid) if name in recipe.compressing else grid[len(grid) // 2]
                    numbers[name] = int(value) if found.integral else value
                points.append((self._params(recipe, numbers), recipe.candidate(numbers)))
        return points

    def batch_sizes(self) -> list[int]:
        """The batch sizes that occur, in order."""
        found: set[int] = set()
        for recipe in self.recipes.values():
            batch = recipe.batch_size
            grid = (batch.values() or [batch.low, batch.high]) if isinstance(batch, Range) else [batch]
            found.update(int(value) for value in grid)
        return sorted(found)

    def _params(self, recipe: Recipe, numbers: Mapping[str, float]) -> Params:
        params: Params = {RECIPE: recipe.name}
        for name, found in self.ranges.items():
            params |= found.param(name, numbers[name])
        return params


def _quantizes(transform: Transform) -> bool:
    return transform.arithmetic is not None and as_it_comes(transform)


def _expand(node: Any) -> list[Any]:
    """Every way to settle the choices below a node; ranges stay."""
    if isinstance(node, list):
        return [settled for option in node for settled in _expand(option)]
    if not isinstance(node, Mapping):
        return [node]
    if {"low", "high"} <= node.keys():
        return [_range(node)]
    options = [_expand(value) for value in node.values()]
    return [dict(zip(node, values, strict=True)) for values in itertools.product(*options)]


def _range(node: Mapping[str, Any]) -> Range:
    unknown = node.keys() - {"low", "high", "step", "factor", "log"}
    if unknown:
        raise RequestError(
            f"search_space: a range takes low, high, and step, factor or log; not {sorted(unknown)[0]!r}"
        )
    for name in ("low", "high", "step", "factor"):
        if not isinstance(node.get(name, 1), int | float):
            raise RequestError(f"search_space: range {name}={node[name]!r} must be a number")
    return Range(**{str(name): value for name, value in node.items()})


def _recipe(settled: Mapping[str, Any]) -> Recipe:
    batch: Any = None
    plugins: list[dict[str, Any]] = []

    def visit(node: Mapping[str, Any]) -> None:
        nonlocal batch
        for name, value in node.items():
            if name == BATCH_SIZE:
                batch = value
            elif isinstance(value, Mapping):
                if "_target_" in value:
                    plugins.append(dict(value))
                else:
                    visit(value)
            elif value is not None:
                raise RequestError(
                    f"search_space: {name}: {value!r} is no plugin (a mapping with _target_), null or batch_size"
                )

    visit(settled)
    ends = batch.values() or [batch.low] if isinstance(batch, Range) else [batch]
    if not all(isinstance(end, int) and not isinstance(end, bool) and end >= 1 for end in ends):
        raise RequestError(
            f"search_space: batch_size={batch!r} must be a whole number of 1 or more, or a range of them"
        )
    kinds = [decode({k: v.low if isinstance(v, Range) else v for k, v in spec.items()}) for spec in plugins]
    backends = [spec for spec, kind in zip(plugins, kinds, strict=True) if isinstance(kind, Backend)]
    if len(backends) != 1:
        named = ", ".join(_describe(spec) for spec in plugins) or "no plugin"
        raise RequestError(f"search_space: a path needs exactly one backend, and one has {len(backends)}: {named}")
    transforms = [spec for spec, kind in zip(plugins, kinds, strict=True) if isinstance(kind, Transform)]
    return Recipe(tuple(transforms), backends[0], batch)


def _class_name(spec: Mapping[str, Any]) -> str:
    return str(spec["_target_"]).rpartition(".")[2]


def _describe(spec: Mapping[str, Any]) -> str:
    fields = [
        f"{name}={'*' if isinstance(value, Range) else value}" for name, value in spec.items() if name != "_target_"
    ]
    return f"{_class_name(spec)}({', '.join(fields)})"
