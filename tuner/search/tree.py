"""From the YAML tree of a space to its recipes."""

import itertools
from collections.abc import Mapping
from typing import Any

from tuner.errors import RequestError
from tuner.plugin import Backend, Transform, decode
from tuner.search.recipe import BATCH_SIZE, Range, Recipe, described


def expand(node: Any) -> list[Any]:
    """Every way to settle the choices below a node; ranges stay."""
    if isinstance(node, list):
        return [settled for option in node for settled in expand(option)]
    if not isinstance(node, Mapping):
        return [node]
    if {"low", "high"} <= node.keys():
        return [_range(node)]
    options = [expand(value) for value in node.values()]
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


def read_recipe(settled: Mapping[str, Any]) -> Recipe:
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
        named = ", ".join(described(spec) for spec in plugins) or "no plugin"
        raise RequestError(f"search_space: a path needs exactly one backend, and one has {len(backends)}: {named}")
    transforms = [spec for spec, kind in zip(plugins, kinds, strict=True) if isinstance(kind, Transform)]
    return Recipe(tuple(transforms), backends[0], batch)
