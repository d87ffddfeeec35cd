"""The search space: a tree of choices read from YAML, flattened so that only valid points exist.

A list is a choice. A mapping with `low` and `high` is a range: of integers with `step` (default 1) or `factor`
(1, 2, 4, … for `factor: 2`), of numbers with `step` or `log: true`. A mapping with `_target_` is a plugin, whose
fields may themselves be choices or ranges. Any other mapping groups what is inside it; its names are for readers.
`null` is "nothing here". Transforms apply in the order in which they stand.

Each path through the choices is a *recipe*. The sampler sees one categorical parameter, the recipe, beside the
ranges, and every trial names them all: that is what lets a Gaussian process model the whole space.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.plugin import Plugin, Transform, as_it_comes
from tuner.search.recipe import RECIPE, Given, Params, Range, Recipe, Trial
from tuner.search.tree import expand, read_recipe


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
        recipes = [read_recipe(found) for found in expand(tree)]
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
        return self.sample(Given(params))

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
