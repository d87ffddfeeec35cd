"""The search space: a tree of choices read from YAML, flattened so that only valid points exist.

A list is a choice. A mapping with `low` and `high` is a range: of integers with `step` (default 1) or `factor`
(1, 2, 4, … for `factor: 2`), of numbers with `step` or `log: true`. A mapping with `_target_` is a plugin, whose
fields may themselves be choices or ranges. Any other mapping groups what is inside it; its names are for readers.
`null` is "nothing here". Transforms apply in the order in which they stand.

`replicas` is like `batch_size`, but may be left out: then it is a power of two, up to one for each core of the target.

Each path through the choices is a *recipe*. The sampler sees one categorical parameter, the recipe, beside the
ranges, and every trial names them all: that is what lets a Gaussian process model the whole space.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, cast

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.plugin import Plugin
from tuner.search.range import KnownTrial, Params, Range, Trial
from tuner.search.recipe import RECIPE, REPLICAS, Recipe
from tuner.search.tree import read

_MOST_POINTS = 20_000


class Space:
    """The recipes of a tree, and the ranges they leave free."""

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        self.recipes = {recipe.name: recipe for recipe in recipes}
        self.ranges: dict[str, Range] = {}
        for recipe in recipes:
            for name, span in recipe.free():
                if self.ranges.setdefault(name, span) != span:
                    raise RequestError(f"search_space: two different ranges for {name}; make them the same")
            known = self.recipes[recipe.name]
            if known.replicas != recipe.replicas:
                raise RequestError(f"search_space: {recipe.name} has different replicas; make them one choice or range")
            if known.classes != recipe.classes:
                raise RequestError(f"search_space: two plugins are both called {recipe.name}; rename the class of one")

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> "Space":
        """The space of a YAML tree. Raises RequestError where it is no space, before anything is spent."""
        recipes = read(tree)
        if not recipes:
            raise RequestError("search_space: it has no recipe: some choice is an empty list")
        space = cls(recipes)
        for recipe in recipes:  # every plugin is built once, at both ends, so that what does not fit is told now
            for end in ("low", "high"):
                recipe.candidate({name: getattr(span, end) for name, span in space.ranges.items()})
        return space

    @property
    def low(self) -> dict[str, float]:
        """Every range's low end, by name."""
        return {name: span.low for name, span in self.ranges.items()}

    @cached_property
    def plugins(self) -> list[Plugin]:
        """One of every plugin in the space, ranges at their low end, in order of appearance."""
        seen: dict[Plugin, None] = {}
        for recipe in self.recipes.values():
            candidate = recipe.candidate(self.low)
            seen.update(dict.fromkeys((*candidate.transforms, candidate.backend)))
        return list(seen)

    def without(self, unavailable: set[Plugin]) -> "Space":
        """The space less the recipes that use one of these plugins (ranges at their low end)."""
        kept = []
        for recipe in self.recipes.values():
            candidate = recipe.candidate(self.low)
            if unavailable.isdisjoint((*candidate.transforms, candidate.backend)):
                kept.append(recipe)
        return Space(kept)

    def at_batch(self, size: int) -> "Space":
        """The points at that batch size."""
        kept = []
        for recipe in self.recipes.values():
            batch = recipe.batch_size
            if batch.holds(size) if isinstance(batch, Range) else batch == size:
                kept.append(replace(recipe, batch_size=size))
        return Space(kept)

    def up_to(self, size: int) -> "Space":
        """The points at that batch size and below."""
        kept = []
        for recipe in self.recipes.values():
            batch = recipe.batch_size
            sizes = [value for value in _counts(recipe.batch_size) if value <= size]
            if sizes and isinstance(batch, Range):
                batch = replace(batch, high=sizes[-1]) if len(sizes) > 1 else sizes[0]
            if sizes:
                kept.append(replace(recipe, batch_size=batch))
        return Space(kept)

    def shared(self, cores: int) -> "Space":
        """The points of the space with 1, 2, 4, … replicas, up to one a core, where it leaves open how many; as
        elsewhere in the space, where a range says so."""
        open_to = self.ranges.get(REPLICAS) or (Range(1, cores, factor=2) if cores > 1 else 1)
        recipes = self.recipes.values()
        return Space([r if r.replicas is not None else replace(r, replicas=open_to) for r in recipes])

    def sample(self, trial: Trial) -> Candidate:
        """The candidate a trial stands for. Ranges the recipe does not use are asked for, and ignored."""
        recipe = self.recipes[trial.suggest_categorical(RECIPE, list(self.recipes))]
        return recipe.candidate({name: span.suggest(trial, name) for name, span in self.ranges.items()})

    def at(self, params: Params) -> Candidate:
        """The candidate that those parameters give."""
        return self.sample(KnownTrial(params))

    def params(self, recipe: Recipe, numbers: Mapping[str, float]) -> Params:
        """The parameters that give the recipe at those values of the ranges."""
        params: Params = {RECIPE: recipe.name}
        for name, span in self.ranges.items():
            params |= span.param(name, numbers[name])
        return params

    @property
    def parameters(self) -> set[str]:
        """The names that every trial has a value for."""
        return set(self.params(next(iter(self.recipes.values())), self.low))

    def locate(self, candidate: Candidate) -> Params | None:
        """The parameters that give the candidate; None where it is no point of this space."""
        for recipe in self.recipes.values():
            numbers = recipe.numbers(candidate)
            if numbers is not None and recipe.candidate(self.low | numbers) == candidate:
                return self.params(recipe, self.low | numbers)
        return None

    def points(self) -> list[tuple[Params, Candidate]] | None:
        """Every distinct candidate with the parameters that give it; None where they cannot be counted, or are many."""
        params: dict[Candidate, Params] = {}
        visited = 0
        for recipe in self.recipes.values():
            free = dict(recipe.free())
            grids = [span.values() for span in free.values()]
            if any(grid is None for grid in grids):
                return None
            visited += math.prod(len(grid) for grid in grids if grid is not None)
            if visited > _MOST_POINTS:
                return None
            for values in itertools.product(*cast(list[list[float]], grids)):
                numbers = self.low | dict(zip(free, values, strict=True))
                params.setdefault(recipe.candidate(numbers), self.params(recipe, numbers))
        return [(point, candidate) for candidate, point in params.items()]

    def counts(self, name: Literal["batch_size", "replicas"]) -> list[int]:
        """The batch sizes that occur, or the numbers of replicas, in order."""
        return sorted({count for recipe in self.recipes.values() for count in _counts(getattr(recipe, name) or 1)})


def _counts(value: Range | int) -> list[int]:
    grid = (value.values() or [value.low, value.high]) if isinstance(value, Range) else [value]
    return [int(count) for count in grid]
