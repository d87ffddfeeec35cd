"""From the YAML tree of a space to its recipes."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.errors import RequestError
from tuner.plugin import Backend, Plugin, Transform
from tuner.search.range import Range
from tuner.search.recipe import BATCH_SIZE, REPLICAS, Recipe, described
from tuner.system.fields import shown
from tuner.system.loader import checked, fill, named, resolved

_ROOT = "search_space"
_COUNTS = {BATCH_SIZE: 65_536, REPLICAS: 1024}
"""What is no plugin, and the most that each may be."""
_MOST_RECIPES = 10_000


def read(tree: Any) -> list[Recipe]:
    """Every path through the choices of a tree. Raises RequestError that names the node where it is no space."""
    if not isinstance(tree, Mapping):
        raise RequestError(f"{_ROOT} must be a mapping; it is {shown(tree)}")
    _check(tree, _ROOT)
    if (many := _count(tree)) > _MOST_RECIPES:
        raise RequestError(f"{_ROOT}: its choices make {many:.3g} combinations; {_MOST_RECIPES:,} at most")
    return [_recipe(settled) for settled in _settled(tree)]


def _check(node: Any, where: str) -> None:
    """Raises RequestError for the first node below `where` that is nothing a space can have."""
    if isinstance(node, list):
        for number, option in enumerate(node):
            _check(option, f"{where}[{number}]")
    elif not isinstance(node, Mapping):
        if node is not None:
            raise RequestError(
                f"{where}: {shown(node)} is no plugin (a mapping with _target_), null, batch_size or replicas"
            )
    elif "_target_" in node:
        _check_plugin(node, where)
    else:
        for name, child in node.items():
            if name in _COUNTS:
                _check_count(child, f"{where}.{name}", _COUNTS[name])
            else:
                _check(child, f"{where}.{name}")


def _check_plugin(node: Mapping[str, Any], where: str) -> None:
    """Every value that a field of the plugin may be given, of a range some numbers in it."""
    choices = {str(name): choice for name, choice in node.items() if name != "_target_"}
    allowed = named(resolved(node, Plugin, where), choices, where)
    for name, choice in choices.items():
        for value in _leaves(choice, f"{where}.{name}"):
            for number in _numbers(value) if isinstance(value, Range) else [value]:
                checked(number, allowed[name], f"{where}.{name}")


def _check_count(node: Any, where: str, most: int) -> None:
    for value in _leaves(node, where):
        for number in _numbers(value) if isinstance(value, Range) else [value]:
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
                raise RequestError(f"{where}={shown(node)} must be {_number_to(most)}")


def _number_to(most: int) -> str:
    return f"a whole number from 1 to {most}, or a range of them"


def _numbers(span: Range) -> list[float]:
    """The ends of a range, and where its values are counted the second too: one may be whole where the next is not."""
    return [span.low, *(span.values() or [])[1:2], span.high]


def _leaves(node: Any, where: str) -> Iterator[Any]:
    """The values and ranges among which a choice chooses."""
    if isinstance(node, list):
        for option in node:
            yield from _leaves(option, where)
    else:
        yield _range(node, where) if _is_range(node) else node


def _count(node: Any) -> int:
    """How many ways `_settled` would find."""
    if isinstance(node, list):
        return sum(map(_count, node))
    if not isinstance(node, Mapping) or _is_range(node):
        return 1
    return math.prod(map(_count, node.values()))


def _settled(node: Any) -> list[Any]:
    """Every way to settle the choices below a node; ranges stay."""
    if isinstance(node, list):
        return [settled for option in node for settled in _settled(option)]
    if _is_range(node):
        return [_range(node, _ROOT)]
    if not isinstance(node, Mapping):
        return [node]
    options = [_settled(value) for value in node.values()]
    return [dict(zip(node, values, strict=True)) for values in itertools.product(*options)]


def _is_range(node: Any) -> bool:
    return isinstance(node, Mapping) and {"low", "high"} <= node.keys()


def _range(node: Mapping[str, Any], where: str) -> Range:
    return fill(Range, {str(name): value for name, value in node.items()}, where)


def _recipe(settled: Mapping[str, Any]) -> Recipe:
    """The recipe of a tree without choices: its plugins in order, and the last batch size and number of replicas."""
    counts: dict[str, Any] = {}
    plugins: list[dict[str, Any]] = []
    for name, value in _ends(settled):
        if name in _COUNTS:
            counts[name] = value
        elif value is not None:
            plugins.append(dict(value))
    if BATCH_SIZE not in counts:
        raise RequestError(f"{_ROOT}.batch_size must be given: {_number_to(_COUNTS[BATCH_SIZE])}")
    backends = [spec for spec in plugins if issubclass(resolved(spec, Plugin, _ROOT), Backend)]
    if len(backends) != 1:
        named = ", ".join(described(spec) for spec in plugins) or "no plugin"
        raise RequestError(f"{_ROOT}: a path needs exactly one backend, and one has {len(backends)}: {named}")
    transforms = [spec for spec in plugins if issubclass(resolved(spec, Plugin, _ROOT), Transform)]
    return Recipe(tuple(transforms), backends[0], counts[BATCH_SIZE], counts.get(REPLICAS))


def _ends(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What stands at the ends of the branches, with its name."""
    for name, value in node.items():
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from _ends(value)
        else:
            yield name, value
