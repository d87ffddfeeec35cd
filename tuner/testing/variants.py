"""Plugins to run tests over: which there are, and with which parameters."""

from dataclasses import MISSING, fields
from math import ceil, floor
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from tuner.catalog import members
from tuner.plugin import Backend, Plugin, Transform
from tuner.system.fields import Above, AtLeast, AtMost, Below, bounds, options
from tuner.system.loader import annotations


def others() -> list[type[Plugin]]:
    """The transforms and backends that come from other distributions than the tuner's own."""
    kinds: list[type[Plugin]] = [*members(Transform), *members(Backend)]
    return [kind for kind in kinds if not kind.__module__.startswith("tuner.")]


def choices(kind: type[Plugin]) -> dict[str, tuple[Any, ...]]:
    """The fields of a plugin that take one of a few values, and these."""
    few = {name: get_args(hint) for name, hint in annotations(kind).items() if get_origin(hint) is Literal}
    return few | {name: (True, False) for name, hint in annotations(kind).items() if hint is bool}


def plain(kind: type[Plugin], **given: Any) -> Any:
    """The plugin with its defaults; a field without one has a middling value that fits it."""
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    return kind(**{name: _middling(annotations(kind)[name]) for name in needed} | given)


def variants(kind: type[Plugin]) -> list[Any]:
    """The plain plugin, and each that differs from it in one choice."""
    changed = [plain(kind, **{name: value}) for name, values in choices(kind).items() for value in values]
    return list(dict.fromkeys([plain(kind), *changed]))


def fitting(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that fit the annotation of a field, small ones."""
    if len(options(annotation)) > 1:
        return st.one_of(*map(fitting, options(annotation)))
    plain_type, limits = bounds(annotation)
    if get_origin(plain_type) is Literal:
        return st.sampled_from(get_args(plain_type))
    if get_origin(plain_type) is tuple:
        items = get_args(plain_type)
        return st.lists(fitting(items[0]), max_size=3).map(tuple) if ... in items else st.tuples(*map(fitting, items))
    if plain_type in (int, float):
        low = max((limit.limit for limit in limits if isinstance(limit, AtLeast | Above)), default=-100)
        high = min((limit.limit for limit in limits if isinstance(limit, AtMost | Below)), default=low + 200)
        numbers = st.integers(ceil(low), floor(high)) if plain_type is int else st.floats(low, high)
        return numbers.filter(lambda number: all(limit.holds(number) for limit in limits))
    simple = {bool: st.booleans(), type(None): st.none(), str: st.text(max_size=8)}
    if plain_type not in simple:
        raise NotImplementedError(f"the suite knows no values of {annotation}")
    return simple[plain_type]


def unfitting(annotation: Any) -> list[Any]:
    """Values that do not fit: nothing that JSON has, and numbers beyond the bounds."""
    _, limits = bounds(annotation)
    return [object(), *(number for number in (-(10**6), 10**6) if not all(limit.holds(number) for limit in limits))]


def _middling(annotation: Any) -> Any:
    """A value that fits: a half, else the first whole number that does."""
    option = options(annotation)[0]
    plain_type, limits = bounds(option)
    if get_origin(plain_type) is Literal:
        return get_args(plain_type)[0]
    if plain_type in (int, float):
        numbers = [0.5, *map(float, range(1, 1025))] if plain_type is float else range(1, 1025)
        return next(number for number in numbers if all(limit.holds(number) for limit in limits))
    return {bool: True, str: "x", type(None): None}[plain_type]
