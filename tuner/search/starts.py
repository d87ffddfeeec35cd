"""What a search tries without being told to by the sampler: its first points, and what is more careful than one that
lost too much. What is worth it is declared by the transforms."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Literal

from tuner.candidate import Candidate
from tuner.plugin import Transform
from tuner.search.range import Params, Range
from tuner.search.recipe import Recipe, class_name
from tuner.search.space import Space

Point = tuple[Params, Candidate]


def uncompressed(space: Space) -> list[Point]:
    """Every recipe without a transform, its ranges in the middle."""
    return [_point(space, recipe, {}) for recipe in _recipes(space, lambda transforms: not transforms)]


def first(space: Space) -> list[Point]:
    """The uncompressed and what is usual, by their promise before anything was tried."""
    return sorted([*uncompressed(space), *usual(space)], key=lambda point: promise(point[1], {}), reverse=True)


def usual(space: Space) -> list[Point]:
    """Every backend with each transform alone that an engineer would try next, ranges in the middle."""
    chosen = _recipes(space, lambda transforms: len(transforms) == 1 and transforms[0].usual)
    return [_point(space, recipe, {}) for recipe in chosen]


def hardest(space: Space) -> list[Point]:
    """Every backend after all that compresses at once, as hard as the space allows.

    Pruned, then quantized (Han et al., Deep Compression, ICLR 2016): where the accuracy bears it, most of what is
    milder is refused by its draft, and need not be trained.
    """
    most = max(len(recipe.transforms) for recipe in space.recipes.values())
    if most < 2:
        return []
    best: dict[object, tuple[list[float], Point]] = {}
    for recipe in _recipes(space, lambda transforms: len(transforms) == most and all(map(_pressing, transforms))):
        point = _point(space, recipe, _ends(space, recipe))
        _, candidate = point
        settled = [t for t in candidate.transforms if not t.hardest]
        kind = (candidate.backend, *settled, *(type(t) for t in candidate.transforms if t.hardest))
        hardness = [
            getattr(transform, name) * (1 if end == "high" else -1)
            for transform in candidate.transforms
            for name, end in transform.hardest.items()
        ]
        if kind not in best or hardness >= best[kind][0]:
            best[kind] = (hardness, point)
    return [point for _, point in best.values()]


def promise(candidate: Candidate, scores: Mapping[Candidate, float | None]) -> tuple[bool, bool, bool, float]:
    """What is queued is tried from the greatest to the least: what is built quickly, the uncompressed of it, then what
    is quantized as it comes; each first on the runtime that was fastest in float. `scores` are of what was tried."""
    careful = any(t.bound is not None and getattr(t, t.bound) is not None for t in candidate.transforms)
    score = scores.get(candidate.unquantized)
    return not candidate.slow, candidate.uncompressed, not careful, -math.inf if score is None else score


def more_careful(space: Space, candidate: Candidate) -> Candidate | None:
    """The same with the next smaller bound on what its quantizer may do to the outputs, for one that lost too much;
    None where the space has none."""
    return _neighbour(space, candidate, 1)


def less_careful(space: Space, candidate: Candidate) -> Candidate | None:
    """The same with the next larger bound, or with none; None where the space has neither."""
    return _neighbour(space, candidate, -1)


def standing_for(space: Space, candidate: Candidate, lost: Collection[tuple[Transform, ...]]) -> Candidate:
    """What is less careful stands for what is more so, as long as its transforms are not among those known to lose too
    much: where it keeps the limit both are alike, and it costs less."""
    while (looser := less_careful(space, candidate)) is not None and looser.transforms not in lost:
        candidate = looser
    return candidate


def _neighbour(space: Space, candidate: Candidate, step: Literal[1, -1]) -> Candidate | None:
    """The same, so many steps further from what is unbounded to what is bounded most."""
    for n, transform in enumerate(candidate.transforms):
        if transform.bound is not None:
            bounds = {getattr(p, transform.bound) for p in space.plugins if type(p) is type(transform)}
            now = _freedom(getattr(transform, transform.bound))
            further = [bound for bound in bounds if (now - _freedom(bound)) * step > 0]
            for bound in sorted(further, key=lambda bound: -step * _freedom(bound)):
                other = replace(transform, **{transform.bound: bound})
                found = replace(
                    candidate, transforms=(*candidate.transforms[:n], other, *candidate.transforms[n + 1 :])
                )
                if space.locate(found) is not None:
                    return found
    return None


def _freedom(bound: float | None) -> float:
    """How much it lets through."""
    return math.inf if bound is None else bound


def _pressing(transform: Transform) -> bool:
    """Whether it belongs to the hardest compression: it can be pressed, or is what is usual."""
    return bool(transform.hardest) or transform.usual


def _recipes(space: Space, wanted: Callable[[tuple[Transform, ...]], bool]) -> list[Recipe]:
    return [recipe for recipe in space.recipes.values() if wanted(recipe.candidate(space.low).transforms)]


def _ends(space: Space, recipe: Recipe) -> dict[str, float]:
    """The ends of the recipe's ranges at which its transforms compress most."""
    transforms = recipe.candidate(space.low).transforms
    return {
        f"{class_name(spec)}.{name}": spec[name].end(end)
        for spec, transform in zip(recipe.transforms, transforms, strict=True)
        for name, end in transform.hardest.items()
        if isinstance(spec.get(name), Range)
    }


def _point(space: Space, recipe: Recipe, ends: Mapping[str, float]) -> Point:
    """The recipe at those values of its ranges; the others are in the middle."""
    numbers = {name: ends.get(name, span.middle) for name, span in space.ranges.items()}
    return space.params(recipe, numbers), recipe.candidate(numbers)
